"""The paths of a configuration, as a shell takes them."""

import os

from msgspec.structs import replace

from dpedf.errors import UserError
from dpedf.run.settings.tree import shown

OWN = "optimizer", "schedule"  # settings of [train] that may name a file


def without_tilde(config):
    """The same config, in which ~ and ~user are the folders that a shell takes them for."""
    paths = [key for key in ("build", "weights") if key in config.model]
    train = {key: expanded(f"train.{key}", getattr(config.train, key)) for key in OWN}
    return replace(
        config,
        train=replace(config.train, **train),
        data=replace(config.data, file=expanded("data.file", config.data.file)),
        model=config.model | {key: expanded(f"model.{key}", config.model[key]) for key in paths},
        run=replace(config.run, dir=expanded("run.dir", config.run.dir)),
    )


def expanded(key, path):
    """A path without ~.  UserError: there is no such user, or the path is one of Windows."""
    found = os.path.expanduser(path)
    if found == path and path.startswith("~") and not os.path.exists(path):
        user = path.partition("/")[0]
        raise UserError(f"{key} = {shown(path)}, expected another user than {user}, or ./~")
    slashes = path.replace("\\", "/")
    if not os.path.exists(path) and slashes != path and os.path.isfile(slashes):
        raise UserError(f"{key} = {shown(path)}, expected {slashes}")
    return found
