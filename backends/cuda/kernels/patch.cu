// Patches of images and back.
//
// unfold: patches(e, p) = x(channel, source pixel of p at kernel element (i, j)), 0 in the padding; a last row of 1.
// fold:   x(channel, pixel) = sum of the elements of patches that came from it: the adjoint.

struct PatchTable {
    Windows windows;
    unsigned first, samples;
};

extern "C" __global__ void unfold(const __grid_constant__ PatchTable table, const float* x, float* patches) {
    const Windows& w = table.windows;
    unsigned channels = w.input.channels, positions = w.output.height * w.output.width;
    unsigned length = channels * w.kernel[0] * w.kernel[1], rows = length + w.bias;
    unsigned element = line_element();
    if (element < rows * positions * table.samples) {
        unsigned row = element % rows, column = element / rows;
        float value = 1.0f;
        if (row < length) {
            unsigned channel = row % channels, j = row / channels % w.kernel[1], i = row / channels / w.kernel[1];
            unsigned position = column % positions, sample = table.first + column / positions;
            unsigned pixel;
            bool inside = source(w, position / w.output.width, position % w.output.width, i, j, &pixel);
            unsigned pixels = w.input.height * w.input.width;
            value = inside ? x[((size_t)sample * pixels + pixel) * channels + channel] : 0.0f;
        }
        patches[element] = value;
    }
}

// A thread gathers for one element of x, so that nothing is added to by two.
extern "C" __global__ void fold(const __grid_constant__ PatchTable table, const float* patches, float* x) {
    const Windows& w = table.windows;
    unsigned channels = w.input.channels, pixels = w.input.height * w.input.width;
    unsigned positions = w.output.height * w.output.width, rows = channels * w.kernel[0] * w.kernel[1];
    unsigned element = line_element();
    if (element < channels * pixels * table.samples) {
        unsigned channel = element % channels, pixel = element / channels % pixels, sample = element / channels / pixels;
        unsigned y = pixel / w.input.width, z = pixel % w.input.width;
        float sum = 0.0f;
        for (unsigned i = 0; i < w.kernel[0]; i++) {
            for (unsigned j = 0; j < w.kernel[1]; j++) {
                unsigned row, column;
                if (target(w, 0, y, i, w.output.height, &row) && target(w, 1, z, j, w.output.width, &column)) {
                    size_t patch = (size_t)sample * positions + row * w.output.width + column;
                    sum += patches[patch * rows + (i * w.kernel[1] + j) * channels + channel];
                }
            }
        }
        x[(size_t)table.first * channels * pixels + element] = sum;
    }
}
