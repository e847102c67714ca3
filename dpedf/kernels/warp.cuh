// Stands before every source.  The 32 threads of a warp exchange numbers through registers; each
// gets the result, added in one order.

template <class Number> __device__ Number sum_of_warp(Number x) {
    for (int step = 16; step > 0; step /= 2)
        x += __shfl_xor_sync(0xffffffff, x, step);
    return x;
}

template <class Number> __device__ Number most_of_warp(Number x) {
    for (int step = 16; step > 0; step /= 2) {
        Number other = __shfl_xor_sync(0xffffffff, x, step);
        x = other > x ? other : x;
    }
    return x;
}

