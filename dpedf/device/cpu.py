"""The CPU as a device: its arrays are NumPy's."""

import ctypes

from dpedf.device.staging import HostBuffer


def keep_freed_memory():
    """Have glibc's malloc keep freed memory instead of returning it to the kernel.

    Arrays of megabytes come and go in every step, and the first touch of a new page takes longer
    than computing with it.  Other C libraries have no mallopt, and need none.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD, the largest value it takes
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


class CPU:
    """The host itself.  note: why there is no GPU, where one could be expected."""

    unit = kind = name = place = "cpu"
    products, buffer = "NumPy", HostBuffer

    def __init__(self, note=None):
        self.note = note
        keep_freed_memory()

    def enter_thread(self):
        """Nothing: every thread can use the CPU."""

    def put(self, array):
        return array

    def run(self, key, function, *arguments):
        return function(*arguments)

    def stop_recording(self, why):
        """Nothing: a CPU replays nothing."""

    def wait(self):
        """Nothing: NumPy's functions return when they have computed."""

    def close(self):
        """Nothing is left open."""
