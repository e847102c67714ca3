"""What differs between runs: the settings that tell one from another."""

import json
import re
from collections import Counter

from dpedf.errors import visible
from dpedf.run.resume import flat

# Where a run lies and how it is computed: none of these changes what is learnt.
ASIDE = "run", "data.cache", "train.rows", "train.checkpoint_every"
LONGEST = 40  # characters of a value


def differences(configs):
    """For each of several Configs, {"train.seed": 1, ...}: the settings that not all have alike."""
    trees = [by_key(config) for config in configs]
    keys = dict.fromkeys(key for tree in trees for key in tree)
    keys = [key for key in keys if not {key, key.split(".")[0]} & {*ASIDE}]
    differing = [key for key in keys if len({written(tree.get(key)) for tree in trees}) > 1]
    return [{key: tree[key] for key in differing if key in tree} for tree in trees]


def by_key(config):
    """{"train.rates.Phi1": 0.1, ...}"""
    return {
        f"{key}.{name}" if name else key: its
        for key, value in flat(config).items()
        for name, its in (value.items() if isinstance(value, dict) else [("", value)])
    }


def labels(configs, called=None):
    """What tells each of several Configs from the others: "learning_rate=0.1, sizes=[784,10]".

    called: the names of their runs, in a table; what a name says, and what most runs have, is not
    said there.
    """
    found = differences(configs)
    most = usual(found) if called else {}
    names = short_names(key for settings in found for key in settings)
    said = [{*re.split("[,/]", name)} for name in called or [""] * len(configs)]
    return [
        ", ".join(
            f"{names[key]}={shown(value)}"
            for key, value in settings.items()
            if in_a_name(names[key], value) not in by_name and written(value) != most.get(key)
        )
        for settings, by_name in zip(found, said, strict=True)
    ]


def usual(found):
    """{key: the value, as text, that more than half of several runs have}, if all have the key."""
    most = {}
    for key in found[0] if found else ():
        [(value, number)] = Counter(written(its.get(key)) for its in found).most_common(1)
        if 2 * number > len(found) and all(key in its for its in found):
            most[key] = value
    return most


def short_names(keys):
    """{"train.momentum": "momentum", "train.rates.Phi1.w": "Phi1.w"}, where that is clear."""
    keys = [*dict.fromkeys(keys)]
    last = {key: key.split(".", 2)[-1] for key in keys}
    names = [*last.values()]
    return {key: name if names.count(name) == 1 else key for key, name in last.items()}


def compact(value):
    """A setting as it may stand on a command line, without blanks: 1e-08, [784,10]."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(compact, value))}]"
    if type(value) is float and float(f"{value:g}") == value:
        return f"{value:g}"
    return value if isinstance(value, str) else written(value)


def in_a_name(key, value):
    """A setting as it may stand in the name of a directory: sizes=784-64-10."""
    text = f"{key}={compact(value).strip('[]').replace(',', '-')}"
    return re.sub(r"[^\w.+=-]", "_", text, flags=re.ASCII)


def written(value):
    return json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))


def shown(value):
    """A setting in few characters, such as [784,10]."""
    text = visible(compact(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
