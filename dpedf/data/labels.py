"""Labels: how many classes they have, and what looks as if something else was meant."""

from math import prod

import numpy as np

from dpedf.errors import UserError, one_line

FEW = 3  # names in a line
IGNORE = 255  # the label of what does not count, in many data sets
MASK = "a label that does not count is named by the attribute ignore of the file"


def classes_of(path, declared, stored, text=False, ignore=None):
    """(how many classes the labels have, or symbols a text has; notes for the user, a line each).

    declared: the attribute classes, a number or a list of names; None where there is none.
    stored: the rows of labels, each once.  ignore: a label that does not count.
    UserError: another label is none of 0..classes-1.
    """
    classes, names, notes = declared, (), []
    are_truth = classes is None and stored[0].dataset.dtype.kind == "b"
    if are_truth:
        classes = 2
    elif classes is None:
        last = largest(stored[0], but=ignore)  # those to learn from
        classes = last + 1
        before = -1 if text or last != IGNORE else largest(stored[0], IGNORE)
        if -1 < before < IGNORE - 1:
            found = f"{classes} classes, since label {before} is followed by {last}"
            notes.append(f"{path}: {found}; {MASK}")
    elif np.ndim(classes) == 1 and classes.dtype == object:
        names, classes = [*map(str, classes)], len(classes)
    elif isinstance(classes, float | np.floating) and float(classes).is_integer():
        classes = int(classes)  # from programs that write all numbers so
    if not isinstance(classes, int | np.integer):
        found = one_line(repr(classes))
        raise UserError(f"{path}: attribute classes = {found}, expected an integer")
    for rows in stored:
        for first, labels in rows.blocks():
            wrong = (labels < 0) | (labels >= classes)
            for at in np.argwhere(wrong if ignore is None else wrong & (labels != ignore))[:1]:
                label, where = labels[tuple(at)], first + at[0]
                found = f"symbol {label} at {where}" if text else f"label {label} in row {where}"
                hint = ""
                if label == -1 and all((abs(its) == 1).all() for _, its in rows.blocks()):
                    hint = "; of two classes, labels are 0 and 1, here y > 0"
                elif not text and (label < 0 or label == IGNORE):
                    hint = f"; {MASK}"
                elif not text and label == classes:
                    hint = "; labels count from 0"
                raise UserError(f"{rows.where}: {found}, expected 0..{classes - 1}{hint}")
    if names:
        notes.extend(unlearnt(stored[0], names, ignore))
    if declared is None and not (text or notes or are_truth):
        notes.extend(gap(stored[0], classes))
    return int(classes), notes


def gap(rows, classes):
    """What is to be said where one of the labels below the largest does not occur."""
    most = prod(rows.shape)  # so many labels are not enough for more classes
    seen, largest_in = np.zeros(min(classes, most + 1), bool), None
    for first, labels in rows.blocks():
        seen[labels[labels < len(seen)]] = True
        if largest_in is None and len(at := np.argwhere(labels == classes - 1)):
            largest_in = first + at[0, 0]
    if not seen.all():
        since = f"the largest label is {classes - 1}, in row {largest_in}"
        yield f"{rows.where}: {classes} classes, since {since}; no row has label {seen.argmin()}"


def unlearnt(rows, names, ignore):
    """What is to be said where one of these classes does not occur in the rows to learn from."""
    occurs = np.zeros(len(names), bool)
    for _, labels in rows.blocks():
        occurs[labels if ignore is None else labels[labels != ignore]] = True
    if left := [repr(names[j]) for j in np.flatnonzero(~occurs)]:
        more = f" and {len(left) - FEW:,} more" * (len(left) > FEW)
        yield f"{rows.where}: no row of class {', '.join(left[:FEW])}{more} to learn from"


def ignored(stored):
    """The attribute ignore of a Stored file: a label that does not count, or None.

    UserError: it is no whole number.
    """
    found = stored.attribute("ignore", None)
    if found is not None and not isinstance(found, int | np.integer):
        found = one_line(repr(found))
        raise UserError(f"{stored.path}: attribute ignore = {found}, expected a label")
    return None if found is None else int(found)


def largest(rows, below=None, but=None):
    """The largest of all labels, or of those below a number, or but one; -1 where there is none."""
    blocks = (labels if below is None else labels[labels < below] for _, labels in rows.blocks())
    blocks = (labels if but is None else labels[labels != but] for labels in blocks)
    return max((int(labels.max()) for labels in blocks if labels.size), default=-1)


def hints(x_shape, y):
    """Why a model may not take y, of which these are some rows, as stored; a line each."""
    if y.shape[1:] == (1,) and x_shape[1:2] != (1,):
        yield "y is (N, 1), expected (N,) where each row has one label"
    if not len(y):
        return
    if y.ndim == 2 and y.shape[1] > 1 and (np.sort(y) == [*[0] * (y.shape[1] - 1), 1]).all():
        yield "y is one-hot, expected labels, which are y.argmax(axis=1)"
    elif y.dtype.kind == "f" and (y == np.rint(y)).all():
        yield "y holds integers as floats, expected an integer type where they are labels"
