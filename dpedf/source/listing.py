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
from dpedf.source.statements import Statement, backward, forward

WIDTH = 84  # of the code, in characters


def listing(loss, **named):
    """The statements of a loss and its gradient, as text: listing(f, x1=x1, x2=x2).

    named: nodes and packages; computed nodes are z1, z2, ..., the loss is ell, and other inputs
    and parameters are x1, Phi1 and the like.  UserError: two things have one name.
    """
    names = naming(loss, **named)
    statements = [*forward(loss, names), *backward(loss, names)]
    return "\n".join(line for s in statements for line in (s.text, *(f"    {t}" for t in s.steps)))


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
    name_parameters(Parameters(loss))
    known = program(loss).names | {p: p.name for p in Parameters(loss)} | names
    free = (name for name in map("x{}".format, count(1)) if name not in known.values())
    for node in (i for n in nodes for i in inputs_of(n) if i not in known):
        known[node] = f"{node.value:g}" if isinstance(node.value, float) else next(free)
    taken = [name for node, name in known.items() if not isinstance(node.value, float)]
    for name in taken:
        if taken.count(name) > 1:
            raise UserError(f"two things are named {name}, expected a name for each")
    return known


def page(sections, seconds=None, times=None):
    """Lines of columns, a title before each section, and the whole step at the end.

    sections: {title: Statements}; seconds: of a step; times: {Statement: seconds}.
    """
    heads = ["shape", "bytes", "flop", *["ms", "share", "GFLOP/s"] * bool(times)]
    rows, whole, numbers = [("", "", heads)], Statement(None, None, "", (), 0, 0), count(1)
    for title, statements in sections.items():
        rows.append(("", title, ()))
        for s in statements:
            whole.bytes += s.bytes or 0
            whole.operations += s.operations or 0
            line, *others = folded(s.text, *(f"    {step}" for step in s.steps))
            rows.append((next(numbers), line, cells(s, seconds, times and times.get(s))))
            rows += [("", other, ()) for other in others]
    total = times and sum(times.values())
    return aligned([*rows, ("", "all of these", cells(whole, seconds, total))])


def cells(s, seconds, took):
    """What stands beside a Statement that took so long, a part of a step of so many seconds."""
    found = [s.shape, scaled(s.bytes), scaled(s.operations)]
    if took is not None:
        rate = f"{s.operations / took / 1e9:.1f}" if s.operations and took else ""
        found += [f"{1e3 * took:.3f}", f"{took / seconds:.1%}", rate]
    return found


def folded(*texts):
    """Lines of code as lines that are not too long, where they have blanks."""
    for text in texts:
        indent = text[: -len(text.lstrip())] + "    "
        yield from wrap(text, WIDTH, subsequent_indent=indent)


def aligned(rows):
    """Lines of (number, code, cells): code and shapes begin at one column, numbers end at one."""
    code = max(len(line) for _, line, _ in rows)
    widths = [max(map(len, column)) for column in zip_longest(*(c for *_, c in rows), fillvalue="")]
    for number, line, (shape, *others) in ((n, line, c or ("",)) for n, line, c in rows):
        right = "".join(f"  {cell:>{w}}" for cell, w in zip(others, widths[1:], strict=False))
        yield f"{number:>4}  {line:{code}}  {shape:{widths[0]}}{right}".rstrip()


def scaled(n):
    """1234567 as 1.23 M; nothing of None."""
    if n is None:
        return ""
    for unit in "", " k", " M", " G":
        if n < 999.5:
            return f"{n:.3g}{unit}"
        n /= 1000
    return f"{n:.3g} T"
