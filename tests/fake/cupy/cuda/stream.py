"""Streams that are as late as CUDA allows, events, and graphs that replay what was captured.

What is launched on a stream waits in its queue.  A stream whose number is in FAKE_CUPY_LATE runs
its queue only when something waits for it; the others run theirs at once.  So a wait that is
missing shows as a wrong result: with the side streams late, computation reads what was not yet
copied; with stream 1 late, which computes, copies overwrite what has not been computed with yet.
Stream 0 is CuPy's default.
"""

import os
import threading
import weakref

from cupy.cuda.runtime import CUDARuntimeError, streamCaptureModeRelaxed

lock = threading.RLock()  # the loader's thread launches too
made = 0  # streams
streams = {}  # by pointer
graphs = weakref.WeakSet()  # that are still there
local = threading.local()


def device():
    """The number of the GPU that this thread uses."""
    return getattr(local, "device", 0)


def stack():
    """The streams that this thread has entered."""
    return getattr(local, "stack", [])


def is_next_late():
    """Is the stream that is made now one of the late ones?"""
    global made
    made += 1
    return str(made - 1) in os.environ.get("FAKE_CUPY_LATE", "").split()


class Queue:
    """Work in order: functions, and events to wait for."""

    def __init__(self):
        self.work, self.done = [], 0

    def run(self, end=None):
        """Do all work up to this length of the queue."""
        while self.done < (len(self.work) if end is None else end):
            work, self.work[self.done] = self.work[self.done], None
            self.done += 1
            work()


class Stream:
    def __init__(self, null=False, non_blocking=False, ptds=False):
        self.queue, self.capture, self.ptr = Queue(), None, 1 + len(streams)
        self.late, self.device = is_next_late(), device()
        self.clock = 0  # what is launched adds to it, if it takes any time
        streams[self.ptr] = self

    def __enter__(self):
        if device() != self.device:
            raise RuntimeError(f"a stream of GPU {self.device} on GPU {device()}")
        local.stack = [*stack(), self]
        local.stream = self
        return self

    def __exit__(self, *error):
        local.stack = stack()[:-1]
        local.stream = stack()[-1] if stack() else None  # what use() chose is forgotten

    def use(self):
        local.stream = self

    def launch(self, work, what):
        noted(what)
        with lock:
            if self.capture:
                self.capture.launched.append(what)
                self.capture.queue(self).work.append(work)
                return
            self.queue.work.append(work)
            if not self.late:
                self.queue.run()

    def wait_event(self, event):
        with lock:
            if event.capture and not self.capture:
                self.capture = event.capture  # a fork: this stream is captured too
                self.capture.streams.append(self)
            elif self.capture and event.queue and event.capture is not self.capture:
                raise CUDARuntimeError("cudaErrorStreamCaptureIsolation")
            if event.queue:
                queue, end = event.queue, event.end
                if event.capture:
                    event.capture.joined[event.queue] = max(
                        end, event.capture.joined.get(event.queue, 0)
                    )
                self.launch(lambda: queue.run(end), "event")

    def synchronize(self):
        refuse_in_capture("synchronize", invalidates=True)
        with lock:
            self.queue.run()

    def begin_capture(self, mode=streamCaptureModeRelaxed):
        self.capture = Capture(self)

    def end_capture(self):
        capture = self.capture
        for stream in capture.streams:
            stream.capture = None
        if capture.invalid:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
        for stream in capture.streams[1:]:
            if capture.joined.get(capture.queue(stream), 0) < len(capture.queue(stream).work):
                raise CUDARuntimeError("cudaErrorStreamCaptureUnjoined")
        return Graph(capture)

    def is_capturing(self):
        return self.capture is not None


class Capture:
    """What is being captured: a queue for each stream that takes part, the first one begins."""

    def __init__(self, stream):
        self.streams, self.queues, self.joined, self.invalid = [stream], {}, {}, False
        self.launched = []  # the names of it

    def queue(self, stream):
        return self.queues.setdefault(stream, Queue())


class Graph:
    def __init__(self, capture):
        self.queues = [(queue, list(queue.work)) for queue in capture.queues.values()]
        self.launched = capture.launched
        graphs.add(self)

    def launch(self, stream=None):
        def run():
            for queue, work in self.queues:
                queue.work, queue.done = list(work), 0
            for queue, _ in self.queues[:1]:  # the others run where this one waits for them
                queue.run()

        (stream or current()).launch(run, "graph")


class Event:
    """A place in a queue, that of the stream on which it was recorded last."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.queue, self.end, self.capture = None, 0, None
        self.time, self.is_timed = None, not disable_timing

    def record(self, stream=None):
        stream = stream or current()
        with lock:
            if self.is_timed:
                stream.launch(lambda: setattr(self, "time", stream.clock), "event")
            self.capture = stream.capture
            self.queue = self.capture.queue(stream) if self.capture else stream.queue
            self.end = len(self.queue.work)

    def synchronize(self):
        refuse_in_capture("synchronize", invalidates=True)
        with lock:
            if self.queue:
                self.queue.run(self.end)

    @property
    def done(self):
        refuse_in_capture("query", invalidates=True)
        return not self.queue or self.queue.done >= self.end


def elapsed(begin, end):
    """In milliseconds, if both have come."""
    return float(end.time - begin.time)


log = []  # (what the host waited for or launched, in which thread): tests read it
default = Stream()


def noted(what):
    log.append((what, threading.get_ident()))


def current():
    return getattr(local, "stream", None) or default


def refuse_in_capture(what, invalidates=False):
    """A captured stream cannot be waited for."""
    noted(what)
    capture = current().capture
    if capture and invalidates:
        capture.invalid = True
        raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported")
    if capture:
        raise RuntimeError("the current stream is capturing, so H2D/D2H transfers are disallowed")
