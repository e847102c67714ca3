// What is done to whole vectors: the update of Phi, sums in a tree, a length.
// T is float or double.

// Does an update leave everything as it is?  Then thread 0 counts.
__device__ bool skips(long long i, const T *failed, long long *skipped) {
    if (i == 0 && isnan(*failed))
        ++*skipped;
    return isnan(*failed);
}

// v: as Phi where mu, else unused.  eta: one number.
extern "C" __global__ void momentum(T *Phi, const T *grad, const T *failed, long long *skipped,
                                    T *v, const T *eta, double mu, long long nesterov, double decay,
                                    long long n) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (skips(i, failed, skipped) || i >= n)
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

// both: (2,), what Adam makes of the number of the step, by one thread.
extern "C" __global__ void corrections(T *both, const long long *step, double beta1, double beta2,
                                       double epsilon) {
    if (threadIdx.x)
        return;
    double t = *step + 1, bias = 1 - pow(beta1, t);
    both[0] = bias / sqrt(1 - pow(beta2, t));
    both[1] = bias * epsilon;
}

// m, v: as Phi.  eta: one number.  both: what corrections wrote.
extern "C" __global__ void adam(T *Phi, const T *grad, const T *failed, long long *skipped, T *m,
                                T *v, const T *eta, const T *both, double beta1, double beta2,
                                double decay, long long decoupled, long long n) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (skips(i, failed, skipped) || i >= n)
        return;
    T g = grad[i];
    if (decay && !decoupled)
        g += (T)decay * Phi[i];
    m[i] = m[i] * (T)beta1 + g * (T)(1 - beta1);
    v[i] = v[i] * (T)beta2 + g * g * (T)(1 - beta2);
    T direction = m[i] / ((T)sqrt(v[i]) * both[0] + both[1]);
    if (decay && decoupled)
        direction += (T)decay * Phi[i];
    Phi[i] -= direction * *eta;
}

// s: as Phi.  v: as Phi where mu, else unused.  eta: one number.
extern "C" __global__ void rmsprop(T *Phi, const T *grad, const T *failed, long long *skipped, T *s,
                                   T *v, const T *eta, double alpha, double epsilon, double mu,
                                   double decay, long long n) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (skips(i, failed, skipped) || i >= n)
        return;
    T g = grad[i];
    if (decay)
        g += (T)decay * Phi[i];
    s[i] = s[i] * (T)alpha + g * g * (T)(1 - alpha);
    T direction = g / ((T)sqrt(s[i]) + (T)epsilon);
    if (mu)
        direction = v[i] = v[i] * (T)mu + direction;
    Phi[i] -= direction * *eta;
}

// mean: as Phi.  step: one number.
extern "C" __global__ void average(T *mean, const T *Phi, const T *failed, const long long *step,
                                   double share, long long n) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (isnan(*failed) || i >= n)
        return;
    mean[i] = *step ? mean[i] + (T)share * (Phi[i] - mean[i]) : Phi[i];
}

// vectors: rows of stride numbers.  additions: (count, 2), pairs of rows.
extern "C" __global__ void tree(T *vectors, long long stride, const long long *additions,
                                long long count, long long low, long long high) {
    long long i = low + blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < high)
        for (long long a = 0; a < 2 * count; a += 2)
            vectors[additions[a] * stride + i] += vectors[additions[a + 1] * stride + i];
}

// length: one number.
extern "C" __global__ void shorten(T *vector, const double *length, double most, long long n) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < n)
        vector[i] *= (T)(1 / (*length <= most ? 1 : *length / most));
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
