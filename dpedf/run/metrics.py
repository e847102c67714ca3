"""metrics.jsonl: what a run has told of itself, an event a line."""

import json
import os
from math import isfinite

from dpedf.data.disk import content_of, expect_regular
from dpedf.data.memory import expect_memory
from dpedf.errors import plural

KINDS = "train", "eval", "test"
SHOWN = 5  # numbers of lines
LONGEST = 1 << 16  # bytes of a line
LARGEST = 1e300, 2**53  # of a number, and of a count; no run measures more
TRAIN = b'{"event": "train"'  # how most lines begin


def line(event):
    """An event in JSON, with null for nan and infinity."""
    finite = {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in event.items()}
    return json.dumps(finite) + "\n"


def read(path):
    """(events, a list of one line that says which lines are none, or of none).

    OSError: the file cannot be read.  UserError: memory cannot hold it.
    """
    expect_memory(path, os.path.getsize(path))
    events, bad = [], []
    for number, text in enumerate(content_of(path).split(b"\n"), 1):
        event = parsed(text) if text else None
        if event:
            events.append(event)
        elif text:
            bad.append(number)
    if not bad:
        return events, []
    at = ", ".join(map(str, bad[:SHOWN])) + ", ..." * (len(bad) > SHOWN)
    what = "is no event of a run and is" if len(bad) == 1 else "are no events of a run and are"
    return events, [f"{path}: {plural(len(bad), 'line')} {what} left out: {at}"]


def glance(path):
    """Yield the events of a file, but of those of "train" the last alone: soon, in little memory.

    Lines that are no events are left out.  OSError: the file cannot be read.
    """
    expect_regular(path)
    last = b""
    with open(path, "rb") as file:
        while text := file.readline(LONGEST):
            if text.startswith(TRAIN):
                last = text if text.endswith(b"\n") else last  # a live run is still writing it
            elif event := parsed(text):
                yield event
    if event := parsed(last):
        yield event


def number(value):
    """What an event holds, as a number; None where it is none."""
    return value if type(value) in (int, float) and abs(value) <= LARGEST[0] else None


def count(value):
    """What an event holds, as a whole number from 0 on; None where it is none."""
    return value if type(value) is int and 0 <= value <= LARGEST[1] else None


def parsed(text):
    """The event in a line; None if it is not one that line() could have made."""
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or event.get("event") not in KINDS:
        return None
    whole = type(event.get("step")) is int and event["step"] >= 0
    return event if whole and all(map(plain, event.values())) else None


def plain(value):
    """Is it null, a text, or a finite number?"""
    return value is None or type(value) in (str, int) or (type(value) is float and isfinite(value))


def before(events, step):
    """Those events up to this step, but for that of the test, which is told anew."""
    return [e for e in events if e["step"] <= step and e["event"] != "test"]
