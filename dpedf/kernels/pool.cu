// Pooling of images, (B, I, H, W), of strides in numbers.  Compiled in: I channels of H x W, and
// DOWN x ACROSS windows of U x V places, DILATION_H lines and DILATION_W columns apart; windows are
// STRIDE_H and STRIDE_W apart, from PADDING_H lines above the image and PADDING_W columns before it
// on.  BESIDE: do some see what is beside it?  T is float or double, Index an integer that counts
// the numbers of each array.

__device__ bool inside(int h, int w) {
    return !BESIDE || (h >= 0 && h < H && w >= 0 && w < W);
}

// Call see(h, w) for each place in the image that a window sees, m down and n across.
template <class See> __device__ void each_place(int m, int n, See see) {
    for (int u = 0; u < U; u++)
        for (int v = 0; v < V; v++) {
            int h = m * STRIDE_H + u * DILATION_H - PADDING_H;
            int w = n * STRIDE_W + v * DILATION_W - PADDING_W;
            if (inside(h, w))
                see(h, w);
        }
}

// y: (B, I, DOWN, ACROSS).  least: -inf, which is largest where a window sees nothing.
extern "C" __global__ void max_pool(const T *x, T *y, double least, long long count,
                                    long long stride_b, long long stride_i, long long stride_h,
                                    long long stride_w) {
    Index k = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (k >= count)
        return;
    int n = k % ACROSS, m = k / ACROSS % DOWN, i = k / (ACROSS * DOWN) % I;
    Index down = stride_h, across = stride_w, b = k / (ACROSS * DOWN * I);
    x += b * (Index)stride_b + i * (Index)stride_i;
    T most = (T)least;
    each_place(m, n, [&](int h, int w) {
        T other = x[h * down + w * across];
        most = other > most || other != other ? other : most;
    });
    y[k] = most;
}

// How many of size places from a first one on are among n, or as far beside them as padding goes.
__device__ int among(int first, int size, int n, int padding) {
    int begin = first < -padding ? -padding : first;
    int end = first + size > n + padding ? n + padding : first + size;
    return end - begin;
}

// How many places a mean over a window is over.  WHOLE: does padding count?
__device__ int counted(int m, int n) {
    return !BESIDE ? U * V
                   : among(m * STRIDE_H - PADDING_H, U, H, WHOLE * PADDING_H) *
                         among(n * STRIDE_W - PADDING_W, V, W, WHOLE * PADDING_W);
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
    x += b * (Index)stride_b + i * (Index)stride_i;
    T sum = 0;
    each_place(m, n, [&](int h, int w) { sum += x[h * down + w * across]; });
    y[k] = sum / counted(m, n);
}

// The sum of value(m, n, u, v) over the windows, m down and n across, that see a place as their u, v.
template <class Value> __device__ T sum_of_windows(int line, int column, Value value) {
    int high = DILATION_H * (U - 1) + 1, broad = DILATION_W * (V - 1) + 1; // a window
    T sum = 0;
    for (int above = 0; above < (high + STRIDE_H - 1) / STRIDE_H; above++)
        for (int before = 0; before < (broad + STRIDE_W - 1) / STRIDE_W; before++) {
            int m = (line + PADDING_H) / STRIDE_H - above;
            int n = (column + PADDING_W) / STRIDE_W - before;
            int u = line + PADDING_H - m * STRIDE_H, v = column + PADDING_W - n * STRIDE_W;
            if (m >= 0 && m < DOWN && u < high && n >= 0 && n < ACROSS && v < broad &&
                u % DILATION_H == 0 && v % DILATION_W == 0)
                sum += value(m, n, u / DILATION_H, v / DILATION_W);
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
        for (int s = 0; s < U; s++)
            for (int t = 0; t < V; t++) {
                int below = (s - u) * DILATION_H, behind = (t - v) * DILATION_W;
                if ((s < u || (s == u && t < v)) && inside(line + below, column + behind))
                    first &= !same(x[at + below * down + behind * across], y[window]);
            }
        return first ? g[window] : 0;
    });
}

// dx: of each place, the sum over the windows that see it of g, by how many places they count.  The
// strides are of dx.  g: (B, I, DOWN, ACROSS).
extern "C" __global__ void average_pool_gradient(T *dx, const T *g, long long count,
                                                 long long stride_b, long long stride_i,
                                                 long long stride_h, long long stride_w) {
    Index k = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (k >= count)
        return;
    int column = k % W, line = k / W % H, i = k / (W * H) % I;
    Index image = k / (W * H);
    T sum = sum_of_windows(line, column, [&](int m, int n, int, int) {
        return g[(image * DOWN + m) * ACROSS + n] / counted(m, n);
    });
    dx[image / I * (Index)stride_b + i * (Index)stride_i + line * (Index)stride_h +
       column * (Index)stride_w] = sum;
}
