"""Functions of arrays on a GPU as one launch: recorded in a CUDA graph, and replayed."""

from contextlib import suppress

from dpedf.errors import one_line
from dpedf.kernels.arguments import bring, is_array, kept


class Graphs:
    """graphs.run(key, function, *arguments) is function(*arguments), replayed where possible.

    arguments: arrays, and numbers, which a function finds as arrays without indices.

    The first call with a key, and with arguments of these shapes and types, computes as usual,
    which compiles and plans everything.  The second call records the function's launches as a CUDA
    graph and launches the graph; later calls only bring the arguments and launch it.

    So a function may depend on its arguments, on the key, and on arrays that stay where they are.
    Its result is overwritten by the next call.  When a function cannot be recorded, say(line) says
    why, and from then on nothing is recorded or replayed.

    Recordings have a pool of memory of their own: what a graph needs only while it runs must never
    be handed to an array that outlives the run.
    """

    def __init__(self, cupy, stream, name, say):
        self.cupy, self.stream, self.name, self.say = cupy, stream, name, say
        self.recordings, self.eager, self.note = {}, False, None
        self.pool = cupy.cuda.MemoryPool(self.allocate)
        self.pool.set_limit(0)  # none: on reaching a limit, the pool would free blocks as well

    def allocate(self, size):
        """Memory for the pool.  MemoryError: there is none left.

        On a CUDARuntimeError CuPy's pools would free every block that no array holds, though
        graphs still write to these blocks.  They do not catch a MemoryError.
        """
        cuda = self.cupy.cuda
        try:
            return cuda.MemoryPointer(cuda.Memory(size), 0)
        except cuda.runtime.CUDARuntimeError:
            self.cupy.get_default_memory_pool().free_all_blocks()
        try:
            return cuda.MemoryPointer(cuda.Memory(size), 0)
        except cuda.runtime.CUDARuntimeError as error:
            raise MemoryError(f"{size:,} bytes on {self.name}: {one_line(error)}") from None

    def run(self, key, function, *arguments):
        if self.eager:
            return function(*arguments)
        key = key, *((a.shape, a.dtype) if is_array(a) else type(a) for a in arguments)
        recording = self.recordings.get(key)
        if recording is None:
            recording = self.recordings[key] = Recording([kept(a) for a in arguments])
            return function(*recording.inputs)
        bring(arguments, recording.inputs)
        if not recording.graph:
            self.record(recording, function)
        if self.eager:
            return function(*recording.inputs)
        recording.graph.launch(self.stream)
        return recording.result

    def record(self, recording, function):
        self.stream.begin_capture()
        try:
            with self.cupy.cuda.using_allocator(self.pool.malloc):
                recording.result = function(*recording.inputs)
            recording.graph = self.stream.end_capture()
        except Exception as error:  # the function's own errors are raised again by run
            with suppress(self.cupy.cuda.runtime.CUDARuntimeError):  # invalidated by the error
                self.stream.end_capture()
            if isinstance(error, MemoryError):  # of which eager calls would need as much
                raise
            self.stop_recording(f"{type(error).__name__}: {one_line(error)}")
            self.say(f"{self.name}: {self.note}")
            self.note = None  # the user knows now

    def stop_recording(self, why):
        """From now on call functions as they are, and note why, for the user."""
        self.eager, self.note = True, f"launched kernel by kernel: {why}"

    def close(self):
        """Free the graphs.  NCCL's end would wait for those that hold its sums."""
        self.recordings.clear()


class Recording:
    """A recorded function: the arguments that it reads, its CUDA graph, and its result."""

    def __init__(self, inputs):
        self.inputs, self.graph, self.result = inputs, None, None
