// r: the bits of the bfloat16 nearest to x, ties to even; T is float.
extern "C" __global__ void round_to_bfloat16(const T *x, unsigned short *r, long long n) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    float f = (float)x[i];
    unsigned bits = __float_as_uint(f);
    r[i] = f != f ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
