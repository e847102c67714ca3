"""A strict device array: NumPy inside, but as far from the host as an array on a GPU.

It does what CuPy 14 does through NumPy's functions, operators and methods, and its results are
device arrays again, those of one number too.  It refuses to become a host array, to meet one,
or a NumPy number, which would promote, and to answer what CuPy does not.  What CuPy computes by
kernels of dpedf, which have tests of their own, is computed on the host.
"""

import operator

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from dpedf.kernels.activation import relu_gradient
from dpedf.kernels.attention import attention_weights, scores_gradient, swapped
from dpedf.kernels.embedding import scattered
from dpedf.kernels.images import moved, without_square
from dpedf.kernels.labels import expect_labels
from dpedf.kernels.losses import add_losses
from dpedf.kernels.normalization import (
    layer_norm,
    layer_norm_gradient,
    rms_norm,
    rms_norm_gradient,
)
from dpedf.kernels.philox import uniform
from dpedf.kernels.pool import average_pool, average_pool_gradient, max_pool, max_pool_gradient
from dpedf.kernels.slices import merge, product_in_tree, sum_of_rows
from dpedf.kernels.vector import adam, momentum, rmsprop
from dpedf.kernels.windows import columns, patches, sum_of_patches

METHODS = {
    *("all", "any", "argmax", "argmin", "argsort", "astype", "clip", "copy", "cumprod", "cumsum"),
    *("diagonal", "dot", "fill", "flatten", "max", "mean", "min", "prod", "ravel", "repeat"),
    *("reshape", "round", "sort", "squeeze", "std", "sum", "swapaxes", "take", "trace"),
    *("transpose", "var", "view"),
}
PROPERTIES = {"T", "dtype", "flags", "itemsize", "mT", "nbytes", "ndim", "shape", "size", "strides"}
# These copy to the host, or wait until the GPU knows how many there are.
TO_THE_HOST = {
    *("__array__", "__bool__", "__bytes__", "__complex__", "__contains__", "__float__", "__int__"),
    *("__iter__", "__str__", "argwhere", "extract", "flatnonzero", "get", "item", "nonzero"),
    *("tobytes", "tofile", "tolist", "unique"),
}
# These NumPy has, but not CuPy.
MISSING = {
    *("block", "einsum_path", "geomspace", "histogram_bin_edges", "insert", "isnat", "matvec"),
    *("nanpercentile", "nanquantile", "polyder", "polydiv", "polyint", "spacing", "unstack"),
    *("vecdot", "vecmat"),
}


def put(array):
    """A copy of a host array on the device, in the same order in memory."""
    return DeviceArray(np.array(array))


def get(array):
    """A copy on the host, made on purpose."""
    return np.array(array._host)


class DeviceArray(NDArrayOperatorsMixin):
    """What put makes of a NumPy array."""

    __hash__ = None
    __imatmul__ = None  # CuPy has none

    def __init__(self, host):
        self._host = host

    def __repr__(self):
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype})"

    def __len__(self):
        return len(self._host)

    def __getitem__(self, index):
        for i in index if isinstance(index, tuple) else (index,):
            if isinstance(i, DeviceArray) and i.dtype == bool:
                raise TypeError("a mask of a device array: how many it takes, only the GPU knows")
        return called(operator.getitem, (self, index), {})

    def __setitem__(self, index, value):
        called(operator.setitem, (self, index, value), {})

    def __array_ufunc__(self, ufunc, method, *inputs, **keywords):
        if method != "__call__":
            raise TypeError(f"np.{ufunc.__name__}.{method} of a device array: CuPy has none")
        return called(ufunc, inputs, keywords)

    def __array_function__(self, function, types, inputs, keywords):
        if keywords.get("shape") == ():
            raise TypeError(f"np.{function.__name__}(shape=()) of a device array: CuPy ignores it")
        if function in (np.ones, np.full):
            raise TypeError(f"np.{function.__name__}(like=...) of a device array: CuPy refuses it")
        return called(function, inputs, keywords, type(self))

    @classmethod
    def computed(cls, function, inputs, keywords, written):
        """What a function gives, of host arrays; written: the one that it writes, if it does."""
        return cls.on_device(function(*inputs, **keywords))

    @classmethod
    def on_device(cls, result):
        if isinstance(result, (np.ndarray, np.generic)):
            return cls(np.asarray(result))
        if isinstance(result, (tuple, list)):
            return type(result)(map(cls.on_device, result))
        if isinstance(result, bool):
            raise TypeError("a truth about a device array: this copies it to the host")
        return result


def unwrapped(thing):
    """What NumPy can compute with, of an argument that CuPy takes."""
    if isinstance(thing, DeviceArray):
        return thing._host
    if isinstance(thing, (tuple, list)):
        return type(thing)(map(unwrapped, thing))
    if isinstance(thing, (np.ndarray, np.generic)):
        raise TypeError(f"a device array meets {type(thing).__name__} of the host")
    return thing


def device_arrays(thing):
    if isinstance(thing, DeviceArray):
        yield thing
    elif isinstance(thing, (tuple, list)):
        for t in thing:
            yield from device_arrays(t)


# These write their first argument.
WRITE = {"copyto", "fill", "setitem", "sort"}


def called(function, inputs, keywords, cls=None):
    name = function.__name__
    if name in TO_THE_HOST:
        raise TypeError(f"np.{name} of a device array: this copies it to the host")
    if name in MISSING:
        raise TypeError(f"np.{name} of a device array: CuPy has none")
    if name != "copyto" and {"where", "initial"} & keywords.keys():
        raise TypeError(f"np.{name}(where=..., initial=...) of a device array: CuPy has none")
    out = keywords.get("out")
    out = out[0] if isinstance(out, tuple) else out
    written = inputs[0] if name in WRITE else out
    cls = cls or type(next(device_arrays([*inputs, *keywords.values()])))
    host = {key: unwrapped(value) for key, value in keywords.items()}
    result = cls.computed(function, unwrapped(tuple(inputs)), host, written)
    return result if out is None else out  # so that += leaves the array that it was


def method(name):
    return lambda self, *inputs, **keywords: called(
        getattr(np.ndarray, name), (self, *inputs), keywords
    )


def refused(name):
    def refuse(self, *inputs, **keywords):
        raise TypeError(f"{name} of a device array: this copies it to the host")

    return refuse


for name in METHODS:
    setattr(DeviceArray, name, method(name))
for name in PROPERTIES:
    setattr(
        DeviceArray,
        name,
        property(lambda self, name=name: self.on_device(getattr(self._host, name))),
    )
for name in TO_THE_HOST:
    setattr(DeviceArray, name, refused(name))


def kernel(meaning):
    """From now on, a function that CuPy computes by a kernel takes device arrays: on the host."""

    def launch(*inputs, **keywords):
        return called(meaning.__wrapped__, inputs, keywords)

    meaning.register(DeviceArray, launch)


POOLS = max_pool, max_pool_gradient, average_pool, average_pool_gradient
OF_IMAGES = columns, patches, sum_of_patches, moved, without_square, *POOLS
OF_ROWS = layer_norm, layer_norm_gradient, rms_norm, rms_norm_gradient
OF_SEQUENCES = attention_weights, scores_gradient, swapped, scattered, expect_labels
UPDATES = momentum, adam, rmsprop
OF_SLICES = add_losses, merge, product_in_tree, sum_of_rows
for meaning in *OF_IMAGES, *OF_ROWS, *OF_SEQUENCES, *OF_SLICES, *UPDATES, relu_gradient, uniform:
    kernel(meaning)
