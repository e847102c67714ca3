"""The measurements as lines of the page that doctor prints."""

from dpedf.errors import plural
from dpedf.tools.machine.page import folded, in_bytes

BROAD = 22  # of the labels


def in_seconds(t):
    """1.2 ms"""
    for unit, size in ("s", 1), ("ms", 1e-3):
        if t >= size:
            return f"{t / size:.3g} {unit}"
    return f"{t / 1e-6:.3g} us"


def line(label, text):
    """A measurement: what was measured, and what was found."""
    blank = " " * BROAD
    return "\n".join(folded(text, initial_indent=f"{label:{BROAD}}", subsequent_indent=blank))


def copies_of(found, report):
    each = " on each rank with all at once" if report["ranks"] > 1 else ""
    return line("copies in memory", f"{found['bytes_per_second'] / 1e9:.3g} GB/s{each}")


def products_of(found, report):
    lines = []
    for row in found:
        text = f"{row['alone'] / 1e9:,.0f} GFLOP/s"
        if report["ranks"] > 1:
            text += f" on rank 0 alone, {row['each'] / 1e9:,.0f} on each with all at once"
        lines.append(line(f"products {row['n']} x {row['n']}", text))
    return "\n".join(lines)


def sums_of(found, report):
    """As nccl-tests prints them."""
    ways = [way for way in found[0] if way != "bytes"]
    names = {"run": "in a tree, as a run with slices", "library": f"by {report['library']} itself"}
    lines = [
        "",
        f"{'sums over ranks':<16}" + "".join(f"{names[way]:>32}" for way in ways),
        f"{'':16}" + f"{'time':>12}{'algbw':>10}{'busbw':>10}" * len(ways),
    ]
    for row in found:
        text = f"{in_bytes(row['bytes']):>16}"
        for way in ways:
            algbw, busbw = (row[way][name] / 1e9 for name in ("bytes_per_second", "busbw"))
            text += f"{in_seconds(row[way]['seconds']):>12}{algbw:>10.3g}{busbw:>10.3g}"
        lines.append(text)
    lines += [
        "GB/s as in nccl-tests: algbw is size / time; busbw is what each rank would",
        "send a second if it sent the least that a sum needs",
    ]
    return "\n".join([*lines, ""])


def rows_of(found, report):
    if "why" in found:
        return line("rows of the file", found["why"])
    share, known = found["warm"], "warm or cold is not known here"
    if share is not None:
        known = f"{100 * share:.0f} % of the file was in memory"
    rate = f"{found['rows_per_second']:,.0f} rows/s in shuffled order; {known}"
    return line("rows of the file", rate)


def steps_of(found, report):
    if "why" in found:
        return line("steps of training", found["why"])
    rate, time = f"{found['rows_per_second']:,.0f} rows/s", in_seconds(found["seconds"])
    return line("steps of training", f"{rate}: {time} for {plural(found['rows'], 'row')}")


MEASURED = {
    "copies": copies_of,
    "products": products_of,
    "sums": sums_of,
    "rows": rows_of,
    "steps": steps_of,
}


def left_out(report):
    """What was not measured, and how it is."""
    lines, asked = [], report["measured"]
    if "sums" not in asked:
        lines.append(line("sums over ranks", "none with one rank; mpirun -n 2 measures them"))
    if "rows" not in asked:
        text = "not asked for: a CONFIG, or --data FILE, names it"
        lines.append(line("rows of a file", text))
    elif "steps" not in asked and "why" not in asked["rows"]:
        lines.append(line("steps of training", "not asked for: a CONFIG says of which model"))
    return "\n".join(lines)
