// The normal distribution.  T is float or double.

const double HALF_ROOT = 0.70710678118654752440; // sqrt(1 / 2)

extern "C" __global__ void normal_cdf(const T *x, T *y, long long n) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k < n)
        y[k] = erfc(-x[k] * (T)HALF_ROOT) / 2;
}
