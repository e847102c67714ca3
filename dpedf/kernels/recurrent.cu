// The cells of recurrent layers: a thread has one j of one row b.  stride_x and the like: numbers
// from one row of x to the next; arrays without one are packed.  T is float or double.

// x, z, gates: (B, 4J); s, y: (B, 2J); tanh_c: (B, J).
extern "C" __global__ void lstm_cell(const T *x, const T *z, const T *s, T *y, T *gates, T *tanh_c,
                                     long long B, long long J, long long stride_x, long long stride_z,
                                     long long stride_s) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k >= B * J)
        return;
    long long b = k / J, j = k % J;
    x += b * stride_x + j, z += b * stride_z + j;
    T i = 1 / (1 + exp(-x[0] - z[0])), f = 1 / (1 + exp(-x[J] - z[J]));
    T o = 1 / (1 + exp(-x[2 * J] - z[2 * J])), g = tanh(x[3 * J] + z[3 * J]);
    T c = f * s[b * stride_s + j] + i * g, t = tanh(c);
    gates += b * 4 * J + j, y += b * 2 * J + j;
    gates[0] = i, gates[J] = f, gates[2 * J] = o, gates[3 * J] = g;
    y[0] = c, y[J] = o * t;
    tanh_c[k] = t;
}

// gates, delta: (B, 4J); tanh_c: (B, J); s, g, ds: (B, 2J).
extern "C" __global__ void lstm_cell_gradient(const T *gates, const T *tanh_c, const T *s,
                                              const T *g, T *delta, T *ds, long long B, long long J,
                                              long long stride_s, long long stride_g) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k >= B * J)
        return;
    long long b = k / J, j = k % J;
    gates += b * 4 * J + j, delta += b * 4 * J + j, ds += b * 2 * J + j, g += b * stride_g + j;
    T i = gates[0], f = gates[J], o = gates[2 * J], n = gates[3 * J], t = tanh_c[k];
    T dh = g[J], dc = g[0] + dh * o * (1 - t * t);
    delta[0] = dc * n * i * (1 - i);
    delta[J] = dc * s[b * stride_s + j] * f * (1 - f);
    delta[2 * J] = dh * t * o * (1 - o);
    delta[3 * J] = dc * i * (1 - n * n);
    ds[0] = dc * f, ds[J] = 0;
}

// x, z: (B, 3J); h, y, r, u, n: (B, J).
extern "C" __global__ void gru_cell(const T *x, const T *z, const T *h, T *y, T *r, T *u, T *n,
                                    long long B, long long J, long long stride_x, long long stride_z,
                                    long long stride_h) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k >= B * J)
        return;
    long long b = k / J, j = k % J;
    x += b * stride_x + j, z += b * stride_z + j;
    T reset = 1 / (1 + exp(-x[0] - z[0])), update = 1 / (1 + exp(-x[J] - z[J]));
    T value = tanh(x[2 * J] + reset * z[2 * J]);
    r[k] = reset, u[k] = update, n[k] = value;
    y[k] = value + update * (h[b * stride_h + j] - value);
}

// r, u, n, h, g, dh: (B, J); z, delta, through: (B, 3J).
extern "C" __global__ void gru_cell_gradient(const T *r, const T *u, const T *n, const T *z,
                                             const T *h, const T *g, T *delta, T *through, T *dh,
                                             long long B, long long J, long long stride_z,
                                             long long stride_h, long long stride_g) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (k >= B * J)
        return;
    long long b = k / J, j = k % J;
    delta += b * 3 * J + j, through += b * 3 * J + j;
    T reset = r[k], update = u[k], value = n[k], dy = g[b * stride_g + j];
    T dn = dy * (1 - update) * (1 - value * value);
    T du = dy * (h[b * stride_h + j] - value) * update * (1 - update);
    T dr = dn * z[b * stride_z + 2 * J + j] * reset * (1 - reset);
    delta[0] = through[0] = dr;
    delta[J] = through[J] = du;
    delta[2 * J] = dn, through[2 * J] = dn * reset;
    dh[k] = dy * update;
}
