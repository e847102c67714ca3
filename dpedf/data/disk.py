"""Files on disk: regular ones are read, and what is written is whole and at its place.

A file appears, or replaces another, as a whole or not at all, and never through a link: a link is
replaced, and what it leads to stays as it was.
"""

import errno
import os
import stat
from contextlib import contextmanager
from pathlib import Path

from dpedf.errors import RunError, UserError, one_line


def replace(path, content, previous=None):
    """Write bytes to a file.  previous: the name that the file before it is kept under.

    OSError: the file is as it was before.
    """
    with replacing(path, previous) as file:
        file.write(content)


@contextmanager
def replacing(path, previous=None):
    """with replacing(path) as file: what is written to it is at the path once all of it is written.

    previous: the name that the file before it is kept under.  OSError: it is as it was before.
    """
    path, unfinished = Path(path), Path(f"{path}.unfinished")
    if os.path.lexists(path) and not (path.is_symlink() or path.is_file()):
        raise OSError(errno.EINVAL, f"{path.name} is no regular file")
    unfinished.unlink(missing_ok=True)
    file = open(unfinished, "x+b", opener=no_link)
    ours = os.fstat(file.fileno())
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not is_at(unfinished, ours):
            raise OSError(errno.EBUSY, "another process writes it at the same time")
        if previous and path.exists():
            keep(path, previous)
        unfinished.replace(path)
        sync(path.parent)
    finally:
        if is_at(unfinished, ours):
            unfinished.unlink()


def is_at(path, status):
    """Is the file of a status that one at a path?"""
    return os.path.lexists(path) and os.path.samestat(os.lstat(path), status)


def keep(path, previous):
    """Give a file another name too, so that at every moment it has one of them at least."""
    Path(previous).unlink(missing_ok=True)
    try:
        os.link(path, previous, follow_symlinks=False)
    except OSError:  # this file system has no second names
        os.rename(path, previous)


def no_link(path, flags):
    """Open a file, but not the one that a link leads to."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def create(path, flags):
    """The same, and make the file where there is none."""
    return no_link(path, flags | os.O_CREAT)


def sync(directory):
    """Wait until the names in a directory are on the disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot, and need not
            raise
    finally:
        os.close(handle)


def expect_regular(path):
    """OSError: there is no such file, or it is a FIFO, a socket or a device: to open it can block.

    A directory passes, since to open it says what it is.
    """
    kind = os.stat(path).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(errno.EINVAL, "not a regular file")


def content_of(path):
    """The bytes of a file.  OSError: there is none, or nothing that could be read to its end."""
    expect_regular(path)
    return Path(path).read_bytes()


def expect_place(path):
    """UserError: this is no path that a file can be written to."""
    parent = Path(path).parent
    if not parent.is_dir():
        raise UserError(f"{path}: no directory {parent}, expected one that is there")
    if str(path).endswith(os.sep) or Path(path).is_dir():
        raise UserError(f"{path}: a directory, expected the name of a file")
    if os.path.lexists(path) and not (Path(path).is_symlink() or Path(path).is_file()):
        raise UserError(f"{path}: not a regular file, expected one, or a name that is free")


@contextmanager
def writing(path):
    """Inside the with block, an OSError is a RunError that names this file."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: {one_line(error)}, expected a disk that can be written") from None
