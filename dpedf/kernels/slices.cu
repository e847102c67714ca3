// Sums over rows, and of slices in a tree.  T is float or double.

// y: (V, parts, n), of x, (V, b, n), factor times the sum over `each` of the b rows, or with add y
// plus that.  Strides of x are in numbers.  A warp, of 32 threads, has 8 or fewer columns: the others
// of its threads add the rows of each, in an order that depends on b alone.
extern "C" __global__ void sum_of_rows(const T *x, T *y, double factor, long long add, long long V,
                                       long long b, long long n, long long parts, long long each,
                                       long long columns, long long stride_v, long long stride_b,
                                       long long stride_n) {
    long long warp = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;
    int lane = threadIdx.x % 32, step = 32 / columns;
    long long tiles = (n + columns - 1) / columns, k = warp % tiles * columns + lane % columns;
    long long part = warp / tiles % parts, v = warp / tiles / parts, first = part * each;
    if (v >= V)
        return;
    int rows = b - first < each ? b - first : each;
    T sum = 0;
    x += v * stride_v + first * stride_b + k * stride_n;
    if (k < n)
#pragma unroll 4
        for (int row = lane / (int)columns; row < rows; row += step)
            sum += x[row * stride_b];
    for (int other = columns; other < 32; other *= 2)
        sum += __shfl_xor_sync(0xffffffff, sum, other);
    if (k >= n || lane >= columns)
        return;
    y += (v * parts + part) * n + k;
    *y = add ? *y + (T)factor * sum : (T)factor * sum;
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
