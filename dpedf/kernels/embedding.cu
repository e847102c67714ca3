// Rows added up by number.  T is float or double.

// W: (V, J, I), of row j the sum of g[v, n] over the N places n where x[v, n] is j, in their order.
extern "C" __global__ void scattered(const T *g, const long long *x, T *W, long long V,
                                     long long N, long long I, long long J) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k >= V * I * J)
        return;
    long long i = k % I, j = k / I % J, v = k / I / J;
    g += v * N * I, x += v * N;
    T sum = 0;
    for (long long n = 0; n < N; n++)
        if (x[n] == j)
            sum += g[n * I + i];
    W[k] = sum;
}
