// Mean softmax cross-entropy with label smoothing, and labels drawn from a softmax.

struct SoftmaxTable {
    unsigned classes, batch;
    float smoothing;
};

__device__ inline float largest_of(const float* z, unsigned classes) {
    float largest = z[0];
    for (unsigned i = 1; i < classes; i++) {
        largest = fmaxf(largest, z[i]);
    }
    return largest;
}

// dz <- (softmax(z) - target) / batch, loss <- [mean of -sum target * log softmax(z); number of correct answers].
//
// One block; a thread per sample. A label that is no class makes the loss NaN.
extern "C" __global__ void softmax_cross_entropy(
    const __grid_constant__ SoftmaxTable t, const float* z, const float* labels, float* dz, float* loss
) {
    __shared__ float shared[THREADS];
    float share = 1.0f / (float)max(t.batch, 1u), off = t.smoothing / (float)t.classes, on = 1.0f - t.smoothing + off;
    float total = 0.0f, correct = 0.0f;
    for (unsigned sample = threadIdx.x; sample < t.batch; sample += THREADS) {
        const float* line = z + (size_t)sample * t.classes;
        float* out = dz + (size_t)sample * t.classes;
        unsigned label = (unsigned)labels[sample];
        float largest = largest_of(line, t.classes), sum = 0.0f;
        for (unsigned i = 0; i < t.classes; i++) {
            sum += expf(line[i] - largest);
        }
        float log_sum = logf(sum) + largest, scale = 1.0f / sum;
        // The first of equals answers; NaN is never right.
        bool right = label < t.classes && line[label] == largest;
        for (unsigned i = 0; i < t.classes; i++) {
            float wanted = i == label ? on : off;
            total += wanted * (log_sum - line[i]);
            out[i] = (expf(line[i] - largest) * scale - wanted) * share;
            right = right && (i >= label || line[i] < largest);
        }
        total = label < t.classes ? total : nanf("");
        correct += right ? 1.0f : 0.0f;
    }
    total = block_sum(total, shared);
    correct = block_sum(correct, shared);
    if (threadIdx.x == 0) {
        loss[0] = total * share;
        loss[1] = correct;
    }
}

// labels <- the class at which the running sum of softmax(z) passes the uniform number given.
extern "C" __global__ void sample_labels(
    const __grid_constant__ SoftmaxTable t, const float* z, const float* uniform, float* labels
) {
    unsigned sample = line_element();
    if (sample < t.batch) {
        const float* line = z + (size_t)sample * t.classes;
        float largest = largest_of(line, t.classes), sum = 0.0f;
        for (unsigned i = 0; i < t.classes; i++) {
            sum += expf(line[i] - largest);
        }
        float left = uniform[sample] * sum;
        unsigned label = t.classes - 1;
        for (unsigned i = 0; i < t.classes; i++) {
            left -= expf(line[i] - largest);
            if (left < 0.0f) {
                label = i;
                break;
            }
        }
        labels[sample] = (float)label;
    }
}
