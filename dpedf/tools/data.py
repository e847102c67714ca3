"""Describe a data file, draw samples of it, or check all of it.

    dpedf data data/mnist.h5 -o samples.png
    dpedf data data/mnist.h5 --verify

FILE is opened as training opens it, so what training would refuse is refused here in the same
words; one without rows to learn from is described too.  --verify reads every row: the checksums of
the file, nan and inf, the labels, the codes of categories, and the rows of valid and test that
stand in train too.
"""

import os
from hashlib import blake2b

import numpy as np
from tqdm import tqdm

from dpedf.data import Data
from dpedf.data.file import File
from dpedf.data.form import names_of, type_in_file
from dpedf.data.layout import MappedRows, StoredRows
from dpedf.data.rest import Rest
from dpedf.data.writer import GROUPS
from dpedf.errors import UserError, padded, plural, print_line, visible
from dpedf.errors import columns as wide_as
from dpedf.run.command_line import Parser, at_least, expect_one_process
from dpedf.run.scores import WIDTH, called, cut
from dpedf.tools.contents.numbers import MANY, entry, of_rows

COUNTED = 1 << 20  # classes, at most, of which the labels are counted


def main(words):
    parser = Parser("dpedf data", __doc__)
    add = parser.add_argument
    add("file", metavar="FILE", help="such as data/mnist.h5")
    add("-o", "--output", metavar="OUT", help="draw samples: a .png, .svg or .pdf")
    add("--seed", type=at_least(0), default=0, help="which samples (0)")
    add("--window", type=at_least(1), default=0, help="of a text: symbols in a row")
    add("--verify", action="store_true", help="read every row, and say whether all is well")
    args = parser.read(words)
    expect_one_process("data")
    data = opened(args.file, args.window)
    names = names_of(data.stored, data.x.classes or data.y.classes)
    if args.output:
        draw(data, names, args)
    if args.verify:
        verify(data)
    if not (args.output or args.verify):
        print_line("\n".join(description(data, names)))


def opened(path, window):
    """The Data in a file, or what Rest there is; a text has rows of one symbol by default."""
    path = os.path.expanduser(path)
    try:
        return Data(path, window=window)
    except UserError:
        its = File(path, np.float32, None, 0, 0)  # or it is refused in the same words
        if window or its.stored.has("train/x"):
            raise
        if its.stored.has("train/text"):
            return Data(path, window=1)
        if its.stored.has("train") or not (its.stored.has("x") or its.groups_with("x")):
            raise
        return Rest(path)


def splits(data):
    """[(name, Split)] of each group that the file has."""
    if isinstance(data, Rest):
        return [*data.groups.items()]
    pairs = zip(GROUPS, data.splits, strict=True)
    return [(name, split) for name, split in pairs if name != "valid" or len(split)]


def held(data, split):
    """What is stored of a group: [its x, its y], [its x], or [its text]."""
    rows = [split.x.text] if data.window else [split.x, split.y]
    return [its for its in rows if isinstance(its, StoredRows)]


def stored_as(rows):
    """How the numbers of a group lie in the file, and whether they have a checksum."""
    rows = getattr(rows, "text", rows)
    dataset, more = rows.dataset, [] if rows.crc32 is None else ["crc32"]
    if dataset.is_virtual:
        layout = "virtual"
    elif dataset.chunks:
        layout = f"chunks of {dataset.chunks[0]:,}"
        more = [dataset.compression] * bool(dataset.compression) + more
    else:
        layout = "contiguous" if isinstance(rows, MappedRows) else "converted"
    return ", ".join([layout, *more])


def description(data, names):
    """Yield the lines that describe open Data."""
    stored = data.stored
    about = {key: stored.attribute(key, "not said") for key in ("name", "source", "licence")}
    yield f"{data.path}, {os.stat(data.path).st_size:,} bytes"
    for key, value in about.items():
        yield from entry(key, visible(str(value)))
    yield ""
    yield from table(data)
    yield ""
    yield from of_text(data, names) if data.window else of_rows(data, splits(data)[0][1])
    if data.y.classes is not None and not data.window:
        yield from classes(data, names)
    yield from map(visible, data.notes)


def table(data):
    """Yield a line for each group: rows, and the types and shapes of what it holds."""
    kinds = ("text",) if data.window else ("x", "y")
    lines = [["", "symbols" if data.window else "rows", *kinds, "stored"]]
    for name, split in splits(data):
        rows = held(data, split)
        n = rows[0].shape[0] if data.window else len(split)
        row = [f"{type_in_file(its)} {tuple(its.shape[1:]) or ''}".rstrip() for its in rows]
        row += ["none"] * (len(kinds) - len(row))
        lines.append([name, f"{n:,}", *row, stored_as(split.x)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, n, *others in lines:
        cells = [f"{name:{widths[0]}}  {n:>{widths[1]}}"]
        cells += [f"{its:{w}}" for its, w in zip(others, widths[2:], strict=True)]
        yield cut("  ".join(cells).rstrip(), WIDTH)


def of_text(data, names):
    """Yield what a text is made of."""
    said, line = repr("".join(names)) if names else "without characters", WIDTH - 10
    yield f"symbols   {data.x.classes:,}"
    yield from (f"{'':10}{said[k : k + line]}" for k in range(0, len(said), line))
    if data.window > 1:
        rows = ", ".join(f"{len(split):,} in {name}" for name, split in splits(data))
        yield from entry("rows", f"of {data.window:,} symbols: {rows}")


def classes(data, names):
    """Yield how often each label is there, a line a class, and a column a group."""
    J, groups = data.y.classes, splits(data)
    yield ""
    if J > COUNTED:
        yield f"{J:,} classes"
        return
    counts = np.zeros((len(groups), J), np.int64)
    for row, (_, split) in zip(counts, groups, strict=True):
        for _, labels in split.y.blocks():
            counting = (labels >= 0) & (labels < J)  # others are those to ignore
            row += np.bincount(labels[counting], minlength=J)
    labels = called(min(J, MANY), names[:MANY], 36)
    title = f"{J:,} class{'es' * (J != 1)}"
    wide = max(len(title), *map(wide_as, labels))
    yield padded(title, wide) + "".join(f"{name:>12}" for name, _ in groups)
    for label, row in zip(labels, counts.T, strict=False):
        yield padded(label, wide) + "".join(f"{n:>12,}" for n in row)
    if J > MANY:
        low, high = counts[0, MANY:].min(), counts[0, MANY:].max()
        yield f"and {J - MANY:,} more, each {low:,} to {high:,} times in {groups[0][0]}"


def draw(data, names, args):
    """Write the picture of samples."""
    from dpedf.tools.pictures.saving import drawing, format_of, save

    ending, path = format_of(args.output), os.path.expanduser(args.output)
    if os.path.exists(path) and os.path.samefile(path, data.path):
        raise UserError(f"{path} is read here, and would be lost, expected another OUT")
    with drawing("dpedf data"):
        from dpedf.tools.pictures.samples import draw_samples

        save(draw_samples(data, names, args.seed), path, ending, data.path)


def verify(data):
    """Read every row, and say what was found.  UserError: something is wrong with one."""
    digests, proven = {}, True
    for name, split in splits(data):
        rows = held(data, split)
        digests[name], *_ = [read_through(its, its is split.x) for its in rows]
        proven &= all(its.crc32 is not None for its in rows)
    what = "all checksums are right" if proven else "not all of it has checksums"
    n = sum(map(len, digests.values()))
    print_line(f"{data.path}: whole, {plural(n, 'symbol' if data.window else 'row')}, {what}")
    train = None if data.window else digests.pop("train", None)
    for name, its in digests.items() if train is not None else ():
        if twice := int(np.isin(its, train).sum()):
            print_line(f"{data.path}: {plural(twice, 'row')} of {name} also in train, by their x")


def read_through(rows, digest):
    """A number for each row, a digest of its bytes if asked.  UserError: a row is wrong."""
    numbers = np.zeros(rows.shape[0], np.uint64)
    with tqdm(total=len(numbers), desc=rows.where, unit=" rows", leave=False, disable=None) as bar:
        for first, block in rows.blocks():
            for k, row in enumerate(block if digest else (), first):
                numbers[k] = int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest())
            bar.update(len(block))
    return numbers
