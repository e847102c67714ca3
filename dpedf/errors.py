"""Errors that end a run with one line, and how lines are written."""

import os
import sys
import sysconfig
import traceback
import unicodedata
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

# Folders that hold what is not the user's own, even if they lie below a folder of his.
OTHERS = {Path(sysconfig.get_path("stdlib")).name, "site-packages", "dist-packages"}
DPEDF = Path(__file__).parent

lost = []  # the streams that could not be written, though somebody may have wanted their words


class UserError(ValueError):
    """What the user gave is wrong.  One line says what was found, where, and what was expected.

    A run that meets one ends with status 2, before any training.
    """

    status, agreed = 2, False  # agreed: does every rank raise it?  Then rank 0 alone prints it.


class AgreedError(UserError):
    """A UserError that every rank raises, so that all of them end."""

    agreed = True


class RunError(Exception):
    """A run cannot go on: a disk is full, a file is damaged, the loss is not finite.

    One line says what was found, where, and what to do.  The run ends with status 1.
    """

    status, agreed = 1, False


class AgreedRunError(RunError):
    """A RunError that every rank raises."""

    agreed = True


class StoppedError(AgreedRunError):
    """A run was told to stop before it began."""

    status = 75


def one_line(error):
    """The text of an error in one line; HDF5's span several."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def traceback_of(error):
    """The traceback of an error, from the first line of the user's own code on.

    If there is none, the fault is ours: then all of it.
    """
    shown = whole = error.__traceback__
    while shown and not is_users(shown.tb_frame.f_code.co_filename):
        shown = shown.tb_next
    return "".join(traceback.format_exception(error, value=error, tb=shown or whole))


def is_users(file):
    """Is a file of code neither ours, nor Python's, nor of a package that is installed?"""
    path = Path(file)
    return path.is_file() and not OTHERS & {*path.parts} and not path.is_relative_to(DPEDF)


def visible(text, keep=""):
    """A text in which nothing moves the cursor or hides: ESC reads \\x1b.  keep: such as newlines.

    What comes from a file may hold anything.
    """
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def columns(text):
    """How many columns of a terminal a text takes: a 猫 takes two, an accent none of its own."""
    taking = [c for c in text if unicodedata.category(c) not in ("Mn", "Me")]
    return len(taking) + sum(unicodedata.east_asian_width(c) in "WF" for c in taking)


def padded(text, width):
    """A text with blanks after it, so that it takes so many columns."""
    return text + " " * (width - columns(text))


def plural(n, noun):
    """ "1 rank", "4 ranks"."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def short(number):
    """A loss, as a line shows it: 0.0471, 8298.99, 1.3e+23, 2e-09, nan."""
    if number == 0 or 1e-3 <= abs(number) < 1e5:
        return f"{number:.{min(4, 6 - len(f'{abs(number):.0f}'))}f}"  # in six digits at most
    return f"{number:.4g}"


def percent(share):
    """ "98.61 %"."""
    return f"{100 * share:.2f} %"


def figures(rows, loss, accuracy):
    """What was found on the rows "test": "test loss 0.0471, accuracy 98.61 %"."""
    right = "" if accuracy is None else f", accuracy {percent(accuracy)}"
    return f"{rows} loss {short(loss)}{right}"


def nearest(word, known):
    """What may have been meant: "test", or "one of train, test" where none is near."""
    return (get_close_matches(word, known, 1) or [f"one of {', '.join(known)}"])[0]


def grouped(noun, numbers):
    """ "rank 3", "ranks 0-2, 5"."""
    ranges = []
    for n in sorted(numbers):
        if ranges and n == ranges[-1][1] + 1:
            ranges[-1][1] = n
        else:
            ranges.append([n, n])
    shown = (str(low) if low == high else f"{low}-{high}" for low, high in ranges)
    return f"{noun}{'s' * (len(numbers) > 1)} {', '.join(shown)}"


@contextmanager
def extra(name, what):
    """Inside the with block, an ImportError is a UserError that says how to install an extra.

    what: it is for.  Any other error is of an installation that is broken, and says how.
    """
    try:
        yield
    except ImportError as error:
        install = f'expected what `pip install -e ".[{name}]"` brings'
        raise UserError(f"{what}: {one_line(error)}, {install}") from None


@contextmanager
def concerning(what):
    """Inside the with block, a UserError begins with what it concerns, such as a file."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{what}: {error}") from None


def print_line(text, before=""):
    """Print a line on stdout, at once.  before: what is to precede it, as it is."""
    write("stdout", text, before=before)


def print_error(text):
    """Print on stderr in one call, so that the lines of several ranks do not mix."""
    write("stderr", text.rstrip("\n"))


def lost_output():
    """The status of a tool whose result is what it prints: 1 if that has been lost."""
    return int(bool(lost))


def write(name, text, end="\n", before=""):
    """Write a line on the stream of sys with this name.

    Printing never stands in the way: on a stream that is full, closed, missing or read no more,
    nothing is written, now or later.
    """
    stream = getattr(sys, name)
    if stream is None:
        return
    encoding, text = stream.encoding or "utf-8", visible(str(text), "\n\t")
    try:
        stream.write(f"{before}{text}{end}".encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        give_up(name, error)
    except (ValueError, RuntimeError):  # it is closed, or a thread is writing to it
        return


def flush():
    """Bring what a program has printed to its streams, if they are still there."""
    for name in "stdout", "stderr":
        try:
            getattr(sys, name).flush()
        except OSError as error:
            give_up(name, error)
        except (ValueError, AttributeError, RuntimeError):  # closed, None, or being written to
            continue


def give_up(name, error):
    """Connect a stream that has failed to nothing, so that Python's own flush at its end works."""
    stream = getattr(sys, name)
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
        stream.flush()  # what it still holds
    except (OSError, ValueError):  # it has no file of its own
        setattr(sys, name, None)
    if name == "stdout" and not isinstance(error, BrokenPipeError):
        lost.append(name)
        print_error(f"standard output: {one_line(error)}: it is not written any more")


def open_streams():
    """Open those of stdin, stdout and stderr that a shell has closed (>&-).

    Otherwise a file of a run would get the number of one, and what libraries print there.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in "stdout", "stderr":
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
