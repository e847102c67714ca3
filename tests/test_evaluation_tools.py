"""What a classifier got right and wrong, counted, printed, and written for every row."""

import numpy as np
import pytest

from dpedf.run.scores import Scores, class_report, confusion_table, wilson

RANDOM = np.random.default_rng(0)


def counted(y, guess, J):
    """The counts of Scores, one label after the other."""
    counts = np.zeros((J, J + 1), np.int64)
    for true, taken in zip(y, guess, strict=True):
        counts[true, taken] += 1
    return counts


# Scores.


def test_scores_are_those_of_their_definitions():
    J, y, guess = 5, RANDOM.integers(0, 4, 90), RANDOM.integers(-1, 4, 90)
    guess[guess == 3] = 2  # 3 is never predicted, and 4 is no label either
    scores = Scores(counted(y, guess, J))
    for j in range(J):
        right = sum(t == p == j for t, p in zip(y, guess, strict=True))
        labels, guesses = (y == j).sum(), (guess == j).sum()
        parts = (right, guesses), (right, labels), (2 * right, guesses + labels)
        expected = [part / whole if whole else np.nan for part, whole in parts]
        found = scores.precision[j], scores.recall[j], scores.f1[j]
        np.testing.assert_array_equal(found, expected)
        assert scores.support[j] == labels
    assert scores.accuracy == (y == guess).mean() and scores.n == 90
    assert scores.undecided.sum() == (guess == -1).sum()
    means = np.nanmean([scores.precision, scores.recall, scores.f1], axis=1)
    np.testing.assert_allclose(scores.macro, means, rtol=1e-15)
    shown = class_report(scores).splitlines()
    assert shown[4].split() == ["3", "-", "0.0000", "0.0000", str((y == 3).sum())]
    assert shown[5].split() == ["4", "-", "-", "-", "0"]


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (348, 360), (1, 3)])
def test_the_interval_ends_where_a_normal_test_would_just_not_reject(right, n):
    for p in wilson(right / n, n):
        apart, width = abs(right / n - p), np.sqrt(p * (1 - p) / n)
        assert apart == pytest.approx(1.959963984540054 * width, abs=1e-7)


@pytest.mark.parametrize("J", [1, 2, 10, 26, 27, 65, 1000])
@pytest.mark.parametrize("n", [1, 10**4])
@pytest.mark.parametrize("named", [False, True])
def test_a_table_of_confusions_fits_a_terminal_and_has_all_or_the_most_frequent(J, n, named):
    counts = np.zeros((J, J), np.int64)
    np.add.at(counts, tuple(RANDOM.integers(0, J, (2, n))), 1)
    names = [f"a class\n of quite a long name {j}" for j in range(J)] if named else ()
    lines = confusion_table(counts, names).splitlines()
    assert max(map(len, lines)) <= 80
    if J <= 10:
        assert [line.split()[-J:] for line in lines[2:]] == counts.astype(str).tolist()
    wrong = counts - np.diag(counts.diagonal())
    if J >= 65 and wrong.any():
        assert len(lines) == 2 + min(10, (wrong > 0).sum()) and f"{wrong.sum():,}" in lines[0]
        assert f" {wrong.max():,} " in lines[2]
