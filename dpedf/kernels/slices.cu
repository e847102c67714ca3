// Sums over rows, and of slices in a tree.  T is float or double.

const unsigned ALL = 0xffffffff;

// y: (V, n), of x, (V, b, n), factor times the sum over b.  Strides of x are in numbers.  A warp, of
// 32 threads, has 8 columns: 4 threads add the rows of each, in an order that depends on b alone.
extern "C" __global__ void sum_of_rows(const T *x, T *y, double factor, long long V, long long b,
                                       long long n, long long stride_v, long long stride_b,
                                       long long stride_n) {
    long long warp = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32, tiles = (n + 7) / 8;
    long long v = warp / tiles, k = warp % tiles * 8 + threadIdx.x % 8;
    if (v >= V)
        return;
    T sum = 0;
    if (k < n)
        for (long long row = threadIdx.x % 32 / 8; row < b; row += 4)
            sum += x[v * stride_v + row * stride_b + k * stride_n];
    sum += __shfl_xor_sync(ALL, sum, 8);
    sum += __shfl_xor_sync(ALL, sum, 16);
    if (k < n && threadIdx.x % 32 < 8)
        y[v * n + k] = (T)factor * sum;
}

// vectors: rows of stride numbers.  parts: rows of n.  steps: (count, 3), as merging(tree) has them.
extern "C" __global__ void merge(T *vectors, const T *parts, const long long *steps,
                                 long long count, long long stride, long long n) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    for (const long long *step = steps; step < steps + 3 * count; step += 3) {
        T &sum = vectors[step[0] * stride + i];
        T added = step[2] < 0 ? vectors[step[1] * stride + i] : parts[step[2] * n + i];
        sum = step[1] == step[0] ? added : sum + added;
    }
}
