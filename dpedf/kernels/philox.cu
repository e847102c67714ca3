// Philox4x64-10: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011.
// T is float or double.

typedef unsigned long long word;

// u: (B, n), uniform in [0, 1).  Each thread draws four numbers: the blocks of row b are counted
// from (row + b) * blocks + 1, in the order of numpy.random.Philox.
static __device__ void draw(T *u, word step, word row, word seed, word node, word stream,
                            long long B, long long n) {
    long long blocks = (n + 3) / 4;
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k >= B * blocks)
        return;
    word x[4] = {row * blocks + k + 1, 0, step, stream}, key[2] = {seed, node};
    for (int round = 0; round < 10; round++) {
        word high0 = __umul64hi(0xD2E7470EE14C6C93, x[0]), low0 = 0xD2E7470EE14C6C93 * x[0];
        word high1 = __umul64hi(0xCA5A826395121157, x[2]), low1 = 0xCA5A826395121157 * x[2];
        x[0] = high1 ^ x[1] ^ key[0], x[1] = low1;
        x[2] = high0 ^ x[3] ^ key[1], x[3] = low0;
        key[0] += 0x9E3779B97F4A7C15, key[1] += 0xBB67AE8584CAA73B;
    }
    int drop = sizeof(T) == 4 ? 40 : 11;
    T unit = sizeof(T) == 4 ? (T)(1.0 / (1 << 24)) : (T)(1.0 / (1LL << 53));
    long long b = k / blocks, first = 4 * (k % blocks);
    for (int i = 0; i < 4 && first + i < n; i++)
        u[b * n + first + i] = (T)(x[i] >> drop) * unit;
}

extern "C" __global__ void uniform(T *u, const long long *step, word row, word seed, word node,
                                   word stream, long long B, long long n) {
    draw(u, *step, row, seed, node, stream, B, n);
}

extern "C" __global__ void uniform_from(T *u, const long long *step, const long long *row,
                                        word seed, word node, word stream, long long B,
                                        long long n) {
    draw(u, *step, *row, seed, node, stream, B, n);
}
