// CUDA C for a host compiler: enough of it to run the backend's kernels as they are.
//
// A block's threads are run one after the other up to the next __syncthreads, in an order that is drawn anew every
// time, by `launch` of the driver; a kernel without __syncthreads needs no fibers. Shared memory is static, since one
// block runs at a time, and keeps what the block before it left.
#pragma once

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __shared__ static
#define __launch_bounds__(...)
#define __restrict__

struct uint3 {
    unsigned x, y, z;
};

static inline unsigned min(unsigned a, unsigned b) {
    return a < b ? a : b;
}

static inline unsigned max(unsigned a, unsigned b) {
    return a > b ? a : b;
}

extern "C" uint3 standin_thread, standin_block, standin_block_extent, standin_grid_extent;
extern "C" void standin_barrier();

#define threadIdx standin_thread
#define blockIdx standin_block
#define blockDim standin_block_extent
#define gridDim standin_grid_extent
#define __syncthreads standin_barrier

// A kernel as the driver sees it: what its arguments are is known to its type only.
struct StandinKernel {
    const char* name;
    bool barriers;
    // Copies the arguments now, for a thread to be run later.
    std::function<void()> (*bind)(void** arguments);
};

extern "C" void standin_register(const StandinKernel* kernels, unsigned count);

template <typename... P, std::size_t... I>
std::function<void()> standin_bind(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
    auto copies = std::make_shared<std::tuple<std::remove_const_t<P>...>>(
        *static_cast<std::remove_const_t<P>*>(arguments[I])...);
    return [kernel, copies] { std::apply(kernel, *copies); };
}

template <typename... P>
std::function<void()> standin_bind(void (*kernel)(P...), void** arguments) {
    return standin_bind(kernel, arguments, std::index_sequence_for<P...>{});
}
