// Convolution and pooling, of images in memory as (I, H, W, B).  T is float or double.

// seen: (S, I, U, V, down, across, B), what each window sees of x; lines of windows start at low.
// x: (I, H, W, S B), of S slices of B rows.
extern "C" __global__ void columns(T *seen, const T *x, long long count, long long H, long long W,
                                   long long S, long long B, long long I, long long U,
                                   long long V, long long stride, long long low, long long down,
                                   long long across) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k >= count)
        return;
    long long b = k % B, r = k / B, w = r % across;
    r /= across;
    long long h = low + r % down;
    r /= down;
    long long v = r % V, u = r / V % U, i = r / V / U % I, s = r / V / U / I;
    seen[k] = x[((i * H + h * stride + u) * W + w * stride + v) * S * B + s * B + b];
}

// x += what columns took from each of its places: every thread gathers for one.
extern "C" __global__ void add_columns(T *x, const T *seen, long long count, long long H,
                                       long long W, long long S, long long B, long long I,
                                       long long U, long long V, long long stride, long long low,
                                       long long down, long long across) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k >= count)
        return;
    long long b = k % B, s = k / B % S, r = k / B / S, column = r % W, line = r / W % H;
    long long i = r / W / H;
    T sum = x[k];
    for (long long u = 0; u < U; u++)
        for (long long v = 0; v < V; v++) {
            long long h = line - u, w = column - v;
            if (h < 0 || w < 0 || h % stride || w % stride)
                continue;
            h = h / stride - low, w /= stride;
            if (h >= 0 && h < down && w < across)
                sum += seen[(((((s * I + i) * U + u) * V + v) * down + h) * across + w) * B + b];
        }
    x[k] = sum;
}

// y: (I, down, across, B).
extern "C" __global__ void max_pool(T *y, const T *x, long long count, long long H, long long W,
                                    long long B, long long size, long long stride, long long down,
                                    long long across) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k >= count)
        return;
    long long b = k % B, w = k / B % across, h = k / B / across % down, i = k / B / across / down;
    const T *corner = x + ((i * H + h * stride) * W + w * stride) * B + b;
    T most = *corner;
    for (long long u = 0; u < size; u++)
        for (long long v = 0; v < size; v++) {
            T other = corner[(u * W + v) * B];
            most = other > most || other != other ? other : most;
        }
    y[k] = most;
}

// dx: of each place, the sum of g over the windows whose first largest number is there.
extern "C" __global__ void max_pool_gradient(T *dx, const T *x, const T *y, const T *g,
                                             long long count, long long H, long long W, long long B,
                                             long long size, long long stride, long long down,
                                             long long across) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k >= count)
        return;
    long long b = k % B, column = k / B % W, line = k / B / W % H, i = k / B / W / H;
    T sum = 0;
    for (long long u = 0; u < size; u++)
        for (long long v = 0; v < size; v++) {
            long long h = line - u, w = column - v;
            if (h < 0 || w < 0 || h % stride || w % stride)
                continue;
            h /= stride, w /= stride;
            if (h >= down || w >= across)
                continue;
            long long at = ((i * down + h) * across + w) * B + b, first = 0;
            if (x[k] != y[at])
                continue;
            const T *corner = x + ((i * H + h * stride) * W + w * stride) * B + b;
            while (corner[(first / size * W + first % size) * B] != y[at])
                first++;
            if (first == u * size + v)
                sum += g[at];
        }
    dx[k] = sum;
}
