// An NVIDIA driver that knows its version alone, which is what dpedf asks before it imports CuPy.
int cuDriverGetVersion(int *version) { return *version = 12090, 0; }
