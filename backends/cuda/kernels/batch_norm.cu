// Batch normalisation (Ioffe & Szegedy 2015), activations being channels x columns.
//
// A block has 32 neighbouring channels, which lie next to each other, and 8 lines of columns of one chunk. Chunks give
// their mean and sum of squares about it, which Chan's formula joins in a fixed order (Chan, Golub & LeVeque 1983).

#define LANES 32
#define LINES 8

struct BatchNormTable {
    unsigned channels, columns, chunks, chunk;
    unsigned parameters, running, gradient;   // where each begins in its buffer
    float epsilon, momentum;
};

// The sum over the lines of a block, for each of its channels.
__device__ inline float line_sum(float value, float* shared) {
    unsigned lane = threadIdx.x % LANES, line = threadIdx.x / LANES;
    shared[threadIdx.x] = value;
    __syncthreads();
    float sum = 0.0f;
    for (unsigned i = 0; i < LINES; i++) {
        sum += shared[i * LANES + lane];
    }
    __syncthreads();
    return sum;
}

// partial <- per chunk and channel: mean, sum of squares about it.
extern "C" __global__ void batch_norm_moments(const __grid_constant__ BatchNormTable t, const float* x, float* partial) {
    __shared__ float shared[THREADS];
    unsigned chunk = blockIdx.x % t.chunks;
    unsigned channel = blockIdx.x / t.chunks * LANES + threadIdx.x % LANES;
    unsigned begin = chunk * t.chunk, end = min(begin + t.chunk, t.columns);
    bool some = channel < t.channels;
    float sum = 0.0f;
    for (unsigned column = begin + threadIdx.x / LANES; some && column < end; column += LINES) {
        sum += x[channel + (size_t)column * t.channels];
    }
    float mean = line_sum(sum, shared) / (float)(end - begin);
    float squares = 0.0f;
    for (unsigned column = begin + threadIdx.x / LANES; some && column < end; column += LINES) {
        float off = x[channel + (size_t)column * t.channels] - mean;
        squares += off * off;
    }
    squares = line_sum(squares, shared);
    if (some && threadIdx.x < LANES) {
        partial[(size_t)chunk * 2 * t.channels + channel] = mean;
        partial[((size_t)chunk * 2 + 1) * t.channels + channel] = squares;
    }
}

// saved <- [mean; 1 / sqrt(var + epsilon)], running <- (1 - momentum) * running + momentum * [mean; unbiased var].
extern "C" __global__ void batch_norm_finish(
    const __grid_constant__ BatchNormTable t, const float* partial, float* saved, float* running
) {
    unsigned channel = line_element();
    if (channel < t.channels) {
        float count = 0.0f, mean = 0.0f, squares = 0.0f;
        for (unsigned chunk = 0; chunk < t.chunks; chunk++) {
            float more = (float)(min((chunk + 1) * t.chunk, t.columns) - chunk * t.chunk);
            float off = partial[(size_t)chunk * 2 * t.channels + channel] - mean;
            float total = count + more;
            mean += off * (more / total);
            squares += partial[((size_t)chunk * 2 + 1) * t.channels + channel] + off * off * (count * (more / total));
            count = total;
        }
        saved[channel] = mean;
        saved[t.channels + channel] = 1.0f / sqrtf(squares / count + t.epsilon);
        float unbiased = squares / (count > 1.0f ? count - 1.0f : 1.0f);
        float* r = running + t.running + channel;
        r[0] = (1.0f - t.momentum) * r[0] + t.momentum * mean;
        r[t.channels] = (1.0f - t.momentum) * r[t.channels] + t.momentum * unbiased;
    }
}

// y <- gamma * (x - mean) * scale + beta.
extern "C" __global__ void batch_norm_apply(
    const __grid_constant__ BatchNormTable t, const float* parameters, const float* saved, const float* x, float* y
) {
    unsigned element = line_element();
    if (element < t.channels * t.columns) {
        unsigned channel = element % t.channels;
        const float* p = parameters + t.parameters + channel;
        y[element] = (x[element] - saved[channel]) * saved[t.channels + channel] * p[0] + p[t.channels];
    }
}

// y <- gamma * (x - running mean) / sqrt(running var + epsilon) + beta.
extern "C" __global__ void batch_norm_evaluate(
    const __grid_constant__ BatchNormTable t, const float* parameters, const float* running, const float* x, float* y
) {
    unsigned element = line_element();
    if (element < t.channels * t.columns) {
        unsigned channel = element % t.channels;
        const float* p = parameters + t.parameters + channel;
        const float* r = running + t.running + channel;
        y[element] = (x[element] - r[0]) / sqrtf(r[t.channels] + t.epsilon) * p[0] + p[t.channels];
    }
}

// partial <- per chunk and channel: sum of dy * normal, sum of dy; their sums over the chunks are the gradient.
extern "C" __global__ void batch_norm_gradient(
    const __grid_constant__ BatchNormTable t, const float* x, const float* saved, const float* dy, float* partial
) {
    __shared__ float shared[THREADS];
    unsigned chunk = blockIdx.x % t.chunks;
    unsigned channel = blockIdx.x / t.chunks * LANES + threadIdx.x % LANES;
    unsigned begin = chunk * t.chunk, end = min(begin + t.chunk, t.columns);
    bool some = channel < t.channels;
    float mean = some ? saved[channel] : 0.0f, scale = some ? saved[t.channels + channel] : 0.0f;
    float of_scale = 0.0f, of_shift = 0.0f;
    for (unsigned column = begin + threadIdx.x / LANES; some && column < end; column += LINES) {
        size_t place = channel + (size_t)column * t.channels;
        of_scale += dy[place] * ((x[place] - mean) * scale);
        of_shift += dy[place];
    }
    of_scale = line_sum(of_scale, shared);
    of_shift = line_sum(of_shift, shared);
    if (some && threadIdx.x < LANES) {
        partial[(size_t)chunk * 2 * t.channels + channel] = of_scale;
        partial[((size_t)chunk * 2 + 1) * t.channels + channel] = of_shift;
    }
}

// dx <- gamma * scale * (dy - mean(dy) - normal * mean(dy * normal)).
extern "C" __global__ void batch_norm_backward(
    const __grid_constant__ BatchNormTable t, const float* parameters, const float* x, const float* saved,
    const float* dy, const float* gradient, float* dx
) {
    unsigned element = line_element();
    if (element < t.channels * t.columns) {
        unsigned channel = element % t.channels;
        float scale = saved[t.channels + channel], share = 1.0f / (float)t.columns;
        const float* g = gradient + t.gradient + channel;
        float normal = (x[element] - saved[channel]) * scale;
        float rest = dy[element] - g[t.channels] * share - normal * (g[0] * share);
        dx[element] = parameters[t.parameters + channel] * scale * rest;
    }
}
