// What a recorded function reads, brought to where it reads it, in one launch.

struct alignas(16) Sixteen {
    long long low, high;
};

// Copy bytes from one address to another; where bytes < 0, `from` is itself a number of so many.
static __device__ void bring_one(long long to, long long from, long long bytes) {
    long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    long long threads = gridDim.x * (long long)blockDim.x;
    if (bytes < 0) {
        if (k < -bytes)
            ((char *)to)[k] = from >> 8 * k;
    } else if ((to | from | bytes) % 16 == 0) {
        for (; 16 * k < bytes; k += threads)
            ((Sixteen *)to)[k] = ((const Sixteen *)from)[k];
    } else {
        for (; k < bytes; k += threads)
            ((char *)to)[k] = ((const char *)from)[k];
    }
}

extern "C" __global__ void bring(long long to0, long long from0, long long bytes0, long long to1,
                                 long long from1, long long bytes1, long long to2, long long from2,
                                 long long bytes2, long long to3, long long from3,
                                 long long bytes3) {
    bring_one(to0, from0, bytes0);
    bring_one(to1, from1, bytes1);
    bring_one(to2, from2, bytes2);
    bring_one(to3, from3, bytes3);
}
