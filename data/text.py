"""Any text as a data file of dpedf, to predict each character from those before it:

    python data/text.py FILE   # reads UTF-8 text, writes data/NAME.h5 of FILE's stem NAME

A byte-order mark is left out, and every line ends in a newline alone, as Python reads texts.  The
sorted distinct characters are the classes.  The first 90 % train and the last 10 % validate, as in
nanoGPT's benchmarks; these have no third part, so the rows to test are those to validate.
"""

from pathlib import Path

import numpy as np

from dpedf.data import write
from dpedf.data.disk import expect_regular
from dpedf.data.memory import expect_memory
from dpedf.data.recipe import about_of, beside, expect_kept, parser_of, recipe_errors
from dpedf.errors import UserError, one_line, plural, print_line

TIMES = 7  # bytes of memory for each of a text, most of all
PIECE = 1 << 22  # characters that become numbers at a time


def symbols(file):
    """(the text in a file as numbers of characters, these characters in one string)."""
    try:
        expect_regular(file)
        expect_memory(f"{file}: to make a data file of it", TIMES * file.stat().st_size)
        content = file.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: {one_line(error)}, expected a text") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: {error}, expected UTF-8") from None
    if len(text) < 2 or "\0" in text:
        found = "a NUL" if "\0" in text else plural(len(text), "character")
        raise UserError(f"{file}: {found}, expected a text")
    characters = "".join(sorted(set(text)))
    numbers = np.zeros(ord(characters[-1]) + 1, np.min_scalar_type(len(characters) - 1))
    numbers[[*map(ord, characters)]] = np.arange(len(characters))
    pieces = (text[first : first + PIECE] for first in range(0, len(text), PIECE))
    coded = (np.frombuffer(piece.encode("utf-32-le"), np.uint32) for piece in pieces)
    return np.concatenate([numbers[piece] for piece in coded]), characters


def main():
    parser = parser_of(__doc__)
    parser.add_argument("file", metavar="FILE", type=Path, help="the text")
    args = parser.parse_args()
    about = about_of(args, args.file.stem, args.file.name, "that of the text")
    with recipe_errors(parser, output := args.output or beside(__file__, args.file.stem)):
        expect_kept([args.file], output)
        text, characters = symbols(args.file)
        train, valid = np.split(text, [len(text) * 9 // 10])
        about |= {"classes": len(characters), "characters": characters}
        write(output, **about, train=train, valid=valid, test=valid)
    print_line(
        f"{output}: {len(train):,} characters to train, of {len(characters)} kinds, and "
        f"{len(valid):,} to validate, which are also those to test"
    )


if __name__ == "__main__":
    main()
