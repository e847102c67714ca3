// What windows see of images, and sums over it.  Compiled in: images of I channels of H x W, and
// DOWN x ACROSS windows of U x V places, DILATION_H lines and DILATION_W columns apart; windows are
// STRIDE_H and STRIDE_W apart, from PADDING_H lines above the image and PADDING_W columns before it
// on.  BESIDE: do some see what is beside it?  T is float or double, Index an integer that counts
// the numbers of each array.

// seen: (B, DOWN, ACROSS, I, U, V), of x, (B, I, H, W), of these strides.
extern "C" __global__ void patches(const T *x, T *seen, long long count, long long stride_b,
                                   long long stride_i, long long stride_h, long long stride_w) {
    Index k = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (k >= count)
        return;
    int v = k % V, u = k / V % U, i = k / (U * V) % I;
    Index window = k / (I * U * V), b = window / (DOWN * ACROSS);
    int m = window / ACROSS % DOWN, n = window % ACROSS;
    int h = m * STRIDE_H + u * DILATION_H - PADDING_H;
    int w = n * STRIDE_W + v * DILATION_W - PADDING_W;
    bool inside = !BESIDE || (h >= 0 && h < H && w >= 0 && w < W);
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
    int high = DILATION_H * (U - 1) + 1, broad = DILATION_W * (V - 1) + 1; // a window
    Index b = k / (I * H * W);
    T sum = 0;
    for (int above = 0; above < (high + STRIDE_H - 1) / STRIDE_H; above++)
        for (int before = 0; before < (broad + STRIDE_W - 1) / STRIDE_W; before++) {
            int m = (line + PADDING_H) / STRIDE_H - above;
            int n = (column + PADDING_W) / STRIDE_W - before;
            int u = line + PADDING_H - m * STRIDE_H, v = column + PADDING_W - n * STRIDE_W;
            if (m < 0 || m >= DOWN || u >= high || n < 0 || n >= ACROSS || v >= broad)
                continue;
            if (u % DILATION_H || v % DILATION_W)
                continue;
            Index window = (b * DOWN + m) * ACROSS + n;
            sum += seen[((window * I + i) * U + u / DILATION_H) * V + v / DILATION_W];
        }
    x[b * (Index)stride_b + i * (Index)stride_i + line * (Index)stride_h +
      column * (Index)stride_w] = sum;
}
