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
