// What several kernels share. It is put in front of each of them, since the compiler at run time knows no files.
//
// A launch serves several jobs: job j has the blocks from first[j] on, up to where the next one begins.

#define THREADS 256

// The job that a block belongs to: the last one that does not begin behind it.
__device__ inline unsigned job_of(const unsigned* first, unsigned count, unsigned block) {
    unsigned low = 0, high = count;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (first[middle] <= block) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// Where an operand lies: element (r, c) at offset + r * row_step + c * column_step.
struct Place {
    unsigned offset, row_step, column_step;
};

__device__ inline size_t at(const Place& place, unsigned row, unsigned column) {
    return place.offset + (size_t)row * place.row_step + (size_t)column * place.column_step;
}

__device__ inline bool finite(float x) {
    return fabsf(x) <= 3.402823466e+38f;
}

// beta * old, where beta = 0 ignores even NaN.
__device__ inline float scaled(float beta, float old) {
    return beta == 0.0f ? 0.0f : beta * old;
}

// The sum of one number per thread of the block, the same for all of them; a fixed tree, hence the same bits every time.
__device__ inline float block_sum(float value, float* shared) {
    unsigned thread = threadIdx.x;
    shared[thread] = value;
    __syncthreads();
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        if (thread < half) {
            shared[thread] += shared[thread + half];
        }
        __syncthreads();
    }
    float sum = shared[0];
    __syncthreads();
    return sum;
}
