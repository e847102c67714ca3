"""python -m dpedf TOOL: the tools by name, and a text that generate continues."""

import tomllib
from importlib import import_module
from pathlib import Path

import h5py
import numpy as np
import pytest
from damage import prove

from dpedf.__main__ import run
from dpedf.data import write
from dpedf.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
TOOLS = sorted(path.stem for path in (ROOT / "dpedf" / "tools").glob("[!_]*.py"))
TOOLS.sort(key=lambda tool: tool != "train")  # which is the first
T, CHARACTERS = 8, "\nabcdé"
SUCCESSORS = {"a": "b", "b": "c", "c": "d", "d": "é", "é": "a"}  # in the text of the run below
ABOUT = {"name": "Letters", "source": "this test", "licence": "none"}

MODEL = '''
"""A model of text, made of nodes of its own."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.phi import Uniform


class Scores(CompNode):
    """Q[b,t,j] = exp(W[x[b,t],j]) / Z[b,t]"""

    def __init__(self, W, x):
        self.W, self.x = W, x

    def forward(self):
        e = np.exp(self.W.value[self.x.value])
        self.value = e / e.sum(axis=-1)[..., None]

    def backward(self):
        delta = self.value * (self.grad - (self.grad * self.value).sum(axis=-1)[..., None])
        one = np.eye(len(self.W.value), dtype=delta.dtype)[self.x.value]
        self.W.addgrad(np.einsum("btk,btj->kj", one, delta))


class Lagged(CompNode):
    """z[b,t] = x[b,t-lag], and x[b,t] where that is not there"""

    def __init__(self, x, lag):
        self.x, self.lag = x, lag

    def forward(self):
        self.value = self.x.value.copy()
        self.value[:, self.lag :] = self.x.value[:, : -self.lag]


class MeanLogLoss(CompNode):
    """ell[b] = -1/T sum_t log Q[b,t,y[b,t]]"""

    def __init__(self, Q, y):
        self.Q, self.y = Q, y

    def forward(self):
        self.one = np.eye(self.y.classes, dtype=self.Q.value.dtype)[self.y.value]
        self.q = (self.Q.value * self.one).sum(axis=-1)
        self.value = -np.log(self.q).mean(axis=1)

    def backward(self):
        T = self.q.shape[1]
        self.Q.addgrad(-self.grad[:, None, None] * self.one / self.q[..., None] / T)


def bigram(x, y, lag=0):
    Q = Scores(Uniform((x.classes, x.classes), 0.1), Lagged(x, lag) if lag else x)
    return Q, MeanLogLoss(Q, y)
'''

CONFIG = """
[data]
file = "letters.h5"
window = 8

[model]
build = "model.py:bigram"

[train]
steps = 60
batch_size = 16
learning_rate = 20.0
eval_every = 20

[run]
dir = "run"
device = "cpu"
"""


@pytest.fixture(scope="module")
def trained(python, tmp_path_factory):
    """trained(text, *settings) trains a bigram; the folder with its run."""

    def train(text, *settings):
        folder = tmp_path_factory.mktemp("text")
        numbers = np.array([CHARACTERS.index(c) for c in text], np.uint8)
        about = ABOUT | {"classes": len(CHARACTERS), "characters": CHARACTERS}
        write(folder / "letters.h5", **about, train=numbers, valid=numbers, test=numbers)
        (folder / "model.py").write_text(MODEL)
        (folder / "config.toml").write_text(CONFIG)
        ran = python("-m", "dpedf.train", "config.toml", *settings, cwd=folder)
        assert (ran.returncode, ran.stderr) == (0, "")
        return folder

    return train


@pytest.fixture(scope="module")
def cycle(trained):
    """A run on abcdéabcdé..., in which each letter has one successor."""
    return trained("abcdé" * 40)


@pytest.fixture(scope="module")
def coin(trained):
    """A run whose model gives a the probability 3/4, b 1/4 and other characters none."""
    folder, Q = trained("abcdé" * 40, "train.steps=1"), np.full((6, 6), 1e-20)
    Q[:, CHARACTERS.index("a")], Q[:, CHARACTERS.index("b")] = 0.75, 0.25
    overwrite(folder / "run" / "best.h5", np.log(Q))
    return folder


def overwrite(checkpoint, W):
    """Give the bigram in a checkpoint these scores."""
    with h5py.File(checkpoint, "a") as file:
        file["phi"][...] = W.reshape(-1)
    prove(checkpoint)


@pytest.fixture(scope="module")
def generate(python):
    """generate(folder, *words): what dpedf generate prints of the run there."""

    def run(folder, *words):
        ran = python("-m", "dpedf", "generate", "run", *words, "--trust", cwd=folder)
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout.removesuffix("\n")

    return run


def assert_refused(ran, *words):
    """Status 2, and one line on stderr, with these words."""
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1 and ran.stderr.endswith("\n"), ran.stderr
    for word in words:
        assert str(word) in ran.stderr


# Tools.


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]], ids=str)
def test_the_tools_are_listed_with_what_they_do(words, python):
    ran = python("-m", "dpedf", *words)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert max(map(len, ran.stdout.splitlines())) <= 80
    listed = ran.stdout.split("dpedf/tools.\n\n")[1].splitlines()
    assert [line.split()[0] for line in listed[::2]] == TOOLS
    assert all(len(line.split()) > 2 for line in listed[::2])
    for tool, example in zip(TOOLS, listed[1::2], strict=True):
        assert example.split()[:2] == ["dpedf", tool]


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_has_help_and_refuses_words_that_it_does_not_know(tool, python):
    ran = python("-m", "dpedf", *(["help", tool] if tool == "plot" else [tool, "--help"]))
    assert (ran.returncode, ran.stderr) == (0, "")
    prose = [line for line in ran.stdout.splitlines() if not line.startswith("    ")]
    assert max(map(len, prose)) <= 80
    assert f"dpedf {tool}" in ran.stdout
    assert_refused(python("-m", "dpedf", tool, "--no-such-option"))


def test_an_unknown_tool_is_one_line_with_the_nearest_or_all(python):
    assert_refused(python("-m", "dpedf", "genrate"), "genrate", "expected generate")
    assert_refused(python("-m", "dpedf", "xyzzy"), "xyzzy", *TOOLS)
    assert_refused(python("-m", "dpedf", "../xyzzy"), "../xyzzy", *TOOLS)


def test_the_program_knows_its_version_and_what_lacks_a_tool():
    assert run("--version") == 0
    for words, expected in (
        (["configs/digits.toml"], "expected a tool before it, such as dpedf train configs/dig"),
        (["train.steps=3"], "such as dpedf train train.steps=3"),
        (["--verison"], "expected --version, or a tool before it"),
        (["--reusme"], "expected one of --help, --version, or a tool before it"),
        (["help", "genrate"], "expected generate"),
        (["runs", "--sort", "valid_los"], "--sort valid_los, expected valid_loss; --help"),
        (["evaluate", "runs/a", "--split", "tes"], "--split tes, expected test; --help"),
        (["plot", "runs/a", "--by", "hour"], "--by hour, expected one of epoch, step, time"),
    ):
        with pytest.raises(UserError, match=expected):
            run(*words)


def test_the_console_script_is_the_same_program():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, name = scripts["dpedf"].split(":")
    assert module == "dpedf.__main__" and callable(getattr(import_module(module), name))


# A text that goes on.


@pytest.mark.parametrize("prompt", ["a", "dé", "abcdéabcdéabcdéab"])
def test_the_likeliest_continuation_is_what_the_model_has_learned(prompt, cycle, generate):
    text = generate(cycle, prompt, "--length", 30, "--temperature", 0)
    assert text.startswith(prompt) and len(text) == len(prompt) + 30
    for last, following in zip(text[len(prompt) - 1 :], text[len(prompt) :], strict=False):
        assert SUCCESSORS[last] == following


def test_what_a_terminal_cannot_show_is_escaped(cycle, python):
    words = "generate", "run", "dé", "--trust", "--length", 0
    ran = python("-m", "dpedf", *words, cwd=cycle, PYTHONIOENCODING="ascii")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "d\\xe9\n", "")


def test_the_model_sees_the_end_of_a_text_at_the_beginning_of_its_window(trained, generate):
    """One that looks 5 back, from the sixth position on."""
    folder = trained("abcdé" * 40, "model.lag=5", "train.steps=1")
    follows = [SUCCESSORS.get(c, c) for c in CHARACTERS]
    W = np.array([[following == c for c in CHARACTERS] for following in follows])
    overwrite(folder / "run" / "best.h5", W)
    for text in "a", "ac", "aacéb", "aacébd", "dédaacébbac":
        expected = text
        for _ in range(20):
            expected += SUCCESSORS[expected[-1 if len(expected) < 6 else -6]]
        assert generate(folder, text, "--length", 20, "--temperature", 0) == expected


def test_a_seed_gives_the_same_text_and_another_one_another(coin, generate):
    words = coin, "a", "--length", 60
    text = generate(*words)
    assert generate(*words, "--seed", 0) == text != generate(*words, "--seed", 1)
    assert generate(coin, "a", "--length", 20) == text[:21]
    assert generate(coin, "ab", "--length", 0) == "ab"


@pytest.mark.parametrize("temperature", [0.5, 1, 2])
def test_characters_are_drawn_from_the_output_to_the_power_1_over_temperature(
    temperature, coin, generate
):
    text = generate(coin, "a", "--length", 2000, "--temperature", temperature)
    p = np.array([0.75, 0.25]) ** (1 / temperature)
    assert text[1:].count("a") / 2000 == pytest.approx(p[0] / p.sum(), abs=0.04)
    assert text[1:].count("a") + text[1:].count("b") == 2000


def test_the_best_model_is_taken_and_else_the_last(trained, generate):
    folder = trained("abcdé" * 40)
    overwrite(folder / "run" / "checkpoint.h5", np.eye(len(CHARACTERS)))  # each again and again
    words = folder, "a", "--length", 4, "--temperature", 0
    assert generate(*words) == "abcdé"
    (folder / "run" / "best.h5").unlink()
    assert generate(*words) == "aaaaa"


def test_a_gpu_continues_a_text_as_a_cpu_does(cycle, generate, simulated, python):
    command = "-m", "dpedf", "generate", ".", "abc", "--checkpoint", "gpu.h5", "--trust"
    content = (cycle / "run" / "best.h5").read_bytes().replace(b'device = "cpu"', b'device = "gpu"')
    (cycle / "gpu.h5").write_bytes(content)
    prove(cycle / "gpu.h5")
    ran = python(*command, "--length", 9, cwd=cycle, **simulated)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == generate(cycle, "abc", "--length", 9) + "\n"


def test_an_output_that_is_nan_ends_generate_with_one_line(trained, python):
    folder = trained("abcdé" * 40, "train.steps=1")
    overwrite(folder / "run" / "best.h5", np.full((6, 6), np.nan))
    ran = python("-m", "dpedf", "generate", "run", "a", "--trust", cwd=folder)
    expected = "run/best.h5: the output is nan, expected a probability of each character\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "a\n", expected)


WRONG = {
    "no run": (["elsewhere", "a"], ["elsewhere", "no such directory"]),
    "no text to go on": (["run", ""], ["TEXT"]),
    "a character that the data has not": (["run", "abx"], ["'x'"]),
    "a negative temperature": (["run", "a", "--temperature", -1], ["--temperature -1"]),
    "no temperature": (["run", "a", "--temperature", "nan"], ["--temperature nan"]),
    "temperature in words": (["run", "a", "--temperature", "hot"], ["--temperature", "'hot'"]),
    "a negative length": (["run", "a", "--length", -1], ["--length -1"]),
    "a negative seed": (["run", "a", "--seed", -1], ["--seed -1"]),
    "one word too few": (["run"], ["TEXT"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_generate_refuses(what, cycle, python):
    words, named = WRONG[what]
    assert_refused(python("-m", "dpedf", "generate", *words, "--trust", cwd=cycle), *named)


def test_no_code_of_a_run_is_run_unless_it_is_trusted(cycle, python):
    for words in ["run"], [".", "--checkpoint", "run/best.h5"]:  # outside of the run, and within
        ran = python("-m", "dpedf", "generate", words[0], "a", *words[1:], cwd=cycle)
        assert_refused(ran, "run/best.h5", "model.py", "--trust")


def test_generate_refuses_a_run_that_cannot_go_on_as_text(trained, python):
    folder = trained("abcdé" * 40)
    words = ["-m", "dpedf", "generate", "run", "a", "--trust"]
    (folder / "run" / "best.h5").unlink()
    (folder / "run" / "checkpoint.h5").unlink()
    assert_refused(python(*words, cwd=folder), "run: no checkpoint.h5 in it")


@pytest.mark.parametrize("characters", [7, ""])
def test_generate_refuses_a_run_on_symbols_without_characters(characters, trained, python):
    folder = trained("abcdé" * 40, "train.steps=1")
    with h5py.File(folder / "letters.h5", "a") as file:
        file.attrs["characters"] = characters
    words = ["-m", "dpedf", "generate", "run", "a", "--trust"]
    assert python(*words, cwd=folder).returncode == 0  # the run knows them
    assert python("-m", "dpedf", "train", "config.toml", "--overwrite", cwd=folder).returncode == 0
    assert_refused(python(*words, cwd=folder), "run/best.h5", "no characters for its 6 symbols")


def test_what_a_tool_lacks_is_named_without_what_may_lack(refused):
    with refused("dpedf source: the following arguments are required: CONFIG;"):
        import_module("dpedf.tools.source").main([])
