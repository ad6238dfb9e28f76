// What the symmetric eigensolver must not see, and what it must not say.
//
// A solver that meets a NaN may not come to an end. A matrix with one is replaced by zeros before, and its eigenvalues by
// NaN afterwards; so are those of a decomposition that did not converge, as the library says at info[first[j]].

struct EigenJob {
    unsigned offset, n, column_step, values;
};

struct EigenTable {
    unsigned count;
    unsigned first[128];
    EigenJob job[128];
};

extern "C" __global__ void eigen_before(const __grid_constant__ EigenTable table, float* matrix, float* sound) {
    __shared__ float shared[THREADS];
    const EigenJob& job = table.job[blockIdx.x];
    unsigned total = job.n * job.n;
    float bad = 0.0f;
    for (unsigned i = threadIdx.x; i < total; i += THREADS) {
        unsigned row = i % job.n, column = i / job.n;
        if (row >= column && !finite(matrix[job.offset + row + (size_t)column * job.column_step])) {
            bad = 1.0f;
        }
    }
    bad = block_sum(bad, shared);
    if (bad != 0.0f) {
        for (unsigned i = threadIdx.x; i < total; i += THREADS) {
            matrix[job.offset + i % job.n + (size_t)(i / job.n) * job.column_step] = 0.0f;
        }
    }
    if (threadIdx.x == 0) {
        sound[blockIdx.x] = bad == 0.0f ? 1.0f : 0.0f;
    }
}

extern "C" __global__ void eigen_after(
    const __grid_constant__ EigenTable table, const float* sound, const int* info, float* values
) {
    const EigenJob& job = table.job[blockIdx.x];
    if (sound[blockIdx.x] == 0.0f || info[table.first[blockIdx.x]] != 0) {
        for (unsigned i = threadIdx.x; i < job.n; i += THREADS) {
            values[job.values + i] = nanf("");
        }
    }
}
