// sound[j] <- 1 if factorisation j succeeded, else 0.
//
// What the library says of job j lies at info[first[j]], for it may have done the jobs in another order. A NaN below the
// diagonal of A makes a NaN on the diagonal of L, whether or not the library reports it.

struct Square {
    unsigned offset, n, column_step;
};

struct SquareTable {
    unsigned count;
    unsigned first[128];
    Square job[128];
};

extern "C" __global__ void soundness(
    const __grid_constant__ SquareTable table, const float* matrix, const int* info, float* sound
) {
    __shared__ float shared[THREADS];
    unsigned j = blockIdx.x;
    const Square& job = table.job[j];
    float bad = 0.0f;
    for (unsigned i = threadIdx.x; i < job.n; i += THREADS) {
        float pivot = matrix[job.offset + (size_t)i * (job.column_step + 1)];
        if (!(finite(pivot) && pivot > 0.0f)) {
            bad = 1.0f;
        }
    }
    bad = block_sum(bad, shared);
    if (threadIdx.x == 0) {
        sound[j] = bad == 0.0f && (job.n == 0 || info[table.first[j]] == 0) ? 1.0f : 0.0f;
    }
}
