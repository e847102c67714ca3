"""The program that a loss stands for, as source code: an assignment a line.

McAllester calls it that rather than a graph; it is a Wengert list.  Each node gives its equation,
which stands in its docstring (grammar.py), in the names of the program:

    z1[b,j] = sum_i x[b,i] Phi1.w[i,j] - Phi1.b[j]
"""

from itertools import count, zip_longest
from textwrap import wrap

from dpedf.edf import Node, Package, Parameters
from dpedf.errors import UserError
from dpedf.phi import name_parameters
from dpedf.program import held, inputs_of, program
from dpedf.source.statements import Statement, statements

WIDTH = 84  # of the code, in characters


def listing(loss, **named):
    """The statements of a loss and its gradient, as text: listing(f, x1=x1, x2=x2).

    named: nodes and packages; computed nodes are z1, z2, ..., the loss is ell, and other inputs
    and parameters are x1, Phi1 and the like.  UserError: two things have one name.
    """
    made = statements(loss, naming(loss, **named))
    return "\n".join(line for s in made for line in (s.text, *(f"    {t}" for t in s.steps)))


def naming(loss, **named):
    """{node: its name} for all nodes of a program."""
    nodes, names = program(loss).nodes, {}
    for name, thing in named.items():
        if isinstance(thing, Package):
            names |= {p: f"{name}.{key}" for key, p in vars(thing).items() if p in held(thing)}
        elif isinstance(thing, Node):
            names[thing] = name
        else:
            raise UserError(f"{name} = {thing!r}, expected a node or a package to be named")
    parameters = Parameters(loss) + program(loss).frozen
    name_parameters(parameters)
    known = program(loss).names | {p: p.name for p in parameters} | names
    free = (name for name in map("x{}".format, count(1)) if name not in known.values())
    for node in (i for n in nodes for i in inputs_of(n) if i not in known):
        known[node] = f"{node.value:g}" if isinstance(node.value, float) else next(free)
    taken = [name for node, name in known.items() if not isinstance(node.value, float)]
    for name in taken:
        if taken.count(name) > 1:
            raise UserError(f"two things are named {name}, expected a name for each")
    return known


def page(sections, times=None):
    """Lines of columns, with a title before each section and the whole step at the end.

    sections: {title: Statements}; times: {Statement: seconds}.
    """
    timed, numbers = ["ms", "share", "GFLOP/s"] if times else [], count(1)
    rows, seconds = [[" " * 4, "", "shape", "bytes", "flop", *timed]], times and sum(times.values())
    whole = Statement(None, None, "all of these", (), 0, 0)
    for title, made in sections.items():
        rows.append(["", title])
        for s in made:
            whole.bytes += s.bytes or 0
            whole.operations += s.operations or 0
            first, *others = folded(s.text, *(f"    {step}" for step in s.steps))
            rows.append([str(next(numbers)), first, *cells(s, times and times.get(s), seconds)])
            rows += [["", other] for other in others]
    rows.append(["", whole.text, *cells(whole, seconds, seconds)])
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    columns = [f"{'<' if k in (1, 2) else '>'}{width}" for k, width in enumerate(widths)]
    for row in rows:
        yield "  ".join(map(format, row, columns)).rstrip()


def cells(s, took, seconds):
    """What stands beside a Statement that took so long, in a step of so many seconds."""
    found = [s.shape, scaled(s.bytes), scaled(s.operations)]
    if took is not None:
        rate = f"{s.operations / took / 1e9:.1f}" if s.operations and took else ""
        found += [f"{1e3 * took:.3f}", f"{took / seconds:.1%}", rate]
    return found


def folded(*texts):
    """Lines of code, broken at blanks if they are too long."""
    for text in texts:
        indent = text[: -len(text.lstrip())] + "    "
        yield from wrap(text, WIDTH, subsequent_indent=indent)


def scaled(n):
    """1234567 as 1.23 M; nothing for None."""
    if n is None:
        return ""
    units = ["", " k", " M", " G", " T"]
    while n >= 999.5 and len(units) > 1:
        n, units = n / 1000, units[1:]
    return f"{n:.3g}{units[0]}"
