// The losses of a minibatch.  T is float or double.

// sums, totals: (V,), of ell, (V, n).  failed: (1,).  A warp adds a slice.
extern "C" __global__ void add_losses(const T *ell, double *sums, double *totals, T *failed,
                                      long long V, long long n, long long first, long long last) {
    long long v = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;
    if (v >= V)
        return;
    double sum = 0;
#pragma unroll 8
    for (long long row = threadIdx.x % 32; row < n; row += 32)
        sum += ell[v * n + row];
    sum = sum_of_warp(sum);
    if (threadIdx.x % 32)
        return;
    if (!isfinite(sum))
        *failed = sum - sum; // nan, whichever warp writes it
    sums[v] = first ? sum : sums[v] + sum;
    if (last)
        totals[v] += sums[v];
}

// ell, s, y: (n,).
extern "C" __global__ void binary_log_loss(const T *s, const T *y, T *ell, long long n) {
    long long b = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (b >= n)
        return;
    T size = fabs(s[b]), wrong = fabs(y[b] - (s[b] > 0));
    T loss = log1p(exp(-size)) + (wrong > 0 ? size * wrong : 0);
    ell[b] = 0 <= y[b] && y[b] <= 1 ? loss : sqrt((T)-1); // nan
}
