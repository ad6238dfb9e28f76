// EvoNorm-S0 (Liu et al. 2020): y = x * s(v * x) / sqrt(var + epsilon) * gamma + beta, s being the logistic function and
// var the variance of one group of channels of one sample. Parameters are [gamma; beta; v].
//
// A block has one group of one sample.

struct EvoNormTable {
    unsigned channels, positions, groups, batch;
    unsigned chunks, chunk;                   // of samples, for the gradient
    unsigned parameters;
    float epsilon;
};

__device__ inline float logistic(float x) {
    return 1.0f / (1.0f + expf(-x));
}

// The place of element i of this block's group.
__device__ inline size_t group_place(const EvoNormTable& t, unsigned i, unsigned* channel) {
    unsigned width = t.channels / t.groups, group = blockIdx.x % t.groups, sample = blockIdx.x / t.groups;
    *channel = group * width + i % width;
    return ((size_t)sample * t.positions + i / width) * t.channels + *channel;
}

// 1 / sqrt(var + epsilon) of this block's group, and its mean.
__device__ inline float group_scale(const EvoNormTable& t, const float* x, float* shared, float* mean) {
    unsigned count = t.channels / t.groups * t.positions, channel;
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < count; i += THREADS) {
        sum += x[group_place(t, i, &channel)];
    }
    *mean = block_sum(sum, shared) / (float)count;
    float squares = 0.0f;
    for (unsigned i = threadIdx.x; i < count; i += THREADS) {
        float off = x[group_place(t, i, &channel)] - *mean;
        squares += off * off;
    }
    return 1.0f / sqrtf(block_sum(squares, shared) / (float)count + t.epsilon);
}

extern "C" __global__ void evo_norm_forward(
    const __grid_constant__ EvoNormTable t, const float* parameters, const float* x, float* y
) {
    __shared__ float shared[THREADS];
    float mean, r = group_scale(t, x, shared, &mean);
    unsigned count = t.channels / t.groups * t.positions;
    for (unsigned i = threadIdx.x; i < count; i += THREADS) {
        unsigned channel;
        size_t place = group_place(t, i, &channel);
        const float* p = parameters + t.parameters + channel;
        y[place] = x[place] * logistic(p[2 * t.channels] * x[place]) * r * p[0] + p[t.channels];
    }
}

// dx <- u * r * (s + x * v * s * (1 - s)) - r^3 * (x - mean) / count * sum(u * x * s), with u = dy * gamma; scales <- r.
extern "C" __global__ void evo_norm_backward(
    const __grid_constant__ EvoNormTable t, const float* parameters, const float* x, const float* dy, float* dx,
    float* scales
) {
    __shared__ float shared[THREADS];
    float mean, r = group_scale(t, x, shared, &mean);
    unsigned count = t.channels / t.groups * t.positions;
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < count; i += THREADS) {
        unsigned channel;
        size_t place = group_place(t, i, &channel);
        const float* p = parameters + t.parameters + channel;
        sum += dy[place] * p[0] * x[place] * logistic(p[2 * t.channels] * x[place]);
    }
    float slope = r * r * r * block_sum(sum, shared) / (float)count;
    for (unsigned i = threadIdx.x; i < count; i += THREADS) {
        unsigned channel;
        size_t place = group_place(t, i, &channel);
        const float* p = parameters + t.parameters + channel;
        float v = p[2 * t.channels], value = x[place], s = logistic(v * value);
        dx[place] = dy[place] * p[0] * r * (s + value * v * s * (1.0f - s)) - slope * (value - mean);
    }
    if (threadIdx.x == 0) {
        scales[blockIdx.x] = r;
    }
}

// partial <- per chunk of samples: [sum dy * x * s * r; sum dy; sum u * r * x^2 * s * (1 - s)], a thread per channel.
extern "C" __global__ void evo_norm_gradient(
    const __grid_constant__ EvoNormTable t, const float* parameters, const float* x, const float* dy, const float* scales,
    float* partial
) {
    unsigned chunk = blockIdx.x % t.chunks, channel = blockIdx.x / t.chunks * THREADS + threadIdx.x;
    if (channel < t.channels) {
        const float* p = parameters + t.parameters + channel;
        float gamma = p[0], v = p[2 * t.channels], of_gain = 0.0f, of_shift = 0.0f, of_v = 0.0f;
        unsigned group = channel / (t.channels / t.groups), end = min((chunk + 1) * t.chunk, t.batch);
        for (unsigned sample = chunk * t.chunk; sample < end; sample++) {
            float r = scales[sample * t.groups + group];
            float gain = 0.0f, shift = 0.0f, curve = 0.0f;
            for (unsigned position = 0; position < t.positions; position++) {
                size_t place = ((size_t)sample * t.positions + position) * t.channels + channel;
                float value = x[place], d = dy[place], s = logistic(v * value);
                gain += d * value * s;
                shift += d;
                curve += d * value * value * s * (1.0f - s);
            }
            of_gain += gain * r;
            of_shift += shift;
            of_v += curve * r * gamma;
        }
        float* out = partial + (size_t)chunk * 3 * t.channels + channel;
        out[0] = of_gain;
        out[t.channels] = of_shift;
        out[2 * t.channels] = of_v;
    }
}
