"""The arrays of a model in a file of safetensors, and models that start from those of a file."""

import hashlib
import os
from functools import reduce
from math import prod

import numpy as np

from dpedf.data.disk import content_of
from dpedf.data.memory import expect_memory
from dpedf.device import host, overwrite
from dpedf.errors import UserError, concerning, extra, one_line
from dpedf.run.checkpoint import BEGINNING, of_the_model, read
from dpedf.run.pytorch import Tensor, tensors

SHOWN = 3  # names in a message
ZIP = b"PK\x03\x04"  # how what torch.save writes begins


def library():
    """safetensors, with its functions for NumPy.  UserError: it is not installed."""
    with extra("export", "weights for PyTorch"):
        import safetensors.numpy
    return safetensors


def exported(ell, step):
    """{key: array} of a model as PyTorch has it, on the host.  step: after which."""
    arrays = {}
    for t in tensors(ell):
        arrays[t.keys[0]] = array = np.array(t.outward(host(t.array)), order="C")
        arrays |= {key: np.zeros_like(array) for key in t.keys[1:]}
        arrays |= {key: np.array(step) for key in counters(t)}
    return arrays


def counters(t):
    """The key of PyTorch's number of minibatches beside the running mean of a BatchNorm."""
    return [f"{t.layer}.num_batches_tracked"] * (t.keys[0] == f"{t.layer}.running_mean")


def start_from(path, ell):
    """Give a model the values in a file of safetensors, or in a checkpoint of a run.

    Returns (the SHA-256 of the file, the layers that are not in it and stay as they are).
    UserError: it holds no values, or those of another model.
    """
    try:
        expect_memory(path, os.path.getsize(path))
        content = content_of(path)
    except OSError as error:
        raise UserError(f"{path}: {one_line(error)}, expected a file of weights") from None
    checkpoint, expected = content.startswith(BEGINNING) and read(path), tensors(ell)
    with concerning(path):
        if checkpoint:  # whose arrays are as they are here
            expected = [Tensor(t.name, t.array, t.layer) for t in expected]
        arrays = of_checkpoint(checkpoint) if checkpoint else of_safetensors(content)
        return hashlib.sha256(content).hexdigest(), install(arrays, expected)


def of_safetensors(content):
    """{key: array}"""
    if content.startswith(ZIP):
        expected = "expected a file of safetensors.torch.save_file"
        raise UserError(f"a zip archive, as torch.save writes, {expected}")
    safetensors = library()
    try:
        return safetensors.numpy.load(content)
    except KeyError as error:  # a type that NumPy does not have
        raise UserError(f"numbers of {error}, expected F16, F32 or F64") from None
    except (safetensors.SafetensorError, ValueError) as error:
        expected = "expected a file of safetensors, or a checkpoint of a run"
        raise UserError(f"{one_line(error)}, {expected}") from None


def of_checkpoint(found):
    """{name: array} of all that a checkpoint holds of a model."""
    parts, vector = {}, of_the_model(found)
    for name, (offset, shape) in found["parameters"].items():
        try:
            parts[name] = vector[offset : offset + prod(shape)].reshape(shape)
        except (TypeError, ValueError) as error:
            raise UserError(f"{name}: {one_line(error)}, expected a whole checkpoint") from None
    return parts | found["running"]


def install(found, expected):
    """Set the arrays of these Tensors from those of a file; return the layers that it has not.

    UserError: it has others, or only a part of a layer.
    """
    wanted = {key: t for t in expected for key in t.keys}
    known = {*wanted, *(key for t in expected for key in counters(t))}
    layers = {t.layer for key, t in wanted.items() if key in found}
    shapes = {key: t.shape for key, t in wanted.items() if key in found}
    wrong = {
        "not in the model": [key for key in found if key not in known],
        "missing": [key for key, t in wanted.items() if t.layer in layers and key not in found],
        "not as in the model": [
            f"{key} {found[key].shape}, expected {shape}"
            for key, shape in shapes.items()
            if found[key].shape != shape
        ],
        "no floats": [key for key in shapes if found[key].dtype.kind != "f"],
    }
    if lines := [f"{what}: {few(names)}" for what, names in wrong.items() if names]:
        lacks = [key for key in wanted if key not in found]
        expected = f"; expected {few(lacks)}" * bool(lacks and wrong["not in the model"])
        raise UserError("; ".join(lines) + expected)
    if not layers:
        raise UserError(f"nothing, expected {few([*wanted])}")
    for t in expected:
        if t.layer in layers:
            values = reduce(np.add, (t.inward(found[key]) for key in t.keys))
            with np.errstate(over="ignore"):
                values = np.array(values, t.array.dtype, order="C")
            if not np.isfinite(values).all():
                raise UserError(f"{t.keys[0]} is not finite, expected numbers of {values.dtype}")
            overwrite(t.array, values)
    return [*dict.fromkeys(t.layer for t in expected if t.layer not in layers)]


def few(names):
    """The first of these names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
