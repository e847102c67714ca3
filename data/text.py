"""Any text as a data file of dpedf, to predict each character from those before it:

    python data/text.py FILE   # reads UTF-8 text, writes data/NAME.h5 of FILE's stem NAME

The sorted distinct characters are the classes.  The first 90 % train and the last 10 % validate,
as in nanoGPT's benchmarks; these have no third part, so the rows to test are those to validate.
"""

import argparse
from pathlib import Path

import numpy as np

from dpedf.data import write
from dpedf.errors import UserError, one_line, plural


def symbols(file):
    """(the text in a file as numbers of characters, these characters in one string)."""
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"{file}: {one_line(error)}, expected a text") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: {error}, expected UTF-8") from None
    if len(text) < 2 or "\0" in text:
        found = "a NUL" if "\0" in text else plural(len(text), "character")
        raise UserError(f"{file}: {found}, expected a text")
    characters, numbers = np.unique(np.array([text]).view("U1"), return_inverse=True)
    return numbers.astype(np.min_scalar_type(len(characters) - 1)), "".join(characters)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("file", metavar="FILE", type=Path, help="the text")
    add("--output", metavar="FILE", type=Path, help="write FILE")
    args = parser.parse_args()
    name = args.file.stem
    output = args.output or Path(__file__).with_name(f"{name}.h5")
    about = {"name": name, "source": args.file.name, "licence": "that of the text"}
    try:
        text, characters = symbols(args.file)
        train, valid = np.split(text, [len(text) * 9 // 10])
        about |= {"classes": len(characters), "characters": characters}
        write(output, **about, train=train, valid=valid, test=valid)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    except OSError as error:
        parser.exit(2, f"{output}: {one_line(error)}\n")
    print(
        f"{output}: {len(train):,} characters to train, of {len(characters)} kinds, and "
        f"{len(valid):,} to validate, which are also those to test"
    )


if __name__ == "__main__":
    main()
