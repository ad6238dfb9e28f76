// out <- alpha * sum(x * y) + beta * out for every job, summed over the rows, the columns, both or neither.

struct ReduceJob {
    unsigned rows, columns;        // of out
    unsigned summed_rows, summed_columns;
    Place x, y;
    Place out;                     // for reduce_part: where its partial sums begin, parts, terms of a part
    float alpha, beta;
};

struct ReduceTable {
    unsigned count;
    unsigned first[40];
    ReduceJob job[40];
};

__device__ inline float term(const ReduceJob& job, const float* x, const float* y, unsigned row, unsigned column, unsigned i) {
    unsigned r = row + i % job.summed_rows, c = column + i / job.summed_rows;
    float value = x[at(job.x, r, c)];
    return y ? value * y[at(job.y, r, c)] : value;
}

// A block does one element of out when there is much to sum; its threads share the terms, then meet in a tree.
extern "C" __global__ void reduce_long(const __grid_constant__ ReduceTable table, const float* x, const float* y, float* out) {
    __shared__ float shared[THREADS];
    unsigned j = job_of(table.first, table.count, blockIdx.x);
    const ReduceJob& job = table.job[j];
    unsigned element = blockIdx.x - table.first[j];
    unsigned row = element % job.rows, column = element / job.rows;
    unsigned terms = job.summed_rows * job.summed_columns;
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < terms; i += THREADS) {
        sum += term(job, x, y, row, column, i);
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) {
        float* target = out + at(job.out, row, column);
        *target = job.alpha * sum + scaled(job.beta, *target);
    }
}

// A block does one of `parts` parts of one element of out when there is very much to sum: partial(part, element).
extern "C" __global__ void reduce_part(
    const __grid_constant__ ReduceTable table, const float* x, const float* y, float* partial
) {
    __shared__ float shared[THREADS];
    unsigned j = job_of(table.first, table.count, blockIdx.x);
    const ReduceJob& job = table.job[j];
    unsigned parts = job.out.row_step, element = (blockIdx.x - table.first[j]) / parts;
    unsigned part = (blockIdx.x - table.first[j]) % parts;
    unsigned row = element % job.rows, column = element / job.rows;
    unsigned terms = job.summed_rows * job.summed_columns, length = job.out.column_step;
    unsigned end = min((part + 1) * length, terms);
    float sum = 0.0f;
    for (unsigned i = part * length + threadIdx.x; i < end; i += THREADS) {
        sum += term(job, x, y, row, column, i);
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) {
        partial[job.out.offset + (size_t)element * parts + part] = sum;
    }
}

// A thread does one element of out when there is little to sum.
extern "C" __global__ void reduce_short(const __grid_constant__ ReduceTable table, const float* x, const float* y, float* out) {
    unsigned j = job_of(table.first, table.count, blockIdx.x);
    const ReduceJob& job = table.job[j];
    unsigned element = (blockIdx.x - table.first[j]) * THREADS + threadIdx.x;
    if (element < job.rows * job.columns) {
        unsigned row = element % job.rows, column = element / job.rows;
        unsigned terms = job.summed_rows * job.summed_columns;
        float sum = 0.0f;
        for (unsigned i = 0; i < terms; i++) {
            sum += term(job, x, y, row, column, i);
        }
        float* target = out + at(job.out, row, column);
        *target = job.alpha * sum + scaled(job.beta, *target);
    }
}
