"""What keeps dpedf small: budgets of lines, and imports that point one way."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "dpedf"
FILES = sorted(PACKAGE.rglob("*.py"))
CORE = [
    *("edf", "program", "phi", "ops/affine", "ops/pointwise", "ops/loss", "models/mlp"),
    *("parallel/gradient", "parallel/ranks", "train"),
]

# Who may import whom: a file or a room, and what it may import of dpedf beside itself.
MAY_IMPORT = {
    "errors": "",
    "shapes": "",
    "kernels": "",
    "program": "kernels shapes",
    "edf": "kernels program shapes",
    "device": "errors kernels",
    "ops": "edf kernels program shapes",
    "phi": "device edf errors program",
    "optim": "kernels",
    "check": "device edf errors ops program",
    "models": "edf errors ops phi",
    "parallel": "edf errors kernels program",
    "data": "device edf errors parallel",
    "run": "check data device edf errors kernels models ops optim parallel phi program shapes",
    "train": "optim parallel run",
    "source": "edf errors phi program shapes",
    "tools": "data device edf errors kernels models optim parallel program run source train",
    "__main__": "errors parallel tools",
    "__init__": "ops parallel",
}


def module(file):
    """Its path below dpedf, without the suffix: ops/affine."""
    return str(file.relative_to(PACKAGE).with_suffix(""))


def lines(file):
    return len(file.read_text().splitlines())


def imported(file):
    """Every (module, name) that a file imports, anywhere in it, as absolute names."""
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
    """The rooms and files of dpedf that a file imports: edf, ops, ..."""
    for name, thing in imported(file):
        words = [*name.split("."), *([thing] if thing else [])]
        if words[0] == "dpedf" and len(words) > 1 and words[1] != "__version__":
            yield words[1]


each_file = pytest.mark.parametrize("file", FILES, ids=module)


def test_the_core_has_at_most_1000_lines_and_the_framework_150():
    count = {name: lines(PACKAGE / f"{name}.py") for name in CORE}
    assert sum(count.values()) <= 1000 and count["edf"] <= 150, count


def test_a_newcomer_sees_ten_files_and_nine_folders():
    seen = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert sum(path.is_file() for path in seen) == 10, seen
    assert sum(path.is_dir() for path in seen) == 9, seen


def test_no_file_has_more_than_250_lines_and_no_family_of_nodes_more_than_200():
    for file in FILES:
        assert lines(file) <= (200 if file.parent.name == "ops" else 250), module(file)


@each_file
def test_mpi4py_and_cupy_have_one_door_each(file):
    doors = {"mpi4py": "parallel/ranks", "cupy": "device/gpu", "cupyx": "device/gpu"}
    for name, _ in imported(file):
        top = name.split(".")[0]
        assert module(file) == doors.get(top, module(file)), f"imports {top}"


@each_file
def test_imports_point_one_way(file):
    room = module(file).split("/")[0]
    for other in rooms(file):
        assert other in [room, *MAY_IMPORT[room].split()], f"imports {other}"


def test_nobody_imports_who_imports_him():
    allowed = {room: others.split() for room, others in MAY_IMPORT.items()}

    def below(room):
        return {room}.union(*(below(other) for other in allowed[room]))

    for room, others in allowed.items():
        assert room not in set().union(*map(below, others)), room
