// out <- op(x, y, out), element by element, for every job; a missing operand reads as 0.

enum Operation {
    FILL, AXPBY, SUM, MULTIPLY_ADD, DIVIDE, RECIPROCAL, SQRT, MAXIMUM, RELU, RELU_GRADIENT, TANH, TANH_GRADIENT,
    DIVIDE_BY_PRODUCT, DIVIDE_DAMPED, BALANCE, KL_SCALE, FINITE, BLEND, MOMENT, ADAM_DIRECTION, SELECT
};

struct MapJob {
    unsigned rows, columns;
    Place x, y, out;
};

struct MapTable {
    unsigned operation, count;
    float a, b, c;
    unsigned first[64];
    MapJob job[64];
};

__device__ inline float operate(unsigned operation, float a, float b, float c, float x, float y, float z) {
    switch (operation) {
        case FILL: return a;
        case AXPBY: return a * x + scaled(b, z);
        case SUM: return a * x + b * y;
        case MULTIPLY_ADD: return a * x * y + scaled(b, z);
        case DIVIDE: return x / y;
        case RECIPROCAL: return 1.0f / x;
        case SQRT: return sqrtf(x);
        case MAXIMUM: return fmaxf(a * x, b * y);
        case RELU: return x < 0.0f ? 0.0f : x;
        case RELU_GRADIENT: return y > 0.0f ? x : 0.0f;
        case TANH: return tanhf(x);
        case TANH_GRADIENT: return x * (1.0f - y * y);
        case DIVIDE_BY_PRODUCT: return z / (fmaxf(x, 0.0f) * fmaxf(y, 0.0f) + a);
        case DIVIDE_DAMPED: return z / (x + a);
        case BALANCE: {
            float ratio = sqrtf(x / y);
            return finite(ratio) && ratio > 0.0f ? ratio : 1.0f;
        }
        case KL_SCALE: return x == 0.0f ? 1.0f : fminf(sqrtf(a / fabsf(x)), 1.0f);
        case FINITE: return finite(x) ? 1.0f : 0.0f;
        case BLEND: return y == 0.0f ? z : scaled(a, z) + (1.0f - a) * x;
        case MOMENT: return scaled(a, z) + (1.0f - a) * x * x;
        case ADAM_DIRECTION: return a * x / (sqrtf(b * y) + c);
        default: return y == 0.0f ? z : x;
    }
}

// A thread does four elements, THREADS apart, so that neighbours read neighbours.
extern "C" __global__ void map(const __grid_constant__ MapTable table, const float* x, const float* y, float* out) {
    unsigned j = job_of(table.first, table.count, blockIdx.x);
    const MapJob& job = table.job[j];
    unsigned total = job.rows * job.columns;
    unsigned start = (blockIdx.x - table.first[j]) * (4 * THREADS) + threadIdx.x;
    for (unsigned step = 0; step < 4; step++) {
        unsigned element = start + step * THREADS;
        if (element < total) {
            unsigned row = element % job.rows, column = element / job.rows;
            float first = x ? x[at(job.x, row, column)] : 0.0f;
            float second = y ? y[at(job.y, row, column)] : 0.0f;
            float* target = out + at(job.out, row, column);
            *target = operate(table.operation, table.a, table.b, table.c, first, second, *target);
        }
    }
}
