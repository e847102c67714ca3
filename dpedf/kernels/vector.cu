// What is done to whole vectors: the update of Phi, sums in a tree, a length.
// T is float or double.

// v: as Phi where mu, else unused.  eta: one number.
extern "C" __global__ void momentum(T *Phi, const T *grad, T *v, const T *eta, double mu,
                                    long long nesterov, double decay, long long n) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    T g = grad[i];
    if (decay)
        g += (T)decay * Phi[i];
    T direction = g;
    if (mu) {
        v[i] = v[i] * (T)mu + g;
        direction = nesterov ? g + (T)mu * v[i] : v[i];
    }
    Phi[i] -= direction * *eta;
}

// vectors: rows of stride numbers.  additions: (count, 2), pairs of rows.
extern "C" __global__ void tree(T *vectors, long long stride, const long long *additions,
                                long long count, long long low, long long high) {
    long long i = low + blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < high)
        for (long long a = 0; a < 2 * count; a += 2)
            vectors[additions[a] * stride + i] += vectors[additions[a + 1] * stride + i];
}

// sums: (threads,), each thread's part of sum_i vector[i]**2.
extern "C" __global__ void squares(const T *vector, double *sums, long long n, long long threads) {
    long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (t >= threads)
        return;
    double sum = 0;
    for (long long i = t; i < n; i += threads)
        sum += (double)vector[i] * (double)vector[i];
    sums[t] = sum;
}
