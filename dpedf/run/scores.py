"""What a classifier got right and wrong, counted by classes, and how that is printed."""

from math import sqrt

import numpy as np

from dpedf.errors import columns, padded, plural, visible

MOST = 2048  # classes for which all pairs are counted: 32 MiB
WIDTH = 80  # columns of a terminal
MANY = 100  # classes, of which those that do not occur are left out
LISTED = 10  # confusions, where a matrix does not fit
Z = 1.959963984540054  # 95 % of a normal distribution lie within so many standard deviations


class Scores:
    """Of J classes: how often which was predicted for which.

    confusion: (J, J), int64, rows true, columns predicted.  undecided: (J,), of labels whose output
    is nan, which predicts no class.  support, predicted: (J,), labels and predictions of a class.
    precision, recall, f1: (J,), nan for 0/0.  macro: their means over the classes that occur, as
    labels or predictions, with 0 for 0/0, as scikit-learn has them.  occurs: (J,), which they are.
    n: all labels; accuracy: the share of them that were predicted.
    """

    def __init__(self, counts):
        """counts: (J, J + 1), the undecided ones last."""
        self.confusion, self.undecided = counts[:, :-1], counts[:, -1]
        self.support, self.predicted = counts.sum(axis=1), self.confusion.sum(axis=0)
        diagonal = self.confusion.diagonal()
        self.n, self.occurs = int(self.support.sum()), self.support + self.predicted > 0
        self.accuracy = int(diagonal.sum()) / self.n if self.n else None
        self.precision, self.recall = share(diagonal, self.predicted), share(diagonal, self.support)
        self.f1 = share(2 * diagonal, self.predicted + self.support)
        each = self.precision, self.recall, self.f1
        self.macro = [np.nan_to_num(its)[self.occurs].mean() if self.n else np.nan for its in each]


def share(part, whole):
    """part / whole, nan where both are 0."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def wilson(share, n):
    """The ends of the 95 % interval of a probability, of which n independent trials had a share.

    (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n)
    E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    center, square = share + Z**2 / (2 * n), share * (1 - share) / n + Z**2 / (4 * n**2)
    ends = [(center + sign * Z * sqrt(square)) / (1 + Z**2 / n) for sign in (-1, 1)]
    return max(0.0, ends[0]), min(1.0, ends[1])


def called(J, names=(), most=WIDTH):
    """What J classes are called in a table, of at most so many characters."""
    if not names:
        return [str(j) for j in range(J)]
    shown = [visible(name) if name.strip() and name.isprintable() else repr(name) for name in names]
    return [cut(f"{j} {name}" if name != str(j) else name, most) for j, name in enumerate(shown)]


def cut(text, most):
    if columns(text) <= most:
        return text
    text = text[:most]
    while columns(text) > most - 2:
        text = text[:-1]
    return f"{text}.."


def class_report(scores, names=()):
    """Precision, recall, F1 and support of each class, a line each, as text.

    Of many classes, those that are neither labels nor predicted are left out.
    """
    labels = called(len(scores.support), names, 36)
    wide = max(map(columns, ["macro average", *labels]))

    def line(label, numbers, count):
        shown = ("-" if np.isnan(number) else f"{number:.4f}" for number in numbers)
        return f"{padded(label, wide)}{''.join(f'{its:>11}' for its in shown)}{count:>11}"

    header = "".join(f"{title:>11}" for title in ("precision", "recall", "F1", "support"))
    each = [*zip(scores.precision, scores.recall, scores.f1, strict=True)]
    shown = [j for j in range(len(labels)) if scores.occurs[j] or len(labels) <= MANY]
    lines = [f"{'class':{wide}}{header}"]
    lines += [line(labels[j], each[j], f"{scores.support[j]:,}") for j in shown]
    lines.append(line("macro average", scores.macro, f"{scores.n:,}"))
    if np.isnan([scores.precision, scores.recall, scores.f1]).any():
        lines.append("- is 0/0: 0 in the average, which leaves out classes that do not occur.")
    if left := len(labels) - len(shown):
        lines.append(f"{left:,} classes are neither labels here nor predicted.")
    if undecided := int(scores.undecided.sum()):
        lines.append(f"The output is nan for {plural(undecided, 'label')}, and predicts no class.")
    return "\n".join(lines)


def confusion_table(counts, names=()):
    """A confusion matrix (J, J) as text of at most 80 columns.

    Where it has more classes than fit, it is the most frequent confusions, a line each.
    """
    J = len(counts)
    column = 1 + max(len(str(counts.max(initial=0))), len(str(J - 1)))
    left = WIDTH - J * column
    if left < (12 if names else len(str(J))):
        return confusions(counts, names)
    labels = called(J, names, left)
    wide = max(map(columns, labels))
    column += wide + J * (column + 1) <= WIDTH
    lines = ["Confusion matrix: rows are true, columns predicted."]
    for label, row in zip(["", *labels], [range(J), *counts.tolist()], strict=True):
        lines.append(padded(label, wide) + "".join(f"{n:>{column}}" for n in row))
    return "\n".join(lines)


def confusions(counts, names=()):
    """The most frequent confusions, a line each, as text."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    if not (total := int(wrong.sum())):
        return "No label was taken for another."
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED]
    pairs = [divmod(k, len(counts)) for k in order.tolist() if wrong.flat[k]]
    labels = called(len(counts), names, 24)
    wide = max(len("predicted"), *(columns(labels[j]) for pair in pairs for j in pair)) + 2
    lines = [f"The most frequent of {total:,} confusions:"]
    lines.append(f"{'true':{wide}}{'predicted':{wide}}{'times':>10}{'of the class':>15}")
    for y, p in pairs:
        part = f"{100 * wrong[y, p] / counts[y].sum():.1f} %"
        confused = padded(labels[y], wide) + padded(labels[p], wide)
        lines.append(f"{confused}{wrong[y, p]:>10,}{part:>15}")
    return "\n".join(lines)
