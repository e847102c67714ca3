"""Show and measure what a run works with, and say what to mend first:

    dpedf doctor configs/mnist.toml
    mpirun -n 4 python -m dpedf doctor configs/mnist.toml

Without CONFIG no steps of training are measured, and without CONFIG or --data no file is read.
The page can be pasted whole into a question.
"""

import json
import os
import shlex
import signal
import time
from contextlib import closing
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from dpedf import __version__
from dpedf.device import CPU
from dpedf.errors import AgreedError, open_streams, print_line
from dpedf.parallel import launcher
from dpedf.parallel.ending import end
from dpedf.parallel.job import described
from dpedf.parallel.links import link_between
from dpedf.parallel.observer import Observer
from dpedf.parallel.ranks import Ranks
from dpedf.run import config
from dpedf.run.command_line import Parser
from dpedf.run.settings.sections import Config, DataSection, TrainSection
from dpedf.tools.machine import diagnosis, facts, measure, measured, page

# Seconds after which a step hangs: a short one, one that loads libraries or files, and training.
STEP, LOAD, TRAIN = 30, 60, 180


def main(words):
    parser = Parser("dpedf doctor", __doc__)
    parser.add_config(needed=False)
    add = parser.add_argument
    add("--data", metavar="FILE", help="the data file whose rows are read")
    add("--json", action="store_true", help="print one JSON object instead")
    args = parser.read(words)
    open_streams()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a library may hold the lock of Python
    doctor = Doctor(args)
    if args.json:
        os.dup2(2, 1)  # where libraries print, as NCCL_DEBUG has NCCL do
    ranks = doctor.examine()
    if args.json:
        os.dup2(doctor.stdout, 1)
        if doctor.speaks:
            print_line(json.dumps(doctor.report))
    doctor.observer.leave(ranks.size > 1)


def settings_of(args):
    """The Config that is asked about: without CONFIG, of no model.  UserError: it is wrong."""
    if args.config:
        data = [f"data.file={json.dumps(args.data)}"] if args.data else []
        return config.load(args.config, [*args.settings, *data])
    train = TrainSection(batch_size=256, learning_rate=0.0)
    return Config(DataSection(args.data or "none"), {}, train)


class Doctor:
    """Examines this rank together with the others, a step after the other, under observation.

    report: all that is known, as --json prints it.
    """

    def __init__(self, args):
        self.args, self.settings = args, settings_of(args)
        self.gathered = self.ended = False  # are the facts of all ranks known?  Is the verdict?
        self.speaks, size = launcher.speaks(), launcher.size()
        words = ["train", args.config, *args.settings] if args.config else ["doctor"]
        self.report = {
            **{"dpedf": __version__, "command": shlex.join(["dpedf", *words]), "launched": size},
            **{"config": args.config or None, "data": args.data},
            **{"ranks": 1, "hosts": 1, "facts": [facts.of_process()], "notes": []},
            **{"library": None, "busy": None, "measured": {}, "verdict": []},
        }
        self.stdout = os.dup(1)  # where --json prints; libraries get another one
        self.observer = Observer(self.named(launcher.rank(), size), self.known)

    def named(self, rank, size):
        return f"rank {rank} ({self.report['facts'][0]['host']})" if size > 1 else ""

    def known(self, why):
        """What is left to print on stdout, if this is why all ends here."""
        report, mine = self.report, self.report["facts"][0]
        if self.ended or not self.speaks:
            return ""
        if "mpi" not in mine:
            report = report | {"verdict": diagnosis.not_started(report)}
        elif self.gathered:
            report = report | {"verdict": diagnosis.judge(report)}
        if self.args.json:
            return json.dumps(report | {"error": why})
        table = "" if self.gathered else page.facts_of(report)
        return table + page.verdict_of(report)

    def show(self, text):
        if self.speaks and not self.args.json:
            print_line(text)

    def examine(self):
        """The ranks, after all was said."""
        self.observer.step("starting MPI", STEP, launcher.size() > 1)
        ranks = Ranks()
        try:
            if ranks.size > 1:
                self.speaks = ranks.rank == 0
                self.observer.name = self.named(ranks.rank, ranks.size)
            ranks.say = self.report["notes"].append
            self.gather(ranks)
            self.report["verdict"] = diagnosis.judge(self.report)
            self.show(page.verdict_of(self.report) or "\nNothing to mend.")
            self.ended = True
        except BaseException as error:
            why = described(ranks, error)
            time.sleep(min(2 * ranks.rank, 10))  # a lower rank that fails too speaks, and ends all
            self.speaks = True
            if known := self.known(why):
                os.dup2(self.stdout, 1)
                print_line(known)
            end(ranks, 1, why)
        return ranks

    def gather(self, ranks):
        """Fill the report, and show it as it grows."""
        several, report, mine = ranks.size > 1, self.report, self.report["facts"][0]
        mine |= facts.of_mpi(ranks)
        self.observer.step("looking for a GPU", LOAD)
        found, device = facts.with_device(self.settings, ranks, ranks.say)
        self.observer.step("gathering the facts of all ranks", STEP, several)
        mine |= found | facts.of_threads(self.settings, ranks)
        if len(set(ranks.gather(device.unit))) > 1:
            device.close()
            device = CPU("a GPU on some of the ranks alone")
        link = link_between(ranks, device)
        report |= {"ranks": ranks.size, "hosts": ranks.hosts, "facts": ranks.gather(mine)}
        self.gathered = True
        report["busy"] = diagnosis.busy(report)
        report["library"] = "NCCL" if hasattr(link, "nccl") else "MPI"
        self.show(page.facts_of(report))
        with (
            closing(device),
            threadpool_limits(mine["threads"]["count"], "blas"),
            np.errstate(all="ignore"),
        ):
            for name, (what, limit, work) in self.measurements(device, link, ranks).items():
                if "why" in report["measured"].get("rows", {}):
                    break  # no steps without rows, for the same reason
                self.observer.step(what, limit, several)
                try:
                    report["measured"][name] = work()
                except AgreedError as error:
                    report["measured"][name] = {"why": str(error), "file": self.settings.data.file}
                self.show(measured.MEASURED[name](report["measured"][name], report))
        if left := measured.left_out(report):
            self.show(left)

    def measurements(self, device, link, ranks):
        """{name: (what is done, within how many seconds, a function that does it)}"""
        settings, path, file = self.settings, self.args.config, self.settings.data.file
        work = partial(measure.copies, device, ranks)
        found = {"copies": ("copying memory", STEP, work)}
        if ranks.size > 1:
            work = partial(measure.sums, link, device, ranks, settings.train.slices)
            found["sums"] = "summing over ranks", STEP, work
        found["products"] = "multiplying matrices", STEP, partial(measure.products, device, ranks)
        if path or self.args.data:
            found["rows"] = f"reading {file}", LOAD, partial(measure.rows, settings, device, ranks)
        if path:
            work = partial(measure.steps, settings, path, device, link, ranks)
            found["steps"] = f"measuring a step of {path}", TRAIN, work
        return found
