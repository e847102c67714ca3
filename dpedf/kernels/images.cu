// Images that are moved, and holes in them.  T is float or double, Index an integer that counts the
// numbers of an array.  Compiled in: I channels of H x W.

// x, y: (B, I, H, W); by: (B, 2), lines down and columns right, or if way is -1, up and left.
extern "C" __global__ void moved(const T *x, T *y, const long long *by, long long count,
                                 long long way) {
    Index k = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (k >= count)
        return;
    Index image = k / (H * W), b = image / I;
    long long line = k / W % H + way * by[2 * b], column = k % W + way * by[2 * b + 1];
    bool inside = line >= 0 && line < H && column >= 0 && column < W;
    y[k] = inside ? x[(image * H + line) * W + column] : 0;
}

// x, y: (B, I, H, W); corner: (B, 2), the first line and column of a square of so many.
extern "C" __global__ void without_square(const T *x, T *y, const long long *corner,
                                          long long count, long long size) {
    Index k = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (k >= count)
        return;
    Index b = k / (H * W) / I;
    long long line = k / W % H - corner[2 * b], column = k % W - corner[2 * b + 1];
    bool inside = line >= 0 && line < size && column >= 0 && column < size;
    y[k] = inside ? 0 : x[k];
}
