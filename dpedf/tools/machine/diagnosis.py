"""What to mend, judged from the facts and the measurements alone, with the command that does it.

A report holds ranks, hosts, launched (how many processes the launcher says), command
(on one rank), facts (of each rank, see facts.py) and measured (see measure.py).
"""

import os
from collections import Counter
from math import ceil
from shlex import quote

from dpedf.errors import grouped, plural
from dpedf.parallel.launcher import LAUNCHERS

SLOW_SUMS = 50  # times slower than memory is copied: ranks of a host do not share memory
LITTLE = 32 << 20  # bytes of shared memory, of which MPI and NCCL take some for each rank
BUSY = 0.5  # load by cores, from which on measurements say little of the machine itself
SLOWER = 0.9  # of the rate of the steps: rows that come with less keep them waiting
HERE = "python -m dpedf doctor"


def judge(report):
    """[{what, command}], the most important first."""
    checks = (
        launcher,
        no_library,
        wheel,
        unusable_gpus,
        shared_gpus,
        threads,
        shared_memory,
        refused,
        slow_data,
        slow_sums,
    )
    found = (check(report, report["facts"]) for check in checks)
    return [dict(zip(("what", "command"), its, strict=True)) for its in found if its]


def not_started(report):
    """The same, where MPI did not start, so that nothing is known of it."""
    variables = report["facts"][0]["variables"]
    size = next((f"{name} = {variables[name]}" for name in LAUNCHERS if name in variables), None)
    if not size:
        what = "MPI does not start, though no launcher is at work: this MPI library is broken"
        return [{"what": what, "command": "mpirun -n 1 python -c 'from mpi4py import MPI'"}]
    what = f"MPI does not start ({size}): the launcher is another MPI's, or a rank has stopped"
    command = "which -a mpirun mpiexec srun   # one is that of your MPI"
    if wheel := report["facts"][0]["wheel"]:
        command = f"{wheel['mpirun']} -n {report['launched']} python -m {report['command']}"
        command += f"   # of the Python package {wheel['package']}"
    return [{"what": what, "command": command}]


def launcher(report, facts):
    """The launcher started several processes, of which each believes that it is alone."""
    n, mpi, variables = report["launched"], facts[0]["mpi"], facts[0]["variables"]
    if report["ranks"] > 1 or n == 1:
        return None
    size = next(name for name in LAUNCHERS if int(variables.get(name, 1)) == n)
    if not mpi["library"]:
        what = f"{size} = {n}, but no MPI library was loaded, so that each process is alone"
        return what, install(facts)
    what = f"{size} = {n}, but {mpi['library']} sees one rank: launcher and library do not fit"
    if size.startswith("SLURM"):
        kind = "pmix" if "Open MPI" in mpi["library"] else "pmi2"
        return what, f"srun --mpi={kind} -n {n} {HERE}"
    return what, f"{mpi['mpirun'] or 'mpirun'} -n {n} {HERE}"


def no_library(report, facts):
    if facts[0]["mpi"]["library"] or report["launched"] > 1:
        return None
    if named := facts[0]["variables"].get("MPI4PY_LIBMPI"):
        what = f"MPI4PY_LIBMPI = {named} cannot be loaded: only one rank can run"
        return what, "unset MPI4PY_LIBMPI"
    missing = "mpi4py is not installed" if not facts[0]["mpi4py"] else "there is no MPI library"
    return f"{missing}: only one rank can run", install(facts)


def install(facts):
    if not facts[0]["mpi4py"]:
        return "pip install mpi4py"
    if facts[0]["scheduler"]:
        return "module load mpi   # or as `module avail` calls the MPI of this cluster"
    return 'pip install -e ".[mpich]"'


def wheel(report, facts):
    """A wheel's MPI knows neither the network nor the scheduler of a cluster."""
    package = next((its["mpi"]["package"] for its in facts if its["mpi"]["package"]), None)
    why = f"{facts[0]['scheduler']} is set" if facts[0]["scheduler"] else None
    if report["hosts"] > 1:
        why = f"there are {report['hosts']} hosts"
    if not (package and why):
        return None
    what = f"{why}, but the MPI library is the Python package {package}, made for one machine"
    return what, f"pip uninstall {package.split()[0]} && module load mpi   # the cluster's own"


def unusable_gpus(report, facts):
    gpus = [its["gpu"] for its in facts]
    bad = [k for k, gpu in enumerate(gpus) if gpu["asked"] and not gpu["name"] and is_there(gpu)]
    if not bad:
        return None
    gpu = gpus[bad[0]]
    who = f" on {grouped('rank', bad)}" if report["ranks"] > 1 else ""
    why = gpu["why_none"].partition("; it needs")[0].partition("; with one")[0]
    if not gpu["cuda"]:
        return f"{gpu['granted'][0]} grants a GPU that cannot be used{who}: {why}", "nvidia-smi"
    what = f"an NVIDIA driver is there, but no GPU can be used{who}: {why}"
    if gpu["cupy"] and "CUDARuntimeError" in why and "Driver" not in why:
        return what, "nvidia-smi   # what the driver itself says"
    return what, f'pip install -e ".[cuda{gpu["cuda"]}]"'


def is_there(gpu):
    """Is there a GPU, as far as one can know without using it?"""
    if not gpu["cuda"]:
        return gpu["granted"]
    return gpu["seen"] or gpu["granted"] or "NoDevice" not in gpu["why_none"]


def shared_gpus(report, facts):
    count = Counter(its["gpu"]["place"] for its in facts if its["gpu"]["place"])
    place, most = next(iter(count.most_common(1)), (None, 0))
    if most < 2:
        return None
    who = grouped("rank", [k for k, its in enumerate(facts) if its["gpu"]["place"] == place])
    return f"{who} share the GPU {place}", f"mpirun -n {len(count)} python -m {report['command']}"


def threads(report, facts):
    """More threads than cores, where all ranks that may use the same cores use all of theirs."""
    for sharing, n in limits(facts):
        asked = sum(its["threads"]["count"] for its in sharing)
        if asked <= n:
            continue
        host, each = sharing[0]["host"], sharing[0]["threads"]["count"]
        has = f"{n:g} core{'s' * (n != 1)} of {host}"
        count = plural(len(sharing), "rank")
        if len(sharing) <= n and each > 1:
            what = f"BLAS is oversubscribed: {count} of {each} threads on the {has}"
            fewer = f"run.threads={max(1, int(n / len(sharing)))}"
            return what, f"{started(report)}{report['command']} {fewer}"
        what = f"there are more ranks than cores: {count} on the {has}"
        fits = f"mpirun -n {max(1, int(n)) * report['hosts']} python -m {report['command']}"
        if sharing[0]["cores"]["quotas"] or len(sharing) > sharing[0]["cores"]["machine"]:
            return f"{what}, which works, but is slower than one rank a core", fits
        option = "--bind-to" if "Open MPI" in (facts[0]["mpi"]["library"] or "") else "-bind-to"
        freed = f"mpirun {option} none -n {report['ranks']} python -m {report['command']}"
        less = f"   # or -n {max(1, int(n)) * report['hosts']}, where no more cores are granted"
        return f"{what}, to which they are bound", freed + less
    return None


def limits(facts):
    """(the ranks that share them, how many cores they have together) of hosts and of cgroups."""
    for host in dict.fromkeys(its["host"] for its in facts):
        here = [its for its in facts if its["host"] == host]
        sets = [frozenset(its["cores"]["usable"]) for its in here]
        for usable in dict.fromkeys([*sets, frozenset().union(*sets)]):
            within = zip(here, sets, strict=True)
            yield [its for its, mine in within if mine <= usable], len(usable)
        for group, n in dict.fromkeys(tuple(q) for its in here for q in its["cores"]["quotas"]):
            yield [its for its in here if [group, n] in its["cores"]["quotas"]], n


def started(report):
    return f"mpirun -n {report['ranks']} python -m " if report["ranks"] > 1 else ""


def shared_memory(report, facts):
    needed = report["measured"].get("rows", {})
    for its in facts:
        there, sharing = its["shared_memory"], [f for f in facts if f["host"] == its["host"]]
        if len(sharing) == 1 or there["free"] is None:
            continue
        keeps = needed.get("bytes", 0) if needed.get("cache") == "memory" else 0
        least = max(keeps, LITTLE)
        if there["free"] < least:
            why = "data.cache = memory keeps all rows there"
            why = why if keeps > LITTLE else "the ranks of a host meet there"
            folder, mib = there["folder"], 1 << 20
            free, expected = there["free"] // mib, ceil(least / mib)
            what = f"{folder} has {free:,} MiB free, expected at least {expected:,}: {why}"
            if there["size"] >= least:
                return what, f"ls -lS {folder}   # what fills it"
            size = f"size={2 * expected}m"
            return what, f"mount -o remount,{size} {folder}   # or docker run --shm-size"
    return None


def refused(report, facts):
    """The data file cannot be read, or the config's model does not fit it."""
    for name in "rows", "steps":
        if why := report["measured"].get(name, {}).get("why"):
            what, _, recipe = why.partition(", make it with: ")
            if recipe.startswith("python"):
                return what, recipe
            file = report["measured"][name]["file"]
            edit = f"$EDITOR {quote(report['config'] or '')}"
            return why, edit if name == "steps" else f"ls -l {quote(file)}"
    return None


def busy(report):
    """A line for the user, where others are at work on a machine, which measurements then show."""
    for its in report["facts"]:
        load, machine = its["cores"]["load"], its["cores"]["machine"]
        if load > BUSY * machine:
            found = f"load {load:.1f} on the {plural(machine, 'core')} of {its['host']}"
            return f"{found}: others are at work there, which slows what is measured"
    return None


def slow_data(report, facts):
    """The data file gives fewer rows a second than the steps of the config take."""
    rows, steps = (report["measured"].get(name, {}) for name in ("rows", "steps"))
    if report["busy"] or not ("rows_per_second" in rows and "rows_per_second" in steps):
        return None
    given, taken = rows["rows_per_second"], steps["rows_per_second"]
    # A run reads a file that fits into memory once, so that cold rows are warm in its steps.
    cold = rows["fits_in_memory"] and (rows["warm"] is None or rows["warm"] < 1)
    if rows["cache"] != "none" or cold or given > SLOWER * taken:
        return None
    what = f"the data file gives {given:,.0f} rows/s, but the steps would take {taken:,.0f}"
    if rows["fits_in_memory"]:
        return what, f"{started(report)}{report['command']} data.cache=memory"
    file, name = quote(rows["file"]), quote(os.path.basename(rows["file"]))
    return what, f"cp {file} /tmp/{name}   # a disk of this machine; then data.file=/tmp/{name}"


def slow_sums(report, facts):
    """The ranks of one host add much slower than they copy, though each has a core."""
    sums, copies = (report["measured"].get(name) for name in ("sums", "copies"))
    if report["hosts"] > 1 or not (sums and copies):
        return None
    if report["busy"] or threads(report, facts):
        return None
    if any(its["gpu"]["name"] for its in facts):
        return None
    best = max(row["library"]["busbw"] for row in sums)
    if best * SLOW_SUMS > copies["bytes_per_second"]:
        return None
    what = f"sums over ranks move {best / 1e9:.2g} GB/s, but memory copies "
    what += f"{copies['bytes_per_second'] / 1e9:.2g}: MPI seems to use no shared memory"
    return what, "env | grep -E 'MPIR_CVAR|OMPI_MCA|FI_|UCX_'   # what may turn it off"
