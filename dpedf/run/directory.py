"""The directory of a run: who may write there, its metrics, and what it goes on from."""

import os
from contextlib import suppress
from math import inf
from pathlib import Path
from weakref import finalize

from dpedf.data.disk import create, no_link, replace, sync, writing
from dpedf.errors import RunError, UserError, concerning, one_line, print_error
from dpedf.run import config, metrics
from dpedf.run.checkpoint import DamagedError, install, read, save
from dpedf.run.lock import LOCK, take
from dpedf.run.tensorboard import EventFile, event_files

CHECKPOINT, BEST, METRICS, FAILURE = "checkpoint.h5", "best.h5", "metrics.jsonl", "failure.txt"
PREVIOUS = {CHECKPOINT: "checkpoint.previous.h5", BEST: "best.previous.h5"}
DROPPED = "best.dropped.h5"
FILES = CHECKPOINT, *PREVIOUS.values(), BEST, DROPPED, "config.toml", METRICS, FAILURE


class RunDirectory:
    """The directory of a live run.  Rank 0 alone reads and writes it.

    given: as the user wrote it; path: where it is, wherever the process goes later.
    identity: what the run is, an Identity of resume.py.
    source: the checkpoint that the run goes on from, or None.  notes: lines on what was found.
    best: the file of the best step so far, None where it is lost.  best_is_kept: is it the one
    that the newest checkpoint knows of?  Then it is kept until the next checkpoint, for a run that
    goes on from this one.
    """

    def __init__(self, path, ranks, identity=None):
        self.given = self.path = Path(path)
        with suppress(OSError):  # not everybody may come here from the root
            os.stat(os.getcwd())
            self.path = self.path.absolute()
        self.writes, self.identity = ranks.rank == 0, identity
        self.source, self.notes = None, []
        self.lock, self.metrics, self.told = None, None, 0  # told: events, but for that of the test
        self.event_file = None  # for TensorBoard, if run.tensorboard asks for it
        self.begun = False
        self.best, self.best_is_kept = BEST, True

    def claim(self, may_hold_a_run):
        """Make the directory ours.  UserError: it holds a run, or a live job writes there."""
        if not self.writes:
            return
        lock = self.path / LOCK
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if lock.is_symlink():
                raise UserError(
                    f"{self.given / lock.name}: a link, expected a file of the run itself"
                )
            self.lock = open(lock, "r+b", 0, opener=create)  # locked as long as it is open
            finalize(self, self.lock.close)
        except OSError as error:
            raise UserError(
                f"{self.given}: {one_line(error)}, expected a writable directory"
            ) from None
        try:
            take(self.lock)
        except BlockingIOError:
            raise UserError(f"{self.given}: a live job trains there, expected none") from None
        except OSError as error:  # as on many shared file systems
            print_error(f"{self.given}: {one_line(error)}: nothing would keep a second job away")
        for name in (*FILES, *(f"{name}.unfinished" for name in FILES)):
            if (self.path / name).is_dir():
                raise UserError(f"{self.given / name}: a directory, expected a file or nothing")
        if not may_hold_a_run and self.held():
            another = f"run.dir={self.given.parent / 'NAME'} makes another"
            how = f"--resume goes on with it, --overwrite replaces it, {another}"
            raise UserError(f"{self.given}: holds a run, expected none; {how}")

    def held(self):
        """The files of a run that are there, a link that leads nowhere among them."""
        return [name for name in FILES if os.path.lexists(self.path / name)]

    def resume(self, phi):
        """Set phi from the newest whole checkpoint, and return the rest of its state.

        {} where there is no run.  "tested" in the state: did the run come to its end?
        UserError: there is a run, but it cannot go on.
        """
        held = self.held() if self.writes else []
        if not held or {*held} == {"config.toml", FAILURE}:  # it failed before it began
            return {}
        for name in held:
            if not (self.path / name).exists():
                raise UserError(f"{self.given / name}: a link to nothing, expected a file")
        if CHECKPOINT not in held:
            found = f"no {CHECKPOINT} beside {', '.join(held)}, expected one to resume from"
            older = PREVIOUS[CHECKPOINT]
            rename = f"{older} under that name, " if older in held else ""
            raise UserError(f"{self.given}: {found}, {rename}or --overwrite")
        self.source, found = self.newest()
        with concerning(self.source):
            self.notes += self.identity.compare(found["rest"])
        state = install(self.source, found, phi)
        self.find_best(state)
        events, bad = self.events()
        kept, told = metrics.before(events, state["step"]), state.pop("events", None)
        if told not in (None, len(kept)):
            at = f"events up to step {state['step']:,}"
            bad.append(f"{self.given / METRICS}: {len(kept):,} {at}, expected {told:,}")
        self.notes += bad
        tested = ("test", state["step"]) in [(e["event"], e["step"]) for e in events]
        return state | {"source": str(self.source), "tested": tested}

    def newest(self):
        """(path, what it holds) of checkpoint.h5, or if that is damaged, of the one before it."""
        newest, older = self.path / CHECKPOINT, self.path / PREVIOUS[CHECKPOINT]
        try:
            return newest, read(newest)
        except DamagedError as error:
            if not older.exists():
                raise
            try:
                found = read(older)
            except UserError as another:
                raise UserError(f"{error}; {another}") from None
            self.notes.append(f"{newest}: damaged, so {older} is taken, the one before it")
            return older, found

    def find_best(self, state):
        """Which file holds the best step that this state knows of?  Where it is lost, say so."""
        known = state.get("best_step", 0), state.get("best", inf)
        for name in BEST, PREVIOUS[BEST]:
            with suppress(UserError):
                rest = read(self.path / name)["rest"]
                if (rest.get("step"), rest.get("best")) == known:
                    self.best = name
                    return
        self.best = None
        if known[0]:
            for name in "best", "best_step", "since_best":
                state.pop(name, None)  # the next evaluation is the best one then
            found = f"not that of step {known[0]:,}, the best one so far"
            self.notes.append(f"{self.given / BEST}: {found}; the next evaluation begins anew")

    def events(self):
        """(the events of metrics.jsonl, lines on what else stands there)."""
        file = self.path / METRICS
        try:
            return metrics.read(file)
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise UserError(f"{file}: {one_line(error)}, expected the metrics of a run") from None

    def begin(self, settings, step, save=lambda: None):
        """Write config.toml, and keep the metrics up to this step.

        At step 0, save() is called, which is to save the first checkpoint; where the run does not
        go on from one, all files of an earlier run are gone by then.
        """
        if self.writes:
            with writing(self.given):
                self.take_up() if self.source or step else self.clear()
        if step == 0:
            save()
        if self.writes:
            kept = metrics.before(self.events()[0], step)
            self.write("config.toml", config.text(settings))
            self.write(METRICS, "".join(map(metrics.line, kept)))
            with writing(self.given / METRICS):
                self.metrics = open(self.path / METRICS, "a", buffering=1, opener=no_link)
                finalize(self, close, self.metrics)
            self.told = len(kept)
            if settings.run.tensorboard:
                self.event_file = EventFile(self.path, kept)
            else:  # those that stopped where the run did would look like all of it
                with writing(self.given):
                    for file in event_files(self.path):
                        file.unlink()
        self.begun = True

    def clear(self):
        """Remove a run, its checkpoints first, so that a part of it cannot be resumed."""
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)
            sync(self.path)
        for file in event_files(self.path):
            file.unlink()

    def take_up(self):
        """Give the files that the run goes on from their names."""
        (self.path / FAILURE).unlink(missing_ok=True)
        if self.source == self.path / PREVIOUS[CHECKPOINT]:
            self.source.replace(self.path / CHECKPOINT)
        best = self.path / BEST
        if self.best == PREVIOUS[BEST]:
            (self.path / self.best).replace(best)
        elif self.best is None and best.exists():
            best.replace(self.path / DROPPED)

    def write(self, name, text):
        with writing(self.given / name):
            replace(self.path / name, text.encode())

    def leave_word(self, error):
        """Keep in failure.txt which error has ended the run, once it had begun.

        It goes as soon as the run goes on.  What every rank raises, rank 0 alone writes.
        """
        agreed = getattr(error, "agreed", False)
        if self.begun and isinstance(error, Exception) and (self.writes or not agreed):
            kind = "" if isinstance(error, UserError | RunError) else f"{type(error).__name__}: "
            line = " ".join(f"{kind}{error}".split())
            with suppress(OSError):  # a full disk, say; what counts is the error itself
                replace(self.path / FAILURE, f"{line}\n".encode(errors="backslashreplace"))

    def close(self):
        """Let another job have the directory."""
        for file in filter(None, (self.metrics, self.lock)):
            file.close()

    def save(self, name, phi, **state):
        """Save checkpoint.h5 or best.h5; with a checkpoint, the events so far are safe as well."""
        if not self.writes:
            return
        if name == CHECKPOINT and self.metrics:
            with writing(self.given / METRICS):
                os.fsync(self.metrics.fileno())
            if self.event_file:
                self.event_file.sync()
        keeps = name == CHECKPOINT or self.best_is_kept
        previous = self.path / PREVIOUS[name] if keeps else None
        texts = self.identity.texts() if self.identity else {}
        with writing(self.given / name):
            save(self.path / name, phi, previous=previous, events=self.told, **texts, **state)
        self.best_is_kept = name == CHECKPOINT

    def event(self, kind, **values):
        """Append one line to metrics.jsonl, and its numbers to the event file, if there is one."""
        if not self.writes:
            return
        event = {"event": kind, **values}
        with writing(self.given / METRICS):
            self.metrics.write(metrics.line(event))
        self.told += kind != "test"
        if self.event_file:
            self.event_file.add(event)


def close(file):
    """Close a file.  That its disk is full was said when it was written."""
    with suppress(OSError):
        file.close()
