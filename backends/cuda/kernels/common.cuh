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

// The geometry of a convolution or of pooling windows; pairs are vertical, horizontal.
struct Extent {
    unsigned channels, height, width;
};

struct Windows {
    Extent input, output;
    unsigned kernel[2], stride[2], padding[2], dilation[2];
    unsigned bias;
};

// Which element this thread has, of a launch over a line of elements.
__device__ inline unsigned line_element() {
    return blockIdx.x * THREADS + threadIdx.x;
}

// The input pixel that an output pixel sees at a kernel element; whether there is one.
__device__ inline bool source(const Windows& w, unsigned row, unsigned column, unsigned i, unsigned j, unsigned* pixel) {
    unsigned y = row * w.stride[0] + i * w.dilation[0], x = column * w.stride[1] + j * w.dilation[1];
    if (y < w.padding[0] || x < w.padding[1]) {
        return false;
    }
    y -= w.padding[0];
    x -= w.padding[1];
    *pixel = y * w.input.width + x;
    return y < w.input.height && x < w.input.width;
}

// The output coordinate whose kernel element i sees an input coordinate along one axis; whether there is one.
__device__ inline bool target(const Windows& w, unsigned axis, unsigned input, unsigned i, unsigned extent, unsigned* output) {
    unsigned reached = input + w.padding[axis], skipped = i * w.dilation[axis];
    if (reached < skipped || (reached - skipped) % w.stride[axis] != 0) {
        return false;
    }
    *output = (reached - skipped) / w.stride[axis];
    return *output < extent;
}
