// Pooling of images, (B, I, H, W), of strides in numbers.  Compiled in: I channels of H x W, and
// DOWN x ACROSS windows of SIZE x SIZE, STRIDE apart.  T is float or double, Index an integer that
// counts the numbers of each array.

// y: (B, I, DOWN, ACROSS).
extern "C" __global__ void max_pool(const T *x, T *y, long long count, long long stride_b,
                                    long long stride_i, long long stride_h, long long stride_w) {
    Index k = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (k >= count)
        return;
    int n = k % ACROSS, m = k / ACROSS % DOWN, i = k / (ACROSS * DOWN) % I;
    Index down = stride_h, across = stride_w, b = k / (ACROSS * DOWN * I);
    x += b * (Index)stride_b + i * (Index)stride_i + m * STRIDE * down + n * STRIDE * across;
    T most = *x;
    for (int u = 0; u < SIZE; u++)
        for (int v = 0; v < SIZE; v++) {
            T other = x[u * down + v * across];
            most = other > most || other != other ? other : most;
        }
    y[k] = most;
}

// y: (B, I, DOWN, ACROSS).
extern "C" __global__ void average_pool(const T *x, T *y, long long count, long long stride_b,
                                        long long stride_i, long long stride_h,
                                        long long stride_w) {
    Index k = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (k >= count)
        return;
    int n = k % ACROSS, m = k / ACROSS % DOWN, i = k / (ACROSS * DOWN) % I;
    Index down = stride_h, across = stride_w, b = k / (ACROSS * DOWN * I);
    x += b * (Index)stride_b + i * (Index)stride_i + m * STRIDE * down + n * STRIDE * across;
    T sum = 0;
    for (int u = 0; u < SIZE; u++)
        for (int v = 0; v < SIZE; v++)
            sum += x[u * down + v * across];
    y[k] = sum / (SIZE * SIZE);
}

// The sum of value(m, n, u, v) over the windows, m down and n across, that see a place as their u, v.
template <class Value> __device__ T sum_of_windows(int line, int column, Value value) {
    const int overlap = (SIZE + STRIDE - 1) / STRIDE; // of windows, at most
    T sum = 0;
    for (int above = 0; above < overlap; above++)
        for (int before = 0; before < overlap; before++) {
            int m = line / STRIDE - above, n = column / STRIDE - before;
            int u = line - m * STRIDE, v = column - n * STRIDE;
            if (m >= 0 && m < DOWN && u < SIZE && n >= 0 && n < ACROSS && v < SIZE)
                sum += value(m, n, u, v);
        }
    return sum;
}

__device__ bool same(T a, T b) { return a == b || (a != a && b != b); }

// dx: of each place, the sum of g over the windows whose first largest number, or nan, is there.
// The strides are of dx and x.  y, g: (B, I, DOWN, ACROSS).
extern "C" __global__ void max_pool_gradient(T *dx, const T *x, const T *y, const T *g,
                                             long long count, long long stride_b,
                                             long long stride_i, long long stride_h,
                                             long long stride_w) {
    Index k = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (k >= count)
        return;
    int column = k % W, line = k / W % H, i = k / (W * H) % I;
    Index down = stride_h, across = stride_w, image = k / (W * H);
    Index at = image / I * (Index)stride_b + i * (Index)stride_i + line * down + column * across;
    dx[at] = sum_of_windows(line, column, [&](int m, int n, int u, int v) {
        Index window = (image * DOWN + m) * ACROSS + n;
        bool first = same(x[at], y[window]);
        for (int s = 0; s < SIZE; s++)
            for (int t = 0; t < SIZE; t++)
                if (s < u || (s == u && t < v))
                    first &= !same(x[at + (s - u) * down + (t - v) * across], y[window]);
        return first ? g[window] : 0;
    });
}

// dx: of each place, the sum of g over the windows that see it, by their size.  The strides are of
// dx.  g: (B, I, DOWN, ACROSS).
extern "C" __global__ void average_pool_gradient(T *dx, const T *g, long long count,
                                                 long long stride_b, long long stride_i,
                                                 long long stride_h, long long stride_w) {
    Index k = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (k >= count)
        return;
    int column = k % W, line = k / W % H, i = k / (W * H) % I;
    Index image = k / (W * H);
    T sum = sum_of_windows(line, column, [&](int m, int n, int, int) {
        return g[(image * DOWN + m) * ACROSS + n] / (SIZE * SIZE);
    });
    dx[image / I * (Index)stride_b + i * (Index)stride_i + line * (Index)stride_h +
       column * (Index)stride_w] = sum;
}
