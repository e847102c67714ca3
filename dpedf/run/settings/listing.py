"""Every setting in words: for dpedf train --help, and as docs/settings.md.

python -m dpedf.run.settings.listing > docs/settings.md
"""

import inspect
import textwrap
from itertools import zip_longest

from dpedf.run.build import shipped
from dpedf.run.settings.explain import bare, in_toml, in_words
from dpedf.run.settings.sections import DEFAULTS, FIELDS, TYPES
from dpedf.run.settings.spelling import end

SECTIONS = {
    "": ("seed of all draws", "seed = 0"),
    "data": ("what is learned from", '[data]\nfile = "data/mnist.h5"\nvalid = 5000'),
    "model": (
        "what is trained",
        '[model]\nbuild = "mlp"\nsizes = [784, 128, 10]\nactivation = "relu"',
    ),
    "train": (
        "how it learns",
        "[train]\nepochs = 10\nbatch_size = 128\nlearning_rate = 0.1\nmomentum = 0.9",
    ),
    "run": ("where it runs, and what it keeps", '[run]\ndir = "runs/first"\nlog_every = 20'),
}
KEYWORDS = "Every other key of [model] is a keyword of the model. Of those in dpedf.models:"
REQUIRED = [*(key for key in FIELDS if key not in DEFAULTS), "model.build"]
NAME = 20  # columns of a name in a listing

PAGE = """\
# Settings

A run is described by a file in [TOML](https://toml.io), such as
[mnist.toml](../configs/mnist.toml). Any setting can be replaced on the command line, where its
name begins with its section:

```bash
dpedf train configs/mnist.toml train.epochs=3 'model.sizes=[784, 100, 10]'
```

The words may come in any order. A list may lack its quotes and brackets, `model.sizes=784,100,10`,
and numbers may be typed as in Python: `.1`, `1e3`, `1_000`. A setting that is unknown or impossible
is refused, in a line that says what was expected.

`python -m dpedf.run.settings.listing` makes this page from
[sections.py](../dpedf/run/settings/sections.py), as `dpedf train --help` does what it prints.
"""


def settings_of(section):
    """(name, meaning, type in words, default in TOML) of each setting of a section."""
    for key, kind in TYPES.items():
        if key not in SECTIONS and key.rpartition(".")[0] == section:
            default = in_toml(DEFAULTS[key]) if key in DEFAULTS else "none"
            default = "required" if key in REQUIRED else default
            yield end(key), bare(kind)[2][-1], in_words(kind).removeprefix("a "), default


def keywords(model):
    """The keywords of a model, with their defaults in TOML."""
    _, _, *those = inspect.signature(model).parameters.values()
    for keyword in those:
        optional = keyword.default is not keyword.empty
        yield f"{keyword.name} = {in_toml(keyword.default)}" if optional else keyword.name


def listing(width):
    """All settings as lines of at most so many characters."""
    lines = ["settings, in CONFIG or as section.key=value:"]
    for section, (title, _) in SECTIONS.items():
        lines += ["", f"[{section}]  {title}"] if section else []
        for name, meaning, kind, default in settings_of(section):
            what = default if default == "required" else f"default {default}"
            lines += entry(name, [meaning, f"({kind}; {what})"], width)
        if section == "model":
            lines += [
                "",
                *textwrap.wrap(KEYWORDS, width, initial_indent="  ", subsequent_indent="  "),
            ]
            for name, model in shipped().items():
                lines += entry(name, [", ".join(keywords(model)) or "none"], width)
    return "\n".join(lines)


def entry(name, paragraphs, width):
    """The lines of a name, and of paragraphs to the right of it."""
    size = width - NAME - 2
    lines = [line for text in paragraphs for line in textwrap.wrap(text, size)]
    return [f"  {left:{NAME}}{line}" for left, line in zip_longest([name], lines, fillvalue="")]


def page():
    """All settings as a page in Markdown."""
    parts = [PAGE]
    for section, (title, example) in SECTIONS.items():
        parts.append(
            f"## {f'[{section}]: ' if section else ''}{title}\n\n```toml\n{example}\n```\n"
        )
        rows = [("setting", "meaning", "value", "default"), ("---",) * 4]
        for name, meaning, kind, default in settings_of(section):
            rows.append((f"`{name}`", meaning, kind, f"`{default}`"))
        parts.append(table(rows))
        if section == "model":
            rows = [("`build`", "keywords"), ("---",) * 2]
            for name, model in shipped().items():
                file = f"../{model.__module__.replace('.', '/')}.py"
                has = ", ".join(f"`{keyword}`" for keyword in keywords(model)) or "none"
                rows.append((f"[{name}]({file})", has))
            parts += [f"{KEYWORDS}\n", table(rows)]
    return "\n".join(parts)


def table(rows):
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    print(page(), end="")
