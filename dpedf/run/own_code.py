"""Code of the user's own: a file of models or rules, and the modules beside it that it imports.

These are found as they are in `python path/to/file.py`, before others of the same name; but later,
in a node that imports what nobody did before, after them.
"""

import importlib.util
import inspect
import re
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

from dpedf.errors import OTHERS, UserError, one_line

located = {}  # files as they were named: where they lie, wherever the process goes later
contents = {}  # of such files, and of what they imported, when they were run
neighbours = {}  # folders of such files: {name: module} of what they alone imported from there


def own_file(name):
    """The file that a name such as path/to/file.py:mine begins with; "" of a model of dpedf."""
    return name.rpartition(":")[0]


def procedure(key, name, parameters, anew=True):
    """The procedure that a setting names as path/to/file.py:mine, of these parameters.

    "..." stands for any further ones.
    anew: is its file to be run again, even if it was, and is as it was?
    UserError: there is no such file, or no such procedure in it.
    """
    file, _, its = name.rpartition(":")
    if not (file.endswith(".py") and (file in located or Path(file).is_file())):
        found = f'{key} = "{name}": no file {file}, from the current directory on'
        raise UserError(f"{found}, expected path/to/file.py:procedure")
    found = getattr(module(file) if anew else newest(file), its, None)
    if not takes(found, parameters):
        expected = f"a procedure of ({', '.join(parameters)}) in that file"
        raise UserError(f'{key} = "{name}", expected {expected}')
    return found


def takes(thing, parameters):
    """Is it a function of these parameters?"""
    if not inspect.isfunction(thing):
        return False
    *first, last = parameters
    names = [*inspect.signature(thing).parameters]
    return names[: len(first)] == first if last == "..." else names == [*parameters]


def newest(file):
    """The module that a file makes, run anew if it, or what it imported, is not what it was."""
    path = Path(file).resolve() if Path(file).is_file() else located[file]
    made, stood = sys.modules.get(name_of(path)), contents.get(path, {})
    if made and all(one.is_file() and one.read_bytes() == its for one, its in stood.items()):
        return made
    return module(file)


def name_of(path):
    """The name of the module of a file, which no other file and no package has."""
    return str(path).replace(".", "_")


def module(file):
    """The module that a file makes, run anew, as are its neighbours.

    UserError: it or what it imports is no Python.
    """
    located[file] = path = Path(file).resolve()
    for neighbour, old in neighbours.pop(path.parent, {}).items():
        if sys.modules.get(neighbour) is old:
            del sys.modules[neighbour]
    name = name_of(path)
    spec = importlib.util.spec_from_file_location(name, path)
    made = sys.modules[name] = importlib.util.module_from_spec(spec)
    with beside(file):
        try:
            spec.loader.exec_module(made)
        except SyntaxError as error:
            at = f"{error.filename or path}, line {error.lineno or 1}"
            raise UserError(f"{at}: {error.msg}, expected Python") from None
        except ValueError as error:
            if "null bytes" not in str(error):  # which is a SyntaxError from Python 3.11.4 on
                raise
            raise UserError(f"{path}, line 1: {one_line(error)}, expected Python") from None
        except ImportError as error:
            frames = traceback.extract_tb(error.__traceback__)
            last = [frame for frame in frames if not frame.filename.startswith("<frozen")][-1]
            at = f"{last.filename}, line {last.lineno}"
            expected = "what is installed or lies beside it"
            if "no known parent package" in str(error):
                without = re.sub(r"from\s*\.+(?=\w)", "from ", last.line)
                without = re.sub(r"from\s*\.+\s*import", "import", without)
                expected = f"`{without}`, without the dot"
            raise UserError(f"{at}: {one_line(error)}, expected {expected}") from None
    contents[path] = {one: one.read_bytes() for one in sources(file)}
    return made


@contextmanager
def beside(file):
    """Inside, an import looks in the folder of a file first, and from then on, last.

    A module from elsewhere that has the name of one there, such as random, is away meanwhile.
    """
    folder, fixed = located[file].parent, {"dpedf", *sys.builtin_module_names, "__main__"}
    names = {path.stem for path in folder.glob("*.py")} - fixed
    names |= {path.parent.name for path in folder.glob("*/__init__.py")} - fixed
    spaces = {path.name for path in folder.glob("*/")} - names - fixed

    def named(name):
        """Is it the name of a module there?  Packages without __init__ give way to any other."""
        top = name.partition(".")[0]
        return top in names or (top in spaces and place_of(sys.modules.get(top)) is None)

    def loaded():
        return {n: m for n, m in [*sys.modules.items()] if named(n)}

    away = {n: m for n, m in loaded().items() if not lies_in(folder, m) and not frozen(m)}
    for n in away:
        del sys.modules[n]
    before = sys.modules.keys() - (ours := neighbours.get(folder, {})).keys()
    sys.modules.update(ours)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # it hides changes for a second
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes
        its = {n: m for n, m in loaded().items() if lies_in(folder, m)}
        neighbours[folder] = {n: m for n, m in its.items() if n not in before}
        sys.modules.update(away)
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def place_of(module):
    """The file of a module; None where it has none, as a package without __init__."""
    return getattr(module, "__file__", None)


def lies_in(folder, module):
    """Is a module the user's own, from this folder or one below?"""
    place = place_of(module) or next(iter(getattr(module, "__path__", ())), "/")
    path = Path(place).resolve()
    return path.is_relative_to(folder) and not OTHERS & {*path.relative_to(folder).parts}


def frozen(module):
    """Does Python hold it itself?  Then no file can take its name."""
    return getattr(getattr(module, "__spec__", None), "origin", None) == "frozen"


def sources(file):
    """The files of Python that make a user's file: itself, and what was imported beside it."""
    path = located.get(file) or Path(file).resolve()
    modules = [*sys.modules.values(), *neighbours.get(path.parent, {}).values()]
    its = [m for m in modules if place_of(m) and lies_in(path.parent, m)]
    places = [(Path(m.__file__).resolve(), m.__name__) for m in its]
    imported = {one for one, name in places if name != name_of(one)}  # not another file of models
    return sorted({path, *(one for one in imported if one.suffix == ".py" and one.is_file())})
