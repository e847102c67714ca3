// Arrays one after the other.  T is float or double.

// y: (A, N, C), of which y[:, start:] begins with count of the arrays, (A, n, C) each.
extern "C" __global__ void concat(T *y, const T *x0, const T *x1, const T *x2, const T *x3,
                                  const T *x4, const T *x5, const T *x6, const T *x7,
                                  long long count, long long A, long long n, long long C,
                                  long long N, long long start, long long stride_a,
                                  long long stride_n, long long stride_c) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k >= A * count * n * C)
        return;
    long long c = k % C, row = k / C % n, number = k / C / n % count, a = k / C / n / count;
    const T *x = number == 0   ? x0
                 : number == 1 ? x1
                 : number == 2 ? x2
                 : number == 3 ? x3
                 : number == 4 ? x4
                 : number == 5 ? x5
                 : number == 6 ? x6
                               : x7;
    y[(a * N + start + number * n + row) * C + c] = x[a * stride_a + row * stride_n + c * stride_c];
}
