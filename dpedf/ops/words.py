"""What nodes say of themselves at the prompt, and where a class of one's own lacks something."""

import inspect
import re

from dpedf.edf import CompNode, CompNodes, Node, Package, Parameters
from dpedf.program import held, inputs_of
from dpedf.shapes import OURS

EQUATION = re.compile(r"\s*([A-Za-z_]\w*(\[[^\]]*\])? = .*)")  # the first line of a text
PROSE = re.compile(r", (?![^(]*\)).*")  # after an equation, but not between ( and )
MANY = 4  # parts of a list, of which the others are counted
LONG = 40  # characters of a setting


def described(thing):
    """The repr of a node: z4 = Affine(Phi=Phi2, x=z3): (B, 10), y[b,j] = sum_i x[b,i] W[i,j] - C[j]

    The name, the class and the arguments that are no defaults, the shape, and the equation of its
    value, as far as they are known.
    """
    own, name, kind = type(thing).__name__, name_of(thing), thing.node_kind
    if kind == "constant":
        return mentioned(thing)
    made = f"{name} = {own}" if name else own
    if kind == "package":
        parts = [f"{key}={shape_of(n)}" for key, n in vars(thing).items() if isinstance(n, Node)]
        return f"{made}({', '.join(parts)})"
    if kind != "computed":
        return f"{made}: {shape_of(thing)}"
    parts = {key: mentioned(part) for key, part in arguments(thing).items()}
    made += f"({', '.join(f'{key}={its}' for key, its in parts.items() if its)})"
    equation = EQUATION.match(text_of(thing))
    says = f", {PROSE.sub('', equation[1]).rstrip()}" if equation else ""
    return f"{made}: {shape_of(thing)}{says}"


def arguments(node):
    """{name: thing} of the arguments of __init__ that are no defaults, as the node holds them.

    What it holds instead of one, as Pad holds fill, is there by its own name; where one that has no
    default is not to be found, there is whatever it holds.
    """
    there, found = own_attributes(node), {}
    for p in [*inspect.signature(type(node).__init__).parameters.values()][1:]:
        known = not hasattr(CompNode, p.name)  # as value is, which is another thing
        if known and p.name in there:
            its = there[p.name]
            if not is_plain(its) or its != p.default:
                found[p.name] = its
        elif not known or not hasattr(type(node), p.name):
            if p.default is p.empty:
                return there
            found |= {key: its for key, its in there.items() if is_plain(its)}
    return found


def own_attributes(node):
    """{name: thing} of what a node's methods set, beside its name."""
    return {key: its for key, its in vars(node).items() if key not in OURS and key != "name"}


def is_plain(thing):
    return type(thing) in (bool, int, float, str)


def text_of(node):
    """The equations of a node: those of its arguments, if it has such, or of its class."""
    known = all(hasattr(n.value, "shape") for n in (node, *inputs_of(node)))
    own = known and hasattr(type(node), "equations")  # and no attribute of a user's node
    return (node.equations() if own else type(node).__doc__) or ""


def keep(node, **settings):
    """Set those attributes of a node that are not as in its class, which has the defaults.

    Thus outlines of graphs stay as they were before there were such settings (run/outline.py).
    """
    for name, its in settings.items():
        if its != getattr(type(node), name):
            setattr(node, name, its)


def name_of(thing):
    """What a program, or who made it, calls a node or a package; None: nothing yet."""
    own = vars(thing)
    if isinstance(thing, Package) and not own.get("name"):  # its parameters know it
        return next((name_of(p).rpartition(".")[0] for p in held(thing) if name_of(p)), None)
    return next((own[key] for key in ("known_as", "name") if isinstance(own.get(key), str)), None)


def mentioned(thing):
    """What stands for a node, a list of such or a setting in what is made of it; else None."""
    if is_plain(thing):
        return repr(thing)[:LONG]
    if isinstance(thing, (list, tuple)):
        if not any(True for _ in held(thing)):
            numbers = thing and all(is_plain(n) or isinstance(n, (list, tuple)) for n in thing)
            return repr(thing)[:LONG] if numbers else None
        more = f", ... {len(thing)} in all" if len(thing) > MANY else ""
        return f"[{', '.join(mentioned(part) or '...' for part in thing[:MANY])}{more}]"
    if not isinstance(thing, (Node, Package)):
        return None
    if thing.node_kind == "constant":
        return f"{thing.value:g}" if isinstance(thing.value, float) else type(thing).__name__
    return name_of(thing) or type(thing).__name__


def shape_of(node):
    """ "(B, 10)" or "(B,) of 10 classes", for any number of rows."""
    shape = getattr(vars(node).get("value"), "shape", None)
    if not isinstance(shape, tuple):
        return "no value yet"
    sizes = ["B", *map(str, shape[1:])] if node.batched and shape else [*map(str, shape)]
    classes = vars(node).get("classes")
    more = f" of {classes} classes" if classes else ""
    return f"({', '.join(sizes)}{',' * (len(sizes) == 1)}){more}"


def lacking(method):
    """The method of a CompNode whose class does not define it."""

    def call(self):
        found = f"{type(self).__name__} has no {method}"
        raise ValueError(f"{found}, expected def {method}(self) in its class")

    return call


def appending(function):
    """What a function that finds nodes answers where it is taken for the list of the slides."""

    def append(thing):
        found = f"{function.__name__}.append({type(thing).__name__})"
        raise ValueError(f"{found}: drop this line, as nodes are found from the loss")

    return append


Node.__repr__ = Package.__repr__ = described
CompNode.forward, CompNode.backward = lacking("forward"), lacking("backward")
CompNodes.append, Parameters.append = appending(CompNodes), appending(Parameters)
