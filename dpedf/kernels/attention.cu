// Attention of heads, a row of scores by a warp.  T is float or double.

// a: (rows, S), of scores; leaves the softmax over s of each row times scale.  With causal, row t of
// every `positions` has scores for s <= t alone: others are not read, and become 0.  Masked scores
// are -inf, and a row that has no others becomes 0.
extern "C" __global__ void weights(T *a, double scale, long long causal, long long masked,
                                   long long rows, long long positions, long long S) {
    long long row = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;
    int lane = threadIdx.x % 32, t = row % positions;
    int seen = causal && t < S ? t + 1 : S;
    if (row >= rows)
        return;
    a += row * S;

    T most = a[0];
    for (int s = lane; s < seen; s += 32)
        most = a[s] > most ? a[s] : most;
    most = most_of_warp(most);
    if (masked && most < 0 && !isfinite(most))
        most = 0;

    T sum = 0;
    for (int s = lane; s < seen; s += 32) {
        a[s] = exp((T)scale * (a[s] - most));
        sum += a[s];
    }
    sum = sum_of_warp(sum);
    if (masked && sum == 0)
        sum = 1;

    for (int s = lane; s < S; s += 32)
        a[s] = s < seen ? a[s] / sum : 0;
}

// d, a: (B, H, positions, S); leaves scale a (d - sum_j g y) in d.
// g: (B, H, positions, J); y: (B, positions, H, J).
extern "C" __global__ void scores_gradient(T *d, const T *a, const T *g, const T *y, double scale,
                                           long long rows, long long H, long long positions,
                                           long long S, long long J) {
    long long row = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;
    int lane = threadIdx.x % 32;
    if (row >= rows)
        return;
    long long t = row % positions, h = row / positions % H, b = row / positions / H;
    d += row * S, a += row * S, g += row * J, y += ((b * positions + t) * H + h) * J;

    T sum = 0;
    for (int j = lane; j < J; j += 32)
        sum += g[j] * y[j];
    sum = sum_of_warp(sum);

    for (int s = lane; s < S; s += 32)
        d[s] = (T)scale * a[s] * (d[s] - sum);
}

// y: (arrays, B, N, M, I), of up to four x, (B, M, N, I): their indices m and n change places.
extern "C" __global__ void swapped(const T *x0, const T *x1, const T *x2, const T *x3, T *y,
                                   long long arrays, long long B, long long M, long long N,
                                   long long I) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    long long row = k / (M * N * I), b = row % B;
    if (row >= arrays * B)
        return;
    int place = k % (M * N * I), i = place % (int)I, m = place / (int)I % (int)M;
    int n = place / (int)I / (int)M, which = row / B;
    const T *x = which == 0 ? x0 : which == 1 ? x1 : which == 2 ? x2 : x3;
    y[k] = x[((b * M + m) * N + n) * I + i];
}
