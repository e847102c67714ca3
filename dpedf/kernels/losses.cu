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
