"""The watchdog: a job in which no rank has been alive for run.timeout seconds ends, and says who
stands still.

MPI cannot say for which rank the others wait.  So a thread of each rank leaves its word in a small
file, and reads those of the others once its own rank has not been alive for half of the timeout.
The files lie in a folder of the host; with several hosts, they move to run.dir once it is claimed.
"""

import faulthandler
import json
import os
import sys
import time
from collections import namedtuple
from contextlib import suppress
from math import inf
from pathlib import Path
from shutil import rmtree
from tempfile import gettempdir, mkdtemp
from threading import Thread, main_thread

from dpedf.errors import grouped
from dpedf.parallel.ending import end, forget
from dpedf.parallel.launcher import launched

# How often it was left, for how many seconds the rank has not been alive, and since which step;
# where its main thread is, and whether it waits for other ranks there.
Word = namedtuple("Word", "number quiet step place waits")
PARALLEL, LIBRARY = (str(Path(file).parent) + os.sep for file in (__file__, os.__file__))
PREFIX, DAY = "dpedf-ranks-", 24 * 3600
GRACE = 3  # seconds that a rank leaves to the one that is to speak before it


def watch(ranks):
    """From now on, watch these ranks instead of those of an earlier job of this process."""
    faulthandler.cancel_dump_traceback_later()  # of signals.listen
    ranks.alive()
    if ranks.size > 1:
        ranks.words = ranks.host.bcast(new_folder() if ranks.host_rank == 0 else None)
    Watchdog.of_this_process = Watchdog(ranks)
    Watchdog.of_this_process.start()


def new_folder():
    """A folder for the words of a host's ranks; None, where no disk can be written.

    The ranks then know nothing of each other.  What jobs left that were killed goes after a day.
    """
    try:
        for old in Path(gettempdir()).glob(f"{PREFIX}*"):
            with suppress(FileNotFoundError):  # another job removes it
                if time.time() - old.stat().st_mtime > DAY:
                    rmtree(old, ignore_errors=True)
        return mkdtemp(prefix=PREFIX)
    except OSError:
        return None


def leave_words_in(directory, ranks):
    """Leave them where other hosts see them, if there are any."""
    if ranks.hosts > 1:
        if ranks.host_rank == 0:
            forget(ranks)
        ranks.words = os.path.join(directory, ".ranks")
        if ranks.rank == 0:
            rmtree(ranks.words, ignore_errors=True)  # of a job that was killed
            try:
                os.mkdir(ranks.words)
            except OSError:  # a full disk: ranks know nothing of each other
                ranks.words = None


class Watchdog(Thread):
    """Watches a rank.

    since: when it began to, or found that it had stood still itself, as after Ctrl-Z.
    seen: {rank: (the number of its last word, when that was new here)}
    """

    of_this_process = None

    def __init__(self, ranks):
        super().__init__(name="watchdog", daemon=True)
        self.ranks, self.number, self.seen = ranks, 0, {}
        self.since = self.looked = time.monotonic()
        self.parent = os.getppid() if launched() else None
        self.left = -inf  # when, its last word

    def run(self):
        while Watchdog.of_this_process is self:
            self.look(time.monotonic())
            time.sleep(self.interval)

    @property
    def interval(self):
        return min(0.2, max(0.01, self.ranks.timeout / 20))

    def look(self, now):
        """Leave a word; end the job if no rank is alive any more, or its launcher has died."""
        timeout = self.ranks.timeout
        if self.parent not in (None, os.getppid()):
            end(self.ranks, 1, f"rank {self.ranks.rank}: the launcher of this job has ended")
        if now - self.looked > self.interval + timeout / 2:
            self.since, self.seen = now, {}
        self.looked, mine = now, self.word(now)
        if now - self.left >= min(1, timeout / 20):
            self.leave(mine)
            self.left = now
        if mine.quiet < timeout / 2:
            self.seen.clear()
            return
        words, stopped = self.read(now)
        words[self.ranks.rank] = mine
        if all(rank in stopped or word.quiet >= timeout for rank, word in words.items()):
            self.judge(words, stopped)

    def judge(self, words, stopped):
        """No rank is alive: end the job, if it is this rank's turn to say so."""
        ranks, timeout = self.ranks, self.ranks.timeout
        busy = [rank for rank, word in words.items() if not word.waits and rank not in stopped]
        unknown = sorted({*range(ranks.size)} - {*words})
        culprits = sorted(stopped) or busy or unknown or [*words]
        turn = sorted(words, key=lambda rank: (rank in culprits, rank)).index(ranks.rank)
        patience = GRACE * min(2, turn)
        if unknown and not (stopped or busy):  # one of them may stand still, and will say so
            patience += timeout / 2
        if words[ranks.rank].quiet >= timeout + patience:
            lines = verdict(words, stopped, culprits, unknown)
            end(ranks, 1, f"no rank was alive for {timeout:g} seconds: {lines}")

    def word(self, now):
        """This rank's."""
        self.number += 1
        quiet = now - max(self.ranks.last_alive, self.since)
        return Word(self.number, quiet, self.ranks.step, *place())

    def leave(self, word):
        if self.ranks.words:
            file = os.path.join(self.ranks.words, str(self.ranks.rank))
            try:
                Path(f"{file}.new").write_text(json.dumps(word))
                os.replace(f"{file}.new", file)
            except OSError:  # a full disk, or the job is ending
                return

    def read(self, now):
        """{rank: its word} of the others that left one, and {those that leave no new one}."""
        words, stopped = {}, set()
        for rank in range(self.ranks.size) if self.ranks.words else ():
            try:
                word = Word(*json.loads(Path(self.ranks.words, str(rank)).read_text()))
            except (OSError, ValueError, TypeError):
                continue
            if self.seen.get(rank, (None, now))[0] != word.number:
                self.seen[rank] = word.number, now
            words[rank] = word
            if now - self.seen[rank][1] > max(3 * self.interval, self.ranks.timeout / 4):
                stopped.add(rank)
        return words, stopped


def place():
    """("model.py:7 forward", False): where the main thread is; does it wait for ranks there?"""
    frame = sys._current_frames().get(main_thread().ident)
    while frame and frame.f_back and of_python(frame.f_code.co_filename):
        frame = frame.f_back
    if not frame:
        return "no place", False
    file = frame.f_code.co_filename
    return f"{file}:{frame.f_lineno} {frame.f_code.co_name}", file.startswith(PARALLEL)


def of_python(file):
    """Is it of Python's own library, such as threading.py?"""
    return file.startswith("<frozen") or (file.startswith(LIBRARY) and "-packages" not in file)


def verdict(words, stopped, culprits, unknown):
    """Who stands still, at which step and where; and since which step the others wait."""
    said = {}
    for rank in sorted({*words, *unknown}):
        if rank in unknown:
            what = "without a word"
        else:
            word = words[rank]
            since = f"since step {word.step}" if word.step else "before its first step"
            if rank in stopped:
                what = f"not running (stopped, or held by a library) {since}, last in {word.place}"
            elif rank in culprits and not word.waits:
                what = f"standing still {since} in {word.place}"
            else:
                what = f"waiting for others {since}" + f" in {word.place}" * (rank in culprits)
        said.setdefault((rank not in culprits, what), []).append(rank)
    return "; ".join(f"{grouped('rank', who)} {what}" for (_, what), who in sorted(said.items()))
