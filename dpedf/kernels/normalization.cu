// Normalization of rows of J numbers, each by a warp.  centred: that of LayerNorm, else of RMSNorm,
// whose m is 0.  T is float or double.

// x, y, n: (N, J); w: (J,); c: as w where centred, else unused; s: (N,).
extern "C" __global__ void normalize(const T *x, const T *w, const T *c, T *y, T *n, T *s,
                                     double epsilon, long long centred, long long N, long long J) {
    long long row = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;
    int lane = threadIdx.x % 32;
    if (row >= N)
        return;
    x += row * J, y += row * J, n += row * J;

    T m = 0;
    if (centred) {
        for (int j = lane; j < J; j += 32)
            m += x[j];
        m = sum_of_warp(m) / J;
    }

    T most = 1; // the largest |x - m|, at least 1: divided by it, no square overflows
    for (int j = lane; j < J; j += 32)
        most = fabs(x[j] - m) > most ? fabs(x[j] - m) : most;
    most = most_of_warp(most);

    T squares = 0;
    for (int j = lane; j < J; j += 32) {
        T distance = (x[j] - m) / most;
        squares += distance * distance;
    }
    T size = most * sqrt(sum_of_warp(squares) / J + (T)epsilon / most / most);

    for (int j = lane; j < J; j += 32) {
        n[j] = (x[j] - m) / size;
        y[j] = centred ? n[j] * w[j] - c[j] : n[j] * w[j];
    }
    if (lane == 0)
        s[row] = size;
}

// g, n, delta, h: (N, J); s: (N,); w: (J,).
extern "C" __global__ void gradient(const T *g, const T *n, const T *s, const T *w, T *delta, T *h,
                                    long long centred, long long N, long long J) {
    long long row = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;
    int lane = threadIdx.x % 32;
    if (row >= N)
        return;
    g += row * J, n += row * J, delta += row * J, h += row * J;

    T mean = 0, along = 0; // of g w, and of its product with n
    for (int j = lane; j < J; j += 32) {
        mean += g[j] * w[j];
        along += g[j] * w[j] * n[j];
    }
    mean = centred ? sum_of_warp(mean) / J : 0;
    along = sum_of_warp(along) / J;

    for (int j = lane; j < J; j += 32) {
        h[j] = g[j] * n[j];
        delta[j] = (g[j] * w[j] - mean - n[j] * along) / s[row];
    }
}
