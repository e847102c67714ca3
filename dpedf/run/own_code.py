"""Code of the user's own: a file of models, and the modules beside it that it imports.

These are found as they are in `python path/to/file.py`, before others of the same name.
"""

import importlib.util
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

from dpedf.errors import UserError, one_line

located = {}  # files as they were named: where they lie, wherever the process goes later
neighbours = {}  # folders of such files: {name: module} of what was imported from there


def own_file(name):
    """The file that a name such as path/to/file.py:mine begins with; "" of a model of dpedf."""
    return name.rpartition(":")[0]


def module(file):
    """The module that a file makes, run anew.  UserError: it or what it imports is no Python."""
    located[file] = path = Path(file).resolve()
    name = str(path).replace(".", "_")  # of this file alone, and of no package
    spec = importlib.util.spec_from_file_location(name, path)
    made = sys.modules[name] = importlib.util.module_from_spec(spec)
    with beside(file):
        try:
            spec.loader.exec_module(made)
        except SyntaxError as error:
            at = f"{error.filename or path}, line {error.lineno or 1}"
            raise UserError(f"{at}: {error.msg}, expected Python") from None
        except ImportError as error:
            frames = traceback.extract_tb(error.__traceback__)
            last = [frame for frame in frames if not frame.filename.startswith("<frozen")][-1]
            at = f"{last.filename}, line {last.lineno}"
            raise UserError(
                f"{at}: {one_line(error)}, expected what is installed or lies beside it"
            ) from None
    return made


@contextmanager
def beside(file):
    """Inside, an import looks in the folder of a file first.

    A module from elsewhere that has the name of one there, such as random, is away meanwhile.
    """
    folder = located[file].parent
    names = {path.stem for path in folder.glob("*.py")}
    names |= {path.parent.name for path in folder.glob("*/__init__.py")}
    names -= {"dpedf", *sys.builtin_module_names, "__main__"}

    def loaded():
        return {n: m for n, m in [*sys.modules.items()] if n.partition(".")[0] in names}

    away = {n: m for n, m in loaded().items() if not lies_in(folder, m) and not frozen(m)}
    for n in away:
        del sys.modules[n]
    sys.modules.update(neighbours.get(folder, {}))
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        neighbours[folder] = {n: m for n, m in loaded().items() if lies_in(folder, m)}
        sys.modules.update(away)


def lies_in(folder, module):
    """Is a module the user's own, from this folder or one below?"""
    path = Path(getattr(module, "__file__", None) or "/").resolve()
    return path.is_relative_to(folder) and "site-packages" not in path.parts


def frozen(module):
    """Does Python hold it itself?  Then no file can take its name."""
    return getattr(getattr(module, "__spec__", None), "origin", None) == "frozen"


def sources(file):
    """The files of Python that make a user's file: itself, and what was imported beside it."""
    path = located.get(file) or Path(file).resolve()
    modules = [*sys.modules.values(), *neighbours.get(path.parent, {}).values()]
    its = {Path(m.__file__).resolve() for m in modules if lies_in(path.parent, m)}
    return sorted({path, *(source for source in its if source.suffix == ".py")})
