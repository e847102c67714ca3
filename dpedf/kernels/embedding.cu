// Rows added up by number.  T is float or double.

// W: (J, I), of row j the sum of g[n] over the N places n where x[n] is j, in their order.
extern "C" __global__ void scattered(const T *g, const long long *x, T *W, long long N,
                                     long long I, long long J) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k >= I * J)
        return;
    long long i = k % I, j = k / I;
    T sum = 0;
    for (long long n = 0; n < N; n++)
        if (x[n] == j)
            sum += g[n * I + i];
    W[k] = sum;
}
