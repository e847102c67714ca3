"""Checkpoints: the state of a run in an HDF5 file, which proves that it is whole.

A checkpoint holds phi, the name, offset and shape of each parameter, and the running values of
computed nodes; then the rest of the state, arrays as datasets, numbers and texts as attributes.
Before all this stands a line, in what HDF5 calls the user block: how many bytes follow, and their
SHA-256.  No byte can change unnoticed, and HDF5 never reads a damaged one.
"""

import errno
import hashlib
import io
import os
import re
from urllib.parse import quote, unquote

import h5py
import numpy as np

from dpedf.data.disk import content_of, expect_regular, replace
from dpedf.data.memory import expect_memory
from dpedf.device import host, overwrite
from dpedf.errors import RunError, UserError, concerning, one_line

BEGINNING = b"dpedf checkpoint: "  # of every checkpoint
HEAD = 512  # bytes of the user block, the fewest that HDF5 allows
ANY = "surrogatepass"  # characters of names, also those that UTF-8 does not have
HDF5 = b"\x89HDF\r\n\x1a\n"
NOT_OURS = OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError  # from h5py


class DamagedError(UserError):
    """A file is not what was once saved there."""


def save(path, phi, previous=None, **state):
    """Write phi, a Phi, and more state.  previous: where the checkpoint before it is kept.

    OSError, or a RunError where something is not finite: the file is as it was before.
    """
    running = {f"running/{quoted(name)}": host(array) for name, array in phi.state.items()}
    arrays = {"phi": host(phi.value)} | running
    arrays |= {name: thing for name, thing in state.items() if isinstance(thing, np.ndarray)}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise RunError(f"{path}: {name} is not finite, so what was saved before it stays")
    image = io.BytesIO()  # on a full disk, HDF5 itself can end the process
    with h5py.File(image, "w", userblock_size=HEAD) as file:
        for name, array in arrays.items():
            file[name] = array
        parameters = file.create_group("parameters", track_order=True)
        for p, offset in zip(phi.parameters, phi.offsets, strict=False):
            parameters.create_group(quoted(p.name)).attrs.update(offset=offset, shape=p.value.shape)
        file.attrs.update({name: thing for name, thing in state.items() if name not in arrays})
    content = image.getbuffer()
    content[:HEAD] = proof(content)
    replace(path, content, previous)


def quoted(name):
    """A name as HDF5 takes it: in UTF-8, where a slash parts two names, and NUL ends one."""
    return re.sub(r"[%/\0\ud800-\udfff]", lambda found: quote(found[0], "", errors=ANY), name)


def proof(content):
    """What the first HEAD bytes have to be, by those after them."""
    body = memoryview(content)[HEAD:]
    sha256 = hashlib.sha256(body).hexdigest()
    line = BEGINNING + f"{len(body)} bytes follow, SHA-256 {sha256}\n".encode()
    return line.ljust(HEAD)


def load(path, phi):
    """Set phi.value to what save wrote, and return the rest of the state.

    UserError: no whole checkpoint, or one of other parameters.
    """
    return install(path, read(path), phi)


def read(path):
    """What a checkpoint holds.

    UserError: there is none.  DamagedError: it is not what was once saved.
    """
    try:
        expect_memory(path, os.path.getsize(path))
        content = content_of(path)
    except OSError as error:
        kind = DamagedError if error.errno == errno.EIO else UserError
        raise kind(f"{path}: {one_line(error)}, expected a whole checkpoint") from None
    if content[: len(HDF5)] == HDF5:
        what = "HDF5 without the SHA-256 of its bytes, as older versions of dpedf wrote"
        raise UserError(f"{path}: {what}, expected a checkpoint of this version")
    if content[:HEAD] != proof(content):
        what = "damaged, its bytes have another SHA-256"
        raise DamagedError(f"{path}: {what}, expected a whole checkpoint")
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            return held(file, Values(len(content)))
    except NOT_OURS as error:
        raise UserError(f"{path}: {one_line(error)}, expected a whole checkpoint") from None


def held(file, values):
    """What an open file holds.  values: that are read from it."""
    inner = dict(members(file))
    parameters, running = members(inner["parameters"]), members(inner.get("running", {}))
    there = {
        unquote(name, errors=ANY): (p.attrs["offset"].item(), p.attrs["shape"].tolist())
        for name, p in parameters
    }
    running = {unquote(name, errors=ANY): values.array(its) for name, its in running}
    rest = attributes(file, values)
    rest |= {n: values.array(its) for n, its in inner.items() if isinstance(its, h5py.Dataset)}
    return {"phi": rest.pop("phi"), "parameters": there, "running": running, "rest": rest}


def members(group):
    """(name, what it names) of a group.  ValueError: that may lie elsewhere."""
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is a link")
        yield name, group[name]


class Values:
    """The values in a file, of which there are no more than its bytes, whoever wrote it."""

    def __init__(self, nbytes):
        self.left = nbytes

    def array(self, dataset):
        """ValueError: it is none that save wrote, with its numbers one after another."""
        elsewhere = dataset.chunks or dataset.external or dataset.is_virtual
        if elsewhere or dataset.dtype.kind not in "biuf":
            raise ValueError(f"{dataset.name} is no plain array")
        self.take(dataset.nbytes)
        return dataset[...]

    def attribute(self, file, name):
        """A number or a text."""
        if file.attrs.get_id(name).shape != ():
            raise ValueError(f"attribute {name} is no number, and no text")
        value = file.attrs[name]
        self.take(len(value) if isinstance(value, str) else value.nbytes)
        return value.item() if isinstance(value, np.generic) else value

    def take(self, nbytes):
        self.left -= nbytes
        if self.left < 0:
            raise ValueError("more numbers than bytes")


def attributes(file, values):
    """The numbers and texts of an open checkpoint."""
    return {name: values.attribute(file, name) for name in file.attrs}


def glance(path):
    """The numbers and texts of a checkpoint that looks whole, or {}.  No array is read."""
    if not looks_whole(path):
        return {}
    try:
        with h5py.File(path, "r") as file:
            return attributes(file, Values(os.path.getsize(path)))
    except NOT_OURS:
        return {}


def looks_whole(path):
    """Is there a checkpoint of the size that its head says?  Its bytes are not read."""
    try:
        expect_regular(path)
        with open(path, "rb") as file:
            head = re.match(rb"dpedf checkpoint: ([0-9]{1,18}) bytes follow, ", file.read(HEAD))
        return bool(head) and os.path.getsize(path) == HEAD + int(head[1])
    except OSError:
        return False


def of_the_model(found):
    """The vector of a model that is used, of what was read: the average of Phi, or else Phi."""
    average = found["rest"].get("average")
    return average if isinstance(average, np.ndarray) else found["phi"]


def install(path, found, phi):
    """Set phi.value to what was read, and return the rest.  UserError: it is of another model."""
    there, value, running = found["parameters"], found["phi"], found["running"]
    shapes = {p.name: list(p.value.shape) for p in phi.parameters}
    for name in shapes | there:
        was = there[name][1] if name in there else "missing"
        if was != shapes.get(name):
            expected = shapes.get(name, "no such parameter")
            raise UserError(f"{path}: {name} is {was}, expected {expected} as in the model")
    offsets = dict(zip(shapes, phi.offsets, strict=False))
    if {name: offset for name, (offset, _) in there.items()} != offsets or [*there] != [*shapes]:
        found, expected = ", ".join(there), ", ".join(shapes)
        raise UserError(f"{path}: {found}, expected {expected}")
    with concerning(path):
        expect_vectors({"phi": value}, {"phi": phi.value})
        expect_vectors(running, phi.state)
    overwrite(phi.value, value)
    for name, array in phi.state.items():
        overwrite(array, running[name])
    return found["rest"]


def expect_vectors(there, here):
    """UserError: the arrays of a checkpoint have not just the names, types and shapes of these."""
    there, here = ({name: described(a) for name, a in arrays.items()} for arrays in (there, here))
    for name in here | there:
        if there.get(name) != here.get(name):
            found, expected = there.get(name, "missing"), here.get(name, "no such vector")
            raise UserError(f"{name} is {found}, expected {expected}")


def described(array):
    return f"{array.dtype} {array.shape}"
