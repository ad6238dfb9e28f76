// A(r, c) <- A(c, r) above the diagonal, for every job: what was computed in the lower triangle becomes symmetric.

struct Square {
    unsigned offset, n, column_step;
};

struct SquareTable {
    unsigned count;
    unsigned first[128];
    Square job[128];
};

extern "C" __global__ void mirror(const __grid_constant__ SquareTable table, float* matrix) {
    unsigned j = job_of(table.first, table.count, blockIdx.x);
    const Square& job = table.job[j];
    unsigned element = (blockIdx.x - table.first[j]) * THREADS + threadIdx.x;
    unsigned row = element % job.n, column = element / job.n;
    if (column < job.n && row < column) {
        float* a = matrix + job.offset;
        a[row + (size_t)column * job.column_step] = a[column + (size_t)row * job.column_step];
    }
}
