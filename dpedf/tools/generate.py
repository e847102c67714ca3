"""Continue a text, character by character:

    python -m dpedf generate RUN "ROMEO:"

RUN is the directory of a run on a text; its best.h5 is read, or else its checkpoint.h5.  Each
character is drawn from the model's output at the last one of at most T characters, the window of
the run.  So the output (B, T, classes) at t has to depend on x[:, :t+1] alone.
"""

from pathlib import Path

import numpy as np

from dpedf.device import CPU
from dpedf.edf import Forward
from dpedf.errors import UserError, concerning, write
from dpedf.parallel.ranks import Ranks
from dpedf.run import config
from dpedf.run.checkpoint import load
from dpedf.run.resume import identity
from dpedf.run.setup import assemble
from dpedf.tools import Parser, expect_own_code


def trained(run, trusted=False):
    """(x, Q, characters): the Input and output of a trained model, and the characters of its data.

    trusted: may the run name code that is not its own?
    UserError: there is no run, it is not on a text, or its model has changed.
    """
    settings = config.load(run / "config.toml")
    with concerning(run / "config.toml"):
        if not trusted:
            expect_own_code(settings, run)
        T, file = settings.data.window, settings.data.file
        if not T:
            raise UserError("data.window = 0, expected a run on a text")
        data, Q, ell, phi = assemble(settings, CPU())
        characters = data.stored.attribute("characters", "")
        if isinstance(characters, np.ndarray) and characters.dtype == object:
            characters = "".join(characters)
        if not isinstance(characters, str):
            raise UserError(f"{file}: attribute characters, expected a string")
        if len(characters) != data.x.classes:
            found = f"{len(characters)} characters for {data.x.classes} classes"
            raise UserError(f"{file}: attribute characters holds {found}, expected one for each")
        if Q.value.shape[1:] != (T, len(characters)):
            found = f"(B, {', '.join(map(str, Q.value.shape[1:]))})"
            raise UserError(f"model.build: the output is {found}, expected (B, T, classes)")
    best = run / "best.h5"
    file = best if best.exists() else run / "checkpoint.h5"
    state = load(file, phi)
    with concerning(file):
        identity(settings, data, ell).compare(state)
    return data.x, Q, characters


def continued(x, Q, text, length, temperature, seed):
    """Yield `length` symbols that continue a text.

    At temperature 0 each is the most likely one; otherwise it is drawn from Q**(1/temperature),
    normalized, by a generator of this seed.
    """
    text, (T,) = list(text), x.shape
    random = np.random.Generator(np.random.Philox(key=seed))
    for _ in range(length):
        here = text[-T:]
        x.value = np.zeros((1, T), x.dtype)
        x.value[0, : len(here)] = here
        Forward(Q)
        q = Q.value[0, len(here) - 1].astype(np.float64)
        if temperature:
            weights = (q / q.max()) ** (1 / temperature)
            text.append(random.choice(len(q), p=weights / weights.sum()))
        else:
            text.append(q.argmax())
        yield text[-1]


def main(words):
    parser = Parser("generate", __doc__)
    trust = "run the code that the run names, though it lies elsewhere"
    add = parser.add_argument
    add("run", metavar="RUN", type=Path, help="the directory of the run")
    add("prompt", metavar="TEXT", help="what is continued")
    add("--length", type=int, default=500, help="how many characters to add (500)")
    add("--temperature", type=float, default=0.8, help="0: always the likeliest (0.8)")
    add("--seed", type=int, default=0, help="of the draws (0)")
    add("--trust", action="store_true", help=trust)
    args, ranks = parser.parse_args(words), Ranks()
    if ranks.size > 1:
        raise UserError(f"generate on {ranks.size} ranks, expected one")
    for name in "length", "temperature", "seed":
        if not 0 <= (found := getattr(args, name)) < 2**63:
            raise UserError(f"--{name} {found}, expected at least 0, and less than 2**63")
    if not args.prompt:
        raise UserError("an empty TEXT, expected at least one character to continue")
    x, Q, characters = trained(args.run, args.trust)
    numbers = {character: k for k, character in enumerate(characters)}
    for character in args.prompt:
        if character not in numbers:
            raise UserError(f"{character!r} in TEXT, expected characters that the data has")
    text = [numbers[character] for character in args.prompt]
    write("stdout", args.prompt, end="")
    for k in continued(x, Q, text, args.length, args.temperature, args.seed):
        write("stdout", characters[k], end="")
    write("stdout", "")
