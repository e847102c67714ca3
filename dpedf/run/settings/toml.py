"""A configuration in a TOML file."""

import re
import shlex
import stat
import tomllib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from difflib import get_close_matches
from pathlib import Path

from dpedf.errors import UserError, one_line
from dpedf.run.settings.explain import in_toml
from dpedf.run.settings.spelling import is_toml, meant
from dpedf.run.settings.tree import shown, shown_key

MOST_BYTES = 100_000
OTHERS = {".json": "JSON", ".yaml": "YAML", ".yml": "YAML", ".py": "Python"}


def read(path):
    """The tree of a TOML file.  UserError: there is none, or it is no TOML."""
    try:
        kind = Path(path).stat().st_mode  # first, because a pipe would be waited for
        if not stat.S_ISREG(kind):
            raise UserError(f"{path}: {no_file(Path(path), stat.S_ISDIR(kind))}")
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UserError(f"{path}: more than {MOST_BYTES:,} bytes, expected a configuration")
        text = decoded(content)
        return tomllib.loads(text)
    except FileNotFoundError as error:
        raise UserError(f"{path}: {one_line(error)}, expected {near(path)}") from None
    except OSError as error:
        raise UserError(f"{path}: {one_line(error)}, expected a configuration in TOML") from None
    except RecursionError:
        raise UserError(f"{path}: too many brackets in each other, expected TOML") from None
    except UserError:
        raise
    except tomllib.TOMLDecodeError as error:
        found = OTHERS.get(Path(path).suffix) or ("JSON" if text.lstrip()[:1] == "{" else None)
        what = f"{found}, expected TOML" if found else no_toml(text, str(error))
        raise UserError(f"{path}: {what}") from None
    except ValueError as error:  # bytes that are no text
        raise UserError(f"{path}: {one_line(error)}, expected TOML") from None


def no_file(path, folder):
    """What a path is that is no file, and what is expected: of a run, the command to go on."""
    if not folder:
        return "no regular file, expected a configuration in a file, which every rank reads"
    own = path / "config.toml"
    if not own.is_file():
        return "a directory, expected a configuration, which is a file in TOML"
    command = shlex.join(["dpedf", "train", f"{own}", f"run.dir={path}", "--resume"])
    return f"the directory of a run, expected a configuration; to go on with the run: {command}"


def near(path):
    """The path of a TOML file that is like one where there is none, if there is such a file."""
    if Path(slashes := str(path).replace("\\", "/")).is_file():
        return slashes
    folders = Path("configs"), Path(path).parent
    files = {file.name: file for folder in folders for file in folder.glob("*.toml")}
    found = get_close_matches(Path(path).name, files, 1)
    return files[found[0]] if found else "a configuration in TOML"


def decoded(content):
    """The text of a file in UTF-8, with a mark of the byte order or without."""
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise ValueError("text in UTF-16, not in UTF-8")
    try:
        return content.removeprefix(BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not in UTF-8") from None


def no_toml(text, error):
    """Which line is no TOML, and what was expected there.  error: what tomllib says."""
    at = re.search(r" \(at line (\d+), column \d+\)", error)
    number = int(at[1]) if at else text.count("\n") + 1
    line = [*re.split(r"\r?\n", text), ""][number - 1].strip()
    key, equals, value = (part.strip() for part in line.partition("="))
    if "twice" in error or "overwrite" in error:
        what = "a second time, expected each section and key once in TOML"
    elif not equals and re.match(r"[\w.-]+ *:", line):
        what = "expected TOML, key = value"
    elif "\\" in value:
        what = "expected TOML, with / between folders"
    elif re.fullmatch(r"[\w.-]+", key) and (right := corrected(value)):
        what = f"expected TOML, perhaps {key} = {right}"
    else:
        what = f"{shown_key(error.removesuffix(at[0] if at else ''))}, expected TOML"
    return f"line {number}, {shown(line)}: {what}"


def corrected(value):
    """What stands for this value in TOML; "" if that is not known."""
    value = value.partition("#")[0].strip()
    found = next(meant(value), None)
    known = not isinstance(found, str) or re.fullmatch(r"[^\W\d][\w./~-]*", found)
    return shown_key(in_toml(found)) if known and found is not None and not is_toml(value) else ""
