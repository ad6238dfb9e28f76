// The option-A shortcut (He et al. 2015): every stride-th pixel, zero channels on both sides; and its adjoint, added.

struct SubsampleTable {
    Extent input, output;
    unsigned stride, batch, accumulate;
};

extern "C" __global__ void subsample(const __grid_constant__ SubsampleTable t, const float* x, float* y) {
    unsigned channels = t.output.channels, positions = t.output.height * t.output.width;
    unsigned front = (channels - t.input.channels) / 2;
    unsigned element = line_element();
    if (element < channels * positions * t.batch) {
        unsigned channel = element % channels, position = element / channels % positions;
        unsigned sample = element / channels / positions;
        float value = 0.0f;
        if (channel >= front && channel < front + t.input.channels) {
            unsigned row = position / t.output.width * t.stride, column = position % t.output.width * t.stride;
            size_t pixel = ((size_t)sample * t.input.height + row) * t.input.width + column;
            value = x[pixel * t.input.channels + channel - front];
        }
        y[element] = t.accumulate ? y[element] + value : value;
    }
}

extern "C" __global__ void subsample_adjoint(const __grid_constant__ SubsampleTable t, const float* dy, float* dx) {
    unsigned channels = t.input.channels, pixels = t.input.height * t.input.width;
    unsigned front = (t.output.channels - channels) / 2;
    unsigned element = line_element();
    if (element < channels * pixels * t.batch) {
        unsigned channel = element % channels, pixel = element / channels % pixels, sample = element / channels / pixels;
        unsigned row = pixel / t.input.width, column = pixel % t.input.width;
        bool kept = row % t.stride == 0 && column % t.stride == 0;
        row /= t.stride;
        column /= t.stride;
        if (kept && row < t.output.height && column < t.output.width) {
            size_t out = ((size_t)sample * t.output.height + row) * t.output.width + column;
            dx[element] += dy[out * t.output.channels + front + channel];
        }
    }
}
