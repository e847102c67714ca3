// What the kernels use of CUDA's C++, for a CPU: they are compiled as they are, after this file.
// 32 contexts are the lanes of a warp.  A lane runs its thread of one warp after the other, and
// waits where it exchanges a value until the other lanes have come there too.

#include <cmath>
#include <csetjmp>
#include <cstring>
#include <functional>
#include <typeinfo>
#include <ucontext.h>
#include <utility>

#define __global__
#define __device__

using std::isfinite, std::isnan;

namespace {

struct uint3 {
    unsigned x;
} blockIdx, blockDim, gridDim, threadIdx;

unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}

unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

namespace emulator {

const int WARP = 32;

struct Lane {
    ucontext_t context; // where it begins
    jmp_buf waits;      // where it goes on; swapcontext would make a system call each time
    char stack[1 << 16];
    bool begun, done;
    int turn; // of the exchanges of this lane, odd or even: others may still read the last one
    unsigned mask, block, warp;
    unsigned char sent[2][8];
} lanes[WARP], *lane;

jmp_buf all;
std::function<void()> thread;

void go_on() {
    if (_setjmp(all))
        return;
    if (lane->begun)
        _longjmp(lane->waits, 1);
    lane->begun = true;
    setcontext(&lane->context);
}

void wait() {
    if (!_setjmp(lane->waits))
        _longjmp(all, 1);
}

void run_lane() {
    unsigned first = lane - lanes;
    for (unsigned block = 0; block < gridDim.x; block++)
        for (unsigned number = first; number < blockDim.x; number += WARP) {
            blockIdx.x = block, threadIdx.x = number;
            thread();
        }
    lane->done = true;
    _longjmp(all, 1);
}

// Do the lanes that have not ended all wait for each other?
bool together() {
    for (Lane &other : lanes)
        if (other.done != lanes->done ||
            (!other.done && (other.mask != 0xffffffff || other.block != lanes->block ||
                             other.warp != lanes->warp)))
            return false;
    return true;
}

// nullptr, or what a kernel did wrong.
const char *run(unsigned grid, unsigned block) {
    if (block % WARP)
        return "the emulator has whole warps alone";
    gridDim.x = grid, blockDim.x = block;
    for (Lane &other : lanes) {
        other.begun = other.done = false;
        getcontext(&other.context);
        other.context.uc_stack.ss_sp = other.stack;
        other.context.uc_stack.ss_size = sizeof other.stack;
        other.context.uc_link = nullptr;
        makecontext(&other.context, run_lane, 0);
    }
    while (!lanes->done) {
        for (Lane &next : lanes) {
            lane = &next;
            go_on();
        }
        if (!together())
            return "a thread waits for threads of its warp that do not come";
    }
    return nullptr;
}

template <class... P, size_t... I>
const char *launch(void (*kernel)(P...), unsigned grid, unsigned block, void **arguments,
                   std::index_sequence<I...>) {
    thread = [=] { kernel(*(P *)arguments[I]...); };
    return run(grid, block);
}

template <class... P>
const char *launch(void (*kernel)(P...), unsigned grid, unsigned block, void **arguments) {
    return launch(kernel, grid, block, arguments, std::index_sequence_for<P...>());
}

template <class... P> const char **types(void (*)(P...)) {
    static const char *names[] = {typeid(P).name()..., nullptr};
    return names;
}

} // namespace emulator

template <class V> V __shfl_xor_sync(unsigned mask, V value, int other) {
    using namespace emulator;
    uint3 block = blockIdx, number = threadIdx;
    Lane *here = lane;
    int turn = here->turn ^= 1;
    here->mask = mask, here->block = block.x, here->warp = number.x / WARP;
    std::memcpy(here->sent[turn], &value, sizeof value);
    wait();
    blockIdx = block, threadIdx = number;
    std::memcpy(&value, lanes[(here - lanes) ^ other].sent[turn], sizeof value);
    return value;
}

} // namespace

// Follows the source of a kernel: launch_kernel(grid, block, pointers to the arguments), and
// types_kernel(), of the parameters.
#define LAUNCHER(kernel)                                                                          \
    extern "C" __attribute__((visibility("default"))) const char *launch_##kernel(                \
        unsigned grid, unsigned block, void **arguments) {                                        \
        return emulator::launch(kernel, grid, block, arguments);                                  \
    }                                                                                             \
    extern "C" __attribute__((visibility("default"))) const char **types_##kernel() {             \
        return emulator::types(kernel);                                                           \
    }
