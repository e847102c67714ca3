"""What the README tells a newcomer to type, typed in a clean clone."""

import os
import re
import subprocess
from pathlib import Path

import breakages
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SHARED = Path(os.environ.get("DPEDF_SHARED", ROOT.parent / "shared"))
# Not what the tests themselves were started with: a newcomer's shell has no such variables.
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "PYTHON", "PMI"))}


def commands(language):
    """The lines of the README's blocks of a language, without their comments."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]


def typed(command, folder, timeout):
    """Run a line in bash, with the environment that launch/local.sh made, if it is there."""
    line = f"[ ! -d .venv ] || source .venv/bin/activate; {command}"
    run = {"cwd": folder, "env": CLEAN, "timeout": timeout, "text": True, "executable": "/bin/bash"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
    done = subprocess.run(line, shell=True, **run, **streams)
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("newcomer") / "dpedf"
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    return folder


@pytest.mark.slow
def test_every_command_of_the_readme_works_in_a_clean_clone(clone):
    lines = [line for line in commands("bash") if line]
    assert len(lines) == 6
    for line in lines:
        if line == "python data/mnist.py":
            if not (SHARED / "mnist").is_dir():
                pytest.skip("neither a network nor local copies of MNIST's files")
            line += f" --from {SHARED / 'mnist'}"  # there may be no network
        output = typed(line, clone, timeout=1200)
        if "test.sh" in line:
            assert re.search(r"\d+ passed", output)
        if "dpedf.train" in line or "local.sh" in line:
            assert re.search(r"phi_sha256 [0-9a-f]{64}", output)


@pytest.mark.slow
def test_the_demonstration_of_the_readme_ends_with_one_phi_on_any_number_of_ranks(clone):
    """The README's own hash is that of one kind of CPU; but it is one."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    session = next(block for block in blocks if "\nphi_sha256" in block).splitlines()
    command = "\n".join(line[2:] for line in session if line[:2] in ("$ ", "> "))
    shown = [line for line in session if line.startswith("phi_sha256")]
    typed("./launch/local.sh -n 1 configs/digits.toml train.epochs=1 --overwrite", clone, 600)
    printed = typed(command, clone, 600).splitlines()
    assert len(shown) == len(printed) == 5
    assert len(set(shown)) == len(set(printed)) == 1
    assert re.fullmatch(r"phi_sha256 [0-9a-f]{64}", printed[0])


@pytest.mark.parametrize(
    "page",
    [
        *("README.md", "data/README.md", "tests/README.md"),
        *("docs/architectures.md", "docs/inside.md", "docs/reliability.md"),
        *("docs/recipes.md", "docs/runs.md"),
    ],
)
def test_a_page_names_files_that_exist(page):
    for path in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / path).exists(), path


def test_the_breakages_in_the_page_on_tests_are_those_that_can_be_made():
    """breakages.py makes them, which takes minutes."""
    listed = breakages.listed()
    assert "\n".join(breakages.table(listed)) in (ROOT / "tests" / "README.md").read_text()
    for breakage in listed:
        assert (ROOT / breakage["file"]).read_text().count(breakage["this"]) == 1, breakage
        file, test = breakage["test"].split("::")
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), test


def test_every_promise_of_the_page_on_reliability_has_a_test_that_exists():
    page = (ROOT / "docs" / "reliability.md").read_text()
    rows = [row for row in page.splitlines() if row.startswith("| ") and "---" not in row]
    promises = [row.split(" | ")[1] for row in rows if not row.startswith("| promise")]
    assert len(promises) > 20
    for tests in promises:
        for file, named in re.findall(r"([\w/]+\.py): ((?:`\w+`(?:, )?)+)", tests):
            source = (ROOT / "tests" / file).read_text()
            assert all(f"def {test}(" in source for test in re.findall(r"`(\w+)`", named)), tests
        assert ".py: `test_" in tests, tests


def test_the_model_and_the_node_of_the_docs_work_as_they_stand(python, digits, tmp_path):
    page = (ROOT / "docs" / "architectures.md").read_text()
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", page, re.DOTALL):
        (tmp_path / name).write_text(code)
    assert python("test_mine.py", cwd=tmp_path).returncode == 0
    command = re.search(r"\$ python -m dpedf\.train configs/digits_mlp\.toml '(.*)'", page)[1]
    more = f"data.file={digits}", "train.epochs=2", "run.dir=run"
    config = ROOT / "configs" / "digits_mlp.toml"
    done = python("-m", "dpedf.train", config, command, *more, cwd=tmp_path)
    assert done.returncode == 0 and "phi_sha256" in done.stdout, done.stderr
    right = (tmp_path / "mine.py").read_text()
    wrong = right.replace("self.grad /", "2 * self.grad /")  # whose size differs: no old .pyc
    (tmp_path / "mine.py").write_text(wrong)
    assert "by finite differences" in python("test_mine.py", cwd=tmp_path).stderr


def test_the_listing_in_the_docs_is_what_the_tool_prints(python, digits):
    page = (ROOT / "docs" / "architectures.md").read_text()
    shown = re.search(
        r"\$ python -m dpedf source configs/digits_mlp\.toml\n(.*?)```", page, re.DOTALL
    )
    done = python(
        "-m", "dpedf", "source", "configs/digits_mlp.toml", f"data.file={digits}", cwd=ROOT
    )
    printed = {re.sub(r" +", " ", line) for line in done.stdout.splitlines()}
    for line in shown[1].splitlines():
        line = re.sub(r" +", " ", line.replace("data/digits.h5", str(digits)))
        assert line.strip() in ("", "...") or line in printed, line
