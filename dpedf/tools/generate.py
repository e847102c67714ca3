"""Continue a text, character by character.

    dpedf generate runs/char_transformer "ROMEO:" --length 300

The run is one on a text.  Each character is drawn from the model's output at the last one of at
most T characters, the window of the run.  So the output (B, T, classes) at t has to depend on
x[:, :t+1] alone.
"""

import numpy as np

from dpedf.device import host
from dpedf.edf import Forward
from dpedf.errors import RunError, UserError, concerning, write
from dpedf.parallel.ranks import Ranks
from dpedf.run.command_line import Parser, at_least, expect_one_process
from dpedf.run.trained import opened


def expect_text(model):
    """UserError: a Trained model does not continue a text."""
    T, classes = model.settings.data.window, model.x.classes
    if not T:
        raise UserError("data.window = 0, expected a run on a text")
    if not model.form.names:
        raise UserError(f"no characters for its {classes} symbols, expected a data file with them")
    if model.Q.value.shape[1:] != (T, classes):
        found = f"(B, {', '.join(map(str, model.Q.value.shape[1:]))})"
        raise UserError(f"model.build: the output is {found}, expected (B, T, classes)")


def continued(model, text, length, temperature, seed):
    """Yield `length` symbols that continue a text.

    At temperature 0 each is the most likely one; otherwise it is drawn from Q**(1/temperature),
    normalized, by a generator of this seed.  RunError: Q is no probability.
    """
    x, Q, text, (T,) = model.x, model.Q, list(text), model.x.shape
    random = np.random.Generator(np.random.Philox(key=seed))
    for _ in range(length):
        here = text[-T:]
        symbols = np.zeros((1, T), x.dtype)
        symbols[0, : len(here)] = here
        x.value = model.device.put(symbols)
        Forward(Q)
        q = host(Q.value[0, len(here) - 1]).astype(np.float64)
        if not np.isfinite(q).all() or (temperature and (q.min() < 0 or q.max() == 0)):
            found = "nan" if np.isnan(q).any() else f"{q.min():g} to {q.max():g}"
            expected = "expected a probability of each character"
            raise RunError(f"{model.file}: the output is {found}, {expected}")
        if temperature:
            weights = (q / q.max()) ** (1 / temperature)
            text.append(random.choice(len(q), p=weights / weights.sum()))
        else:
            text.append(q.argmax())
        yield text[-1]


def main(words):
    parser = Parser("dpedf generate", __doc__)
    add = parser.add_argument
    add("run", metavar="RUN", help="the directory of the run")
    add("prompt", metavar="TEXT", help="what is continued")
    add("--length", type=at_least(0), default=500, help="how many characters to add (500)")
    add("--temperature", type=at_least(0, float), default=0.8, help="0: always the likeliest (0.8)")
    add("--seed", type=at_least(0), default=0, help="of the draws (0)")
    parser.add_checkpoint()
    args = parser.read(words)
    expect_one_process("generate")
    if not args.prompt:
        raise UserError("an empty TEXT, expected at least one character to continue")
    with opened(args, Ranks()) as model:
        with concerning(model.file):
            expect_text(model)
        generate(model, args)


def generate(model, args):
    """Print TEXT, and what continues it."""
    characters = model.form.names
    numbers = {character: k for k, character in enumerate(characters)}
    for character in args.prompt:
        if character not in numbers:
            raise UserError(f"{character!r} in TEXT, expected characters that the data has")
    text = [numbers[character] for character in args.prompt]
    write("stdout", args.prompt, end="")
    try:
        for k in continued(model, text, args.length, args.temperature, args.seed):
            write("stdout", characters[k], end="")
    finally:
        write("stdout", "")
