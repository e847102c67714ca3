"""Checkpoints: the state of a run in an HDF5 file.

A checkpoint holds phi, the name, offset and shape of each parameter, and the running values of
computed nodes; then the rest of the state, arrays as datasets and numbers as attributes.  It
replaces the previous one as a whole: it is written under another name, synchronized to disk, and
renamed.
"""

import io

import h5py
import numpy as np

from dpedf.data.disk import replace
from dpedf.device import host, overwrite
from dpedf.errors import UserError, one_line


def save(path, phi, **state):
    """Write phi, a Phi, and more state.  OSError: the file is as it was before."""
    image = io.BytesIO()  # on a full disk, HDF5 itself can end the process
    with h5py.File(image, "w") as file:
        file["phi"] = host(phi.value)
        parameters = file.create_group("parameters", track_order=True)
        for p, offset in zip(phi.parameters, phi.offsets, strict=False):
            parameters.create_group(p.name).attrs.update(offset=offset, shape=p.value.shape)
        for name, array in phi.state.items():
            file[f"running/{name}"] = host(array)
        for name, thing in state.items():
            if isinstance(thing, np.ndarray):
                file[name] = thing
            else:
                file.attrs[name] = thing
    replace(path, image.getbuffer())


def load(path, phi):
    """Set phi.value to what save wrote, and return the rest of the state.

    UserError: no whole checkpoint, or one of other parameters.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            there = {name: list(p.attrs["shape"]) for name, p in file["parameters"].items()}
            state = {name: number.item() for name, number in file.attrs.items()} | {
                name: thing[...] for name, thing in file.items() if isinstance(thing, h5py.Dataset)
            }
            value = state.pop("phi")
            running = {name: array[...] for name, array in file.get("running", {}).items()}
    except (OSError, KeyError) as error:
        raise UserError(f"{path}: {one_line(error)}, expected a whole checkpoint") from None
    here = {p.name: list(p.value.shape) for p in phi.parameters}
    for name in here | there:
        if here.get(name) != there.get(name):
            found, expected = there.get(name, "missing"), here.get(name, "no such parameter")
            raise UserError(f"{path}: {name} is {found}, expected {expected} as in the model")
    if list(there) != list(here) or value.dtype != phi.value.dtype:
        found = f"{', '.join(there)} in {value.dtype}"
        raise UserError(f"{path}: {found}, expected {', '.join(here)} in {phi.value.dtype}")
    for name, array in phi.state.items():
        if name not in running or running[name].shape != array.shape:
            raise UserError(f"{path}: no running values of {name}, expected {array.shape}")
    overwrite(phi.value, value)
    for name, array in phi.state.items():
        overwrite(array, running[name])
    return state
