"""Functions of arrays on a GPU as one launch: recorded in a CUDA graph, and replayed."""

from contextlib import suppress

from dpedf.errors import line


class Graphs:
    """graphs.run(key, function, *arrays) is function(*arrays), replayed where it can be.

    The first call of a key (with arrays of these shapes and types) computes as ever, which
    compiles and plans all that it needs; the second records the launches of the function in a
    CUDA graph, and launches that; those that follow launch it again.  So a function may depend on
    its arrays, on the key, and on arrays that stay where they are, and what it returns is
    overwritten by the next call.  After one that cannot be recorded nothing is, and say(line)
    says why.
    """

    def __init__(self, cupy, stream, name, say):
        self.cupy, self.stream, self.name, self.say = cupy, stream, name, say
        self.recordings, self.eager, self.note = {}, False, None
        self.pool = cupy.cuda.MemoryPool(self.allocate)
        self.pool.set_limit(0)  # none: at a limit, too, it would give blocks back

    def allocate(self, size):
        """Memory for the pool, which must not do what CuPy's pools do where there is none left.

        When a CUDARuntimeError says so, they give back all blocks that no array holds, but graphs
        still write these.  So it is a MemoryError here, which they do not catch.
        """
        cuda = self.cupy.cuda
        try:
            return cuda.MemoryPointer(cuda.Memory(size), 0)
        except cuda.runtime.CUDARuntimeError:
            self.cupy.get_default_memory_pool().free_all_blocks()
        try:
            return cuda.MemoryPointer(cuda.Memory(size), 0)
        except cuda.runtime.CUDARuntimeError as error:
            raise MemoryError(f"{size:,} bytes on {self.name}: {line(error)}") from None

    def run(self, key, function, *arrays):
        if self.eager:
            return function(*arrays)
        key = key, *((array.shape, array.dtype) for array in arrays)
        with self.cupy.cuda.using_allocator(self.pool.malloc):
            if key not in self.recordings:
                self.recordings[key] = Recording([array.copy() for array in arrays])
                return function(*self.recordings[key].inputs)
            recording = self.recordings[key]
            for here, array in zip(recording.inputs, arrays, strict=True):
                self.cupy.copyto(here, array)
            if not recording.graph:
                self.record(recording, function)
        if self.eager:
            return function(*recording.inputs)
        recording.graph.launch(self.stream)
        return recording.result

    def record(self, recording, function):
        self.stream.begin_capture()
        try:
            recording.result = function(*recording.inputs)
            recording.graph = self.stream.end_capture()
        except Exception as error:  # where the function itself is to blame, it raises again
            with suppress(self.cupy.cuda.runtime.CUDARuntimeError):  # invalidated by the error
                self.stream.end_capture()
            self.launch_eagerly(f"{type(error).__name__}: {line(error)}")
            self.say(f"{self.name}: {self.note}")
            self.note = None  # it is said

    def launch_eagerly(self, why):
        """From now on, functions are called as they are; note is to be said to the user."""
        self.eager, self.note = True, f"launched kernel by kernel: {why}"

    def close(self):
        """NCCL waits for the graphs that hold its sums, so they have to go before it does."""
        self.recordings.clear()


class Recording:
    """A function that was recorded: the arrays that it reads, and what it returns."""

    graph = result = None

    def __init__(self, inputs):
        self.inputs = inputs
