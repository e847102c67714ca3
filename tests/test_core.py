"""What keeps dpedf small: budgets of lines, and imports that point one way."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "dpedf"
FILES = sorted(PACKAGE.rglob("*.py"))
CORE = ["edf", "phi", "ops/affine", "ops/pointwise", "ops/loss", "models/mlp", "comm", "train"]

# What a room may import of dpedf.  Of those not named here, all but train.
MAY_IMPORT = {
    "edf": ("kernels", "shapes"),
    "shapes": (),
    "errors": (),
    "kernels": ("kernels",),
    "slots": (),
    "sums": ("kernels",),
    "optim": ("kernels",),
    "ops": ("edf", "ops", "kernels"),
    "phi": ("device", "edf", "errors"),
    "models": ("edf", "models", "ops", "phi", "errors"),
    "build": ("edf", "models", "errors"),
    "check": ("device", "edf", "errors", "evaluate"),
    "evaluate": ("device", "edf", "sums"),
    "device": ("errors", "graphs", "kernels", "slots"),
    "graphs": ("errors",),
    "wires": ("errors",),
    "config": ("errors",),
    "data": ("device", "edf", "errors", "memory", "rows"),
    "memory": (),
    "checkpoint": ("config", "device", "errors"),
    "comm": ("errors", "launcher"),
    "launcher": ("errors",),
    "watchdog": ("errors",),
    "start": (
        *("build", "check", "checkpoint", "config", "data", "device", "errors", "gradient"),
        *("phi", "wires"),
    ),
    "source": ("edf", "errors", "phi", "shapes", "source"),
    "tools": (
        *("checkpoint", "comm", "config", "device", "edf", "errors", "gradient"),
        *("kernels", "optim", "source", "start", "sums", "tools"),
    ),
}


def module(file):
    """Its path below dpedf, without the suffix: ops/affine."""
    return str(file.relative_to(PACKAGE).with_suffix(""))


def lines(file):
    return len(file.read_text().splitlines())


def imported(file):
    """Every (module, name) that a file imports, wherever in it, as absolute names."""
    package = ["dpedf", *file.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            yield from (
                (".".join([*above, node.module or ""]).strip("."), a.name) for a in node.names
            )


def rooms(file):
    """The rooms of dpedf that a file imports: edf, ops, ..."""
    for name, thing in imported(file):
        words = [*name.split("."), *([thing] if thing else [])]
        if words[0] == "dpedf" and len(words) > 1:
            yield words[1]


each_file = pytest.mark.parametrize("file", FILES, ids=module)


def test_the_core_has_at_most_1000_lines():
    count = {name: lines(PACKAGE / f"{name}.py") for name in CORE}
    assert sum(count.values()) <= 1000, count


@pytest.mark.parametrize("file", sorted(PACKAGE.glob("ops/*.py")), ids=module)
def test_a_family_of_nodes_has_less_than_200_lines(file):
    assert lines(file) < 200


@each_file
def test_mpi4py_and_cupy_have_one_door_each(file):
    doors = {"mpi4py": "comm", "cupy": "device", "cupyx": "device"}
    for name, _ in imported(file):
        top = name.split(".")[0]
        assert module(file) == doors.get(top, module(file)), f"imports {top}"


@each_file
def test_imports_point_one_way(file):
    room = module(file).split("/")[0]
    for other in rooms(file):
        if room in MAY_IMPORT:
            assert other in MAY_IMPORT[room], f"imports {other}"
        assert other != "train" or room in ("tools", "__main__"), "imports train"


@each_file
def test_data_configs_and_checkpoints_know_of_no_graph_but_its_inputs(file):
    if module(file) in ("data", "config", "checkpoint"):
        for name, thing in imported(file):
            assert not name.startswith("dpedf.edf") or thing == "Input", f"imports {thing}"


def test_every_room_with_rules_is_there():
    for room in [*MAY_IMPORT, *CORE]:
        assert (PACKAGE / f"{room}.py").exists() or (PACKAGE / room).is_dir(), room
