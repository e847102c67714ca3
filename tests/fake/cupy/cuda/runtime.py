import os

streamCaptureModeRelaxed = 2  # noqa: N816


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


def getDeviceCount():  # noqa: N802
    count = int(os.environ.get("FAKE_CUPY_DEVICES", 1))
    if count < 0:
        raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
    return count


def getDeviceProperties(number):  # noqa: N802
    return {"name": os.environ.get("FAKE_CUPY_NAME", "Fake GPU").encode()}


def runtimeGetVersion():  # noqa: N802
    return 12090


def driverGetVersion():  # noqa: N802
    return 12090


def memGetInfo():  # noqa: N802
    from cupy.cuda.memory import Memory  # which imports this

    return Memory.left, 1 << 40


def deviceSynchronize():  # noqa: N802
    from cupy.cuda.stream import streams  # which imports this

    for stream in streams.values():
        stream.synchronize()
