// The bits of the bfloat16 nearest to f, ties to even.
__device__ unsigned short bfloat16(float f) {
    unsigned bits = __float_as_uint(f);
    return f != f ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// r: x in bfloat16.
extern "C" __global__ void round_to_bfloat16(const T *x, unsigned short *r, long long n) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < n)
        r[i] = bfloat16((float)x[i]);
}

// Copies of pieces of x, each in blocks: the block of a line (first, count) of blocks has count
// numbers, those of x from first on.

// In bfloat16.
extern "C" __global__ void round_pieces(const T *x, unsigned short *copies,
                                        const long long *blocks) {
    long long first = blocks[2 * blockIdx.x], count = blocks[2 * blockIdx.x + 1];
    if (threadIdx.x < count)
        copies[blockIdx.x * (long long)blockDim.x + threadIdx.x] =
            bfloat16((float)x[first + threadIdx.x]);
}

// Negated.
extern "C" __global__ void negate_pieces(const T *x, T *copies, const long long *blocks) {
    long long first = blocks[2 * blockIdx.x], count = blocks[2 * blockIdx.x + 1];
    if (threadIdx.x < count)
        copies[blockIdx.x * (long long)blockDim.x + threadIdx.x] = -x[first + threadIdx.x];
}
