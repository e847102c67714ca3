// Activations.  T is float or double.

extern "C" __global__ void relu_gradient(const T *y, const T *g, T *delta, long long n) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k < n)
        delta[k] = y[k] != 0 ? g[k] : 0; // where y is nan, too
}

const double SLOPE = 0.79788456080286535588, CUBE = 0.044715, FLAT = 100; // sqrt(2 / pi)

extern "C" __global__ void gelu(const T *x, T *y, T *s, long long n) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k >= n)
        return;
    T a = x[k];
    T sigmoid = 1 / (1 + exp((a * a * (T)(-2 * SLOPE * CUBE) + (T)(-2 * SLOPE)) * a));
    s[k] = sigmoid;
    y[k] = a * sigmoid;
}

extern "C" __global__ void gelu_gradient(const T *x, const T *s, const T *g, T *delta,
                                         long long n) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k >= n)
        return;
    T a = fmin(fmax(x[k], (T)-FLAT), (T)FLAT), b = s[k]; // the cube of x would overflow
    T du = (a * a * (T)(6 * SLOPE * CUBE) + (T)(2 * SLOPE)) * a;
    delta[k] = g[k] * b * (1 + du * (1 - b));
}
