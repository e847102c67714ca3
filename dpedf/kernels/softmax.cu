// Softmax and its log loss.  s, shifted, Q: (B, J); Z, ell, g: (B,); y: (B,), of 0..J-1.
// T is float or double.

// A warp has a row.
extern "C" __global__ void softmax(const T *s, T *shifted, T *Q, T *Z, long long B, long long J) {
    long long b = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;
    int lane = threadIdx.x % 32;
    if (b >= B)
        return;
    s += b * J, shifted += b * J, Q += b * J;

    T most = s[0];
    for (long long j = lane; j < J; j += 32)
        most = s[j] > most ? s[j] : most;
    most = most_of_warp(most);

    T sum = 0;
    for (long long j = lane; j < J; j += 32) {
        shifted[j] = s[j] - most;
        Q[j] = exp(shifted[j]);
        sum += Q[j];
    }
    sum = sum_of_warp(sum);

    for (long long j = lane; j < J; j += 32)
        Q[j] /= sum;
    if (lane == 0)
        Z[b] = sum;
}

extern "C" __global__ void log_loss(const T *shifted, const T *Z, const long long *y, T *ell,
                                    long long B, long long J) {
    long long b = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (b >= B)
        return;
    bool known = 0 <= y[b] && y[b] < J;
    ell[b] = known ? log(Z[b]) - shifted[b * J + y[b]] : sqrt((T)-1); // nan
}

extern "C" __global__ void log_loss_gradient(const T *Q, const long long *y, const T *g, T *delta,
                                             long long B, long long J) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k < B * J)
        delta[k] = g[k / J] * (Q[k] - (k % J == y[k / J]));
}
