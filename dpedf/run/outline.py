"""The program of a loss in words, to be compared."""

from dpedf.errors import visible
from dpedf.ops.words import own_attributes
from dpedf.program import inputs_of, program


def outline(loss):
    """A line a node: z1 = Affine(Phi1.w (784, 10), Phi1.b (10,), x), z2 = Dropout(z1, rate = 0.5).

    Numbers and words that a node holds are shown, but no arrays, and not what its methods do.
    Checkpoints have it: what a node did not hold in older versions, it holds where somebody
    asks for it (ops/words.py: keep), and else it is an attribute of the class, or a property.
    """
    names, parameters = program(loss).names, {*program(loss).parameters, *program(loss).frozen}

    def shown(n):
        shape = f" {n.value.shape}" if n in parameters else ""
        return f"{names.get(n) or getattr(n, 'name', type(n).__name__)}{shape}"

    def line(n):
        held = [shown(i) for i in inputs_of(n)] + [
            f"{key} = {its!r}"
            for key, its in own_attributes(n).items()
            if type(its) in (bool, int, float, str)
        ]
        return visible(f"{names[n]} = {type(n).__name__}({', '.join(held)})")

    return "\n".join(map(line, program(loss).nodes))
