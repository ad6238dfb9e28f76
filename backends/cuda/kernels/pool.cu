// Maximum and mean pooling and their adjoints.
//
// A maximum goes back to the first of equals, kernel rows first; a NaN wins. A mean counts padding as zeros.

struct PoolTable {
    Windows windows;
    unsigned batch, mean;
};

// Which element of a window is its maximum: where the image has it.
__device__ inline size_t winner(const Windows& w, const float* image, unsigned row, unsigned column, unsigned channel) {
    unsigned channels = w.input.channels;
    bool any = false;
    size_t best = 0;
    float most = 0.0f;
    for (unsigned i = 0; i < w.kernel[0]; i++) {
        for (unsigned j = 0; j < w.kernel[1]; j++) {
            unsigned pixel;
            if (source(w, row, column, i, j, &pixel)) {
                size_t place = (size_t)pixel * channels + channel;
                float value = image[place];
                if (!any || value > most || value != value) {
                    any = true;
                    best = place;
                    most = value;
                }
            }
        }
    }
    return best;
}

extern "C" __global__ void pool_forward(const __grid_constant__ PoolTable table, const float* x, float* y) {
    const Windows& w = table.windows;
    unsigned channels = w.input.channels, positions = w.output.height * w.output.width;
    size_t image = (size_t)w.input.height * w.input.width * channels;
    unsigned element = line_element();
    if (element < channels * positions * table.batch) {
        unsigned channel = element % channels, position = element / channels % positions;
        const float* from = x + image * (element / channels / positions);
        unsigned row = position / w.output.width, column = position % w.output.width;
        if (table.mean) {
            float sum = 0.0f;
            for (unsigned i = 0; i < w.kernel[0]; i++) {
                for (unsigned j = 0; j < w.kernel[1]; j++) {
                    unsigned pixel;
                    if (source(w, row, column, i, j, &pixel)) {
                        sum += from[(size_t)pixel * channels + channel];
                    }
                }
            }
            y[element] = sum * (1.0f / (float)(w.kernel[0] * w.kernel[1]));
        } else {
            y[element] = from[winner(w, from, row, column, channel)];
        }
    }
}

// A thread gathers for one element of dx: from every window that sees it, for a maximum if it won there.
extern "C" __global__ void pool_backward(
    const __grid_constant__ PoolTable table, const float* x, const float* dy, float* dx
) {
    const Windows& w = table.windows;
    unsigned channels = w.input.channels, pixels = w.input.height * w.input.width;
    unsigned positions = w.output.height * w.output.width;
    unsigned element = line_element();
    if (element < channels * pixels * table.batch) {
        unsigned channel = element % channels, pixel = element / channels % pixels, sample = element / channels / pixels;
        unsigned y = pixel / w.input.width, z = pixel % w.input.width;
        size_t image = (size_t)sample * pixels * channels, place = (size_t)pixel * channels + channel;
        float sum = 0.0f;
        for (unsigned i = 0; i < w.kernel[0]; i++) {
            for (unsigned j = 0; j < w.kernel[1]; j++) {
                unsigned row, column;
                if (target(w, 0, y, i, w.output.height, &row) && target(w, 1, z, j, w.output.width, &column)) {
                    if (table.mean || winner(w, x + image, row, column, channel) == place) {
                        size_t out = (size_t)sample * positions + row * w.output.width + column;
                        sum += dy[out * channels + channel];
                    }
                }
            }
        }
        dx[element] = table.mean ? sum * (1.0f / (float)(w.kernel[0] * w.kernel[1])) : sum;
    }
}
