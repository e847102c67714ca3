"""Files on disk: one that is written appears as a whole or not at all."""

import os
from pathlib import Path


def replace(path, content):
    """Write bytes to a file, which appears or replaces another as a whole or not at all."""
    unfinished = Path(f"{path}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
