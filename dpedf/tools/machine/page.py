"""The page that doctor prints: a table of facts, then measurements, then what to mend."""

from functools import partial
from textwrap import wrap

from dpedf.errors import grouped, plural
from dpedf.parallel.launcher import LAUNCHERS

WIDTH, LABEL = 80, 15  # of the page, and of the labels in its table
folded = partial(wrap, width=WIDTH, break_on_hyphens=False)


def facts_of(report):
    """The table: what is the same on all ranks stands there once, what differs by rank."""
    facts, lines = report["facts"], [title(report), ""]
    wide = len(grouped("rank", [*range(len(facts))])) + 2 if report["ranks"] > 1 else 0
    for label, tell in ROWS.items():
        said = {}
        for rank, its in enumerate(facts):
            said.setdefault(tell(its), []).append(rank)
        for text, ranks in said.items():
            who = f"{grouped('rank', ranks):{wide - 2}}  " if wide else ""
            left, blank = f"{label:{LABEL}}{who}", " " * (LABEL + wide)
            if text:
                lines += folded(text, initial_indent=left, subsequent_indent=blank)
                label = ""
    for note in [*report["notes"], *filter(None, [report["busy"]])]:
        blank = " " * LABEL
        lines += folded(note, initial_indent=f"{'note':{LABEL}}", subsequent_indent=blank)
    return "\n".join([*lines, ""])


def title(report):
    if "mpi" not in report["facts"][0]:
        return "dpedf doctor: one process, in which MPI has not started"
    return f"dpedf doctor: {plural(report['ranks'], 'rank')} on {plural(report['hosts'], 'host')}"


def cores(its):
    found, limits = its["cores"], [n for _, n in its["cores"]["quotas"]]
    text = f"{len(found['usable'])} of the machine's {found['machine']}"
    return text + (f", but no more than {min(limits):g} by the quota of a cgroup" if limits else "")


def binding(its):
    found = its["cores"]
    if not found["bindable"]:
        return "this system binds no process to cores"
    if len(found["usable"]) == found["machine"]:
        return "none: any core"
    return f"to {grouped('core', found['usable'])}"


def blas(its):
    text = ", ".join(its["blas"]) or "not known to threadpoolctl"
    if "threads" in its:
        count, why = its["threads"]["count"], its["threads"]["why"]
        text += f"; a run gives it {plural(count, 'thread')} ({why})"
    return text


def gpu(its):
    found = its.get("gpu")
    if found is None:
        return ""
    if not found["name"]:
        return f"none: {found['why_none']}"
    return f"{found['name']} ({found['place']}), products by {found['products']}"


def for_gpus(its):
    found = its.get("gpu")
    if found is None:
        return ""
    driver = f"NVIDIA driver {found['driver'] or ''}".rstrip()
    cuda = found["cuda"] and f"{driver} (CUDA {found['cuda']})"
    named = {"CuPy": found["cupy"], "NCCL": found["nccl"], "nvmath": found["nvmath"]}
    parts = [f"{name} {its}" if its else f"no {name}" for name, its in named.items()]
    return ", ".join([cuda or "no driver", *parts])


def mpi(its):
    found = its.get("mpi")
    if found is None:
        return ""
    if not found["library"]:
        return "none was found, so that there is one rank"
    package = f", of the Python package {found['package']}" if found["package"] else ""
    return f"{found['library']}{package}"


def mpi_path(its):
    found = its.get("mpi")
    return found["path"] or "not known" if found and found["library"] else ""


def cuda_aware(its):
    found = its.get("mpi")
    if not (found and found["library"]):
        return ""
    return {True: "yes", False: "no", None: "it does not say"}[found["cuda_aware"]]


def variables(its):
    """But for the number of the rank, where that is what it says."""
    rank = str(its.get("rank"))
    told = {
        name: value
        for name, value in its["variables"].items()
        if not (name in LAUNCHERS.values() and value == rank)
    }
    return ", ".join(f"{name} = {value}" for name, value in told.items()) or "none is set"


def also_set(its):
    names, most = its["also_set"], 5
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shared_memory(its):
    found = its["shared_memory"]
    if found["size"] is None:
        return f"{found['folder']}: {found['why']}"
    free, size = (in_bytes(found[name]) for name in ("free", "size"))
    return f"{free} free of {size} in {found['folder']}"


ROWS = {
    "host": lambda its: its["host"],
    "system": lambda its: its["os"],
    "Python": lambda its: its["python"],
    "dpedf": lambda its: its["dpedf"],
    "packages": lambda its: (
        f"NumPy {its['numpy']}, h5py {its['h5py']} with HDF5 {its['hdf5']}, "
        f"{'mpi4py ' + its['mpi4py'] if its['mpi4py'] else 'no mpi4py'}"
    ),
    "cores": cores,
    "binding": binding,
    "BLAS": blas,
    "GPU": gpu,
    "for GPUs": for_gpus,
    "MPI library": mpi,
    "  at": mpi_path,
    "  CUDA-aware": cuda_aware,
    "variables": variables,
    "also set": also_set,
    "shared memory": shared_memory,
}


def in_bytes(n):
    """64 KiB"""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while n >= 1000 and len(units) > 1:
        n /= 1024
        del units[0]
    return f"{n:.3g} {units[0]}"


def verdict_of(report):
    """What to mend first, and after it; nothing where all is well."""
    lines = []
    for number, its in enumerate(report["verdict"]):
        lines += ["", "To mend first:" if number == 0 else "Then:"]
        lines += folded(its["what"], initial_indent="  ", subsequent_indent="  ")
        lines.append(f"    {its['command']}")
    return "\n".join(lines)
