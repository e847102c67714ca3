"""Break a copy of dpedf as breakages.toml says, and see that a test notices:

    python tests/breakages.py [WORD]     # all of them, or those of which a line has this word
    python tests/breakages.py --table    # the table of tests/README.md

Each breakage is made in a copy of its own, which is thrown away.  The status is 1 where a test
fails without a breakage, or a breakage goes unnoticed, or its text is no longer in the file.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

TESTS = Path(__file__).resolve().parent
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "runs", "*.h5")


def listed():
    return tomllib.loads((TESTS / "breakages.toml").read_text())["breakage"]


def copied(folder):
    """A copy of the repository in this folder."""
    return Path(shutil.copytree(TESTS.parent, Path(folder) / "copy", ignore=LEFT_OUT))


def ended(root, *tests):
    """How these tests of a copy end: the status of pytest, 1 where one of them failed."""
    quick = "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow and not gpu"
    command = [sys.executable, "-m", "pytest", *quick, *(f"tests/{test}" for test in tests)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if run.returncode not in (0, 1):
        print(run.stdout + run.stderr)
    return run.returncode


def broken(breakage):
    """What comes of a breakage, in a word or two."""
    with TemporaryDirectory() as folder:
        root = copied(folder)
        file = root / breakage["file"]
        text = file.read_text()
        if text.count(breakage["this"]) != 1:
            return "NOT MADE, its text is gone"
        file.write_text(text.replace(breakage["this"], breakage["that"]))
        return {0: "UNNOTICED", 1: "noticed"}.get(ended(root, breakage["test"]), "NO TEST RAN")


def table(breakages):
    yield "| breakage | where | the test that notices |"
    yield "| --- | --- | --- |"
    for b in breakages:
        file, test = b["test"].split("::")
        yield f"| {b['what']} | `{b['file'].removeprefix('dpedf/')}` | `{file}`: `{test}` |"


def main(words):
    breakages = listed()
    if words == ["--table"]:
        print(*table(breakages), sep="\n")
        return 0
    chosen = [b for b in breakages if all(any(word in v for v in b.values()) for word in words)]
    if not chosen:
        print(f"no breakage has the words {' '.join(words)}")
        return 2
    with TemporaryDirectory() as folder:
        if status := ended(copied(folder), *dict.fromkeys(b["test"] for b in chosen)):
            print("one of the tests fails without any breakage, or is missing")
            return status
    found = []
    for b in chosen:
        found.append(broken(b))
        print(f"{found[-1]}: {b['what']}", flush=True)
    print(f"{found.count('noticed')} of {len(found)} noticed")
    return int(set(found) != {"noticed"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
