"""A run's state on disk: the directory it claims, its checkpoints, its metrics.

A checkpoint holds phi and, beside it, each parameter's name, offset and shape, and the running
values of computed nodes; then the rest of the state, arrays as datasets and numbers as
attributes.  It replaces the one before it as a whole: written under another name, synchronized
to disk, renamed.
"""

import fcntl
import io
import json
import os
from math import inf
from pathlib import Path

import h5py
import numpy as np

from dpedf import config
from dpedf.device import host, overwrite
from dpedf.errors import UserError, complain, line

FILES = "config.toml", "metrics.jsonl", "checkpoint.h5", "best.h5"


def save(path, phi, **state):
    """Write phi, a Phi, and more state; OSError leaves what was there before."""
    image = io.BytesIO()  # HDF5 on a disk that fills up can take the process with it
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


def replace(path, content):
    """Write bytes to a file such that it appears, or replaces another, whole or not at all."""
    unfinished = Path(f"{path}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


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
        raise UserError(f"{path}: {line(error)}, expected a whole checkpoint") from None
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


class RunDirectory:
    """The directory of a live run.  Of all ranks' objects, that of rank 0 alone touches it."""

    def __init__(self, path, ranks):
        self.path, self.writes = Path(path), ranks.rank == 0

    def claim(self, held):
        """Make the directory ours; held: may it hold a run?  UserError: it does, or a live one."""
        if not self.writes:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = open(self.path / ".lock", "w")  # held open, and so locked, while we live
        except OSError as error:
            raise UserError(f"{self.path}: {line(error)}, expected a writable directory") from None
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{self.path}: a live job trains there, expected none") from None
        except OSError as error:  # as on many shared file systems
            complain(f"{self.path}: {line(error)}: nothing would keep a second job away")
        if not held and any((self.path / name).exists() for name in FILES):
            raise UserError(f"{self.path}: holds a run, expected none, or --resume or --overwrite")

    def save(self, name, phi, **state):
        if self.writes:
            save(self.path / name, phi, **state)

    def resume(self, phi, settings):
        """The state of checkpoint.h5, phi set to its own; {} where there is none.

        Its "tested" says whether the run had come to its end.
        """
        if not self.writes or not (self.path / "checkpoint.h5").exists():
            return {}
        if (self.path / "config.toml").exists():
            config.check_resumable(config.load(self.path / "config.toml"), settings)
        state = load(self.path / "checkpoint.h5", phi)
        last = ("test", state["step"])
        return state | {"tested": last in [(e["event"], e["step"]) for e in self.events()]}

    def events(self):
        """What metrics.jsonl holds; a line that a crash cut short is no event."""
        file, events = self.path / "metrics.jsonl", []
        for event in file.read_text().splitlines() if file.exists() else ():
            try:
                events.append(json.loads(event))
            except ValueError:
                break
        return events

    def begin(self, settings, step):
        """Write config.toml, and go on with the metrics after this step; at 0, with nothing."""
        if self.writes:
            kept = [e for e in self.events() if e["step"] <= step and e["event"] != "test"]
            for name in FILES if step == 0 else ():
                (self.path / name).unlink(missing_ok=True)
            replace(self.path / "config.toml", config.text(settings).encode())
            lines = "".join(json.dumps(event) + "\n" for event in kept)
            replace(self.path / "metrics.jsonl", lines.encode())
            self.metrics = open(self.path / "metrics.jsonl", "a", buffering=1)

    def event(self, kind, **values):
        """Append one line to metrics.jsonl, with null for what is no number."""
        if self.writes:
            numbers = {k: None if v != v or v in (inf, -inf) else v for k, v in values.items()}
            self.metrics.write(json.dumps({"event": kind, **numbers}) + "\n")
