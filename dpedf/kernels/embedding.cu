// Rows added up by label, after a sort.  T is float or double.
//
// Place n of slice v has the key x[v, n] N + n: sorted, keys are in the order of labels, those of one
// label in the order of their places, and no two are alike.

// How many of keys[low] to keys[high - 1], which are sorted, are smaller than this one?
static __device__ long long smaller(const long long *keys, long long low, long long high,
                                    long long key) {
    long long first = low;
    while (low < high) {
        long long middle = (low + high) / 2;
        if (keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low - first;
}

// keys: (V, N), sorted in runs.  A warp counts what is smaller than one key, in its run.
extern "C" __global__ void sort_runs(const long long *x, long long *keys, long long V, long long N,
                                     long long run) {
    long long warp = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;
    long long n = warp % N, first = n / run * run;
    if (warp >= V * N)
        return;
    x += warp / N * N, keys += warp / N * N;
    int count = 0, size = N - first < run ? N - first : run, here = n - first;
    for (int m = threadIdx.x % 32; m < size; m += 32)
        count += x[first + m] < x[n] || (x[first + m] == x[n] && m < here);
    count = sum_of_warp(count);
    if (threadIdx.x % 32 == 0)
        keys[first + count] = x[n] * N + n;
}

// merged: (V, N), each two runs of keys as one.
extern "C" __global__ void merge_runs(const long long *keys, long long *merged, long long V,
                                      long long N, long long run) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x, n = k % N, r = n / run;
    if (k >= V * N)
        return;
    keys += k / N * N, merged += k / N * N;
    long long low = (r ^ 1) * run, high = low + run;
    low = low < N ? low : N, high = high < N ? high : N;
    merged[r / 2 * 2 * run + n % run + smaller(keys, low, high, keys[n])] = keys[n];
}

// Rows are added in pieces of as many places of a label, and then pieces, in their order, so that
// many warps share a label that is everywhere.  Labels outside of 0..J-1 have no row.
const int PIECE = 64;

// W: (V, J, I), zeros; pieces: (V, N, I).  A warp for each key that begins a piece of its label adds
// the rows g[v, n] of the piece: into row j of W, if there is no other, or into pieces.
extern "C" __global__ void add_pieces(const T *g, const long long *keys, T *W, T *pieces,
                                      long long V, long long N, long long I, long long J) {
    long long warp = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;
    long long v = warp / N, k = warp % N;
    if (v >= V)
        return;
    keys += v * N, g += v * N * I;
    long long j = keys[k] / N, first = j * N;
    if (keys[k] < 0 || j >= J)
        return;
    long long begin = smaller(keys, 0, k, first);
    if ((k - begin) % PIECE)
        return;
    long long high = k + PIECE < N ? k + PIECE : N, end = k + smaller(keys, k, high, first + N);
    bool only = k == begin && (end == N || keys[end] >= first + N);
    T *sums = only ? W + (v * J + j) * I : pieces + (v * N + k) * I;
    for (long long i = threadIdx.x % 32; i < I; i += 32) {
        T sum = 0;
#pragma unroll 4
        for (long long m = k; m < end; m++)
            sum += g[(keys[m] - first) * I + i];
        sums[i] = sum;
    }
}

// W: row j becomes the sum of the pieces of label j, if there are several.
extern "C" __global__ void join_pieces(const T *pieces, const long long *keys, T *W, long long V,
                                       long long N, long long I, long long J) {
    long long warp = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;
    long long v = warp / N, k = warp % N;
    if (v >= V)
        return;
    keys += v * N, pieces += v * N * I;
    long long j = keys[k] / N, first = j * N;
    if (keys[k] < 0 || j >= J || (k > 0 && keys[k - 1] >= first))
        return;
    long long end = k + smaller(keys, k, N, first + N);
    if (end - k <= PIECE)
        return;
    for (long long i = threadIdx.x % 32; i < I; i += 32) {
        T sum = 0;
        for (long long m = k; m < end; m += PIECE)
            sum += pieces[m * I + i];
        W[(v * J + j) * I + i] = sum;
    }
}
