// What windows see of images, and sums over it.  Compiled in: images of I channels of H x W, with
// PADDING zeros on each side, and DOWN x ACROSS windows of U x V, STRIDE apart.  T is float or
// double, Index an integer that counts the numbers of each array.

// seen: (B, DOWN, ACROSS, I, U, V), of x, (B, I, H, W), of these strides.
extern "C" __global__ void patches(const T *x, T *seen, long long count, long long stride_b,
                                   long long stride_i, long long stride_h, long long stride_w) {
    Index k = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (k >= count)
        return;
    int v = k % V, u = k / V % U, i = k / (U * V) % I;
    Index window = k / (I * U * V), b = window / (DOWN * ACROSS);
    int m = window / ACROSS % DOWN, n = window % ACROSS;
    int h = m * STRIDE + u - PADDING, w = n * STRIDE + v - PADDING;
    bool inside = h >= 0 && h < H && w >= 0 && w < W;
    Index at = b * (Index)stride_b + i * (Index)stride_i + h * (Index)stride_h + w * (Index)stride_w;
    seen[k] = inside ? x[at] : 0;
}

// x: (B, I, H, W), of these strides: of each place, the sum of seen over the windows that see it.
extern "C" __global__ void sum_of_patches(T *x, const T *seen, long long count, long long stride_b,
                                          long long stride_i, long long stride_h,
                                          long long stride_w) {
    Index k = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (k >= count)
        return;
    int column = k % W, line = k / W % H, i = k / (H * W) % I;
    Index b = k / (I * H * W);
    T sum = 0;
    for (int above = 0; above < (U + STRIDE - 1) / STRIDE; above++)
        for (int before = 0; before < (V + STRIDE - 1) / STRIDE; before++) {
            int m = (line + PADDING) / STRIDE - above, n = (column + PADDING) / STRIDE - before;
            int u = line + PADDING - m * STRIDE, v = column + PADDING - n * STRIDE;
            if (m < 0 || m >= DOWN || u >= U || n < 0 || n >= ACROSS || v >= V)
                continue;
            Index window = (b * DOWN + m) * ACROSS + n;
            sum += seen[((window * I + i) * U + u) * V + v];
        }
    x[b * (Index)stride_b + i * (Index)stride_i + line * (Index)stride_h +
      column * (Index)stride_w] = sum;
}
