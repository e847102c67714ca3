"""The recipes of data/, run as a user runs them, against mirrors good and bad."""

import csv
import gzip
import hashlib
import io
import os
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import termios
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import h5py
import numpy as np
import pytest
from shipped import ROOT, module_of

from dpedf.data.recipe import drawn

SHARED = Path(os.environ.get("DPEDF_SHARED", ROOT.parent / "shared"))
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
PACKED = gzip.compress(np.random.default_rng(0).bytes(100_000))  # a file, but not of MNIST

ENVIRONMENT = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
ENVIRONMENT["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])


def run(recipe, *arguments, **keywords):
    """Run a recipe to its end."""
    command = [sys.executable, ROOT / "data" / recipe, *arguments]
    keywords = {"capture_output": True, "text": True, "timeout": 600, "env": ENVIRONMENT} | keywords
    return subprocess.run([str(word) for word in command], **keywords)


def imported(name, monkeypatch):
    """The module of a recipe."""
    monkeypatch.syspath_prepend(ROOT / "data")
    return module_of(f"data/{name}.py")


def assert_refused(ran, *words):
    """Status 2, and one line on stderr, with these words."""
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.count("\n") == 1 and ran.stderr.endswith("\n"), ran.stderr
    for word in words:
        assert word in ran.stderr


def places(mirrors):
    """The options that name these mirrors."""
    return [word for mirror in mirrors for word in ("--mirror", mirror.url)]


def wait(request):
    request.server.over.wait(20)


def sends(data, size=None, then=lambda request: None):
    """An answer: data, of which size bytes were announced, and then something."""

    def answer(request, name):
        request.send_response(200)
        if size is not None:
            request.send_header("Content-Length", size)
        request.end_headers()
        request.wfile.write(data)
        then(request)

    return answer


def sends_files(folder, *names):
    """An answer: a file of the folder, and of these names if any; else 404."""

    def answer(request, name):
        if names and name.removesuffix(".gz") not in names:
            return request.send_error(404)
        data = (folder / name).read_bytes()
        sends(data, len(data))(request, name)

    return answer


def drips(data, seconds, pieces):
    """A continuation: data in so many pieces, over so many seconds."""

    def drip(request):
        size = -(-len(data) // pieces)
        for start in range(0, len(data), size):
            if request.server.over.wait(seconds / pieces):
                break
            request.wfile.write(data[start : start + size])

    return drip


def cuts_off_a_chunk(request, name):
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"%x\r\n" % len(PACKED) + PACKED[:50_000])


def never_ends(request, name):
    sends(b"")(request, name)
    while True:  # until the recipe hangs up
        request.wfile.write(bytes(1 << 20))


@pytest.fixture(scope="module")
def serve():
    """serve(answer) starts a mirror; it has a url, and asked, the files that it was asked for."""
    mirrors = []

    class Request(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix("/mnist/")
            self.server.asked.append(name.removesuffix(".gz"))
            with suppress(OSError):  # the recipe may hang up
                self.server.answer(self, name)

        def log_message(self, *_):
            pass

    def start(answer):
        mirror = ThreadingHTTPServer(("127.0.0.1", 0), Request)
        mirror.answer, mirror.asked, mirror.over = answer, [], threading.Event()
        mirror.url = f"http://127.0.0.1:{mirror.server_port}/mnist/"
        threading.Thread(target=mirror.serve_forever, args=[0.02], daemon=True).start()
        mirrors.append(mirror)
        return mirror

    yield start
    for mirror in mirrors:
        mirror.over.set()
        mirror.shutdown()
        mirror.server_close()


@pytest.fixture(scope="module")
def copies():
    """The folder with the four files of MNIST, gzipped."""
    if not (SHARED / "mnist").is_dir():
        pytest.skip("needs MNIST in ../shared/mnist, or in mnist/ of the folder DPEDF_SHARED")
    return SHARED / "mnist"


@pytest.fixture(scope="module")
def downloaded(copies, serve, tmp_path_factory):
    """A finished run of data/mnist.py, and the file that it wrote."""
    file = tmp_path_factory.mktemp("mnist") / "mnist.h5"
    return run("mnist.py", *places([serve(sends_files(copies))]), "--output", file), file


# What a good run writes and says.


def test_the_downloaded_file_holds_every_row_of_mnist(downloaded, copies):
    with h5py.File(downloaded[1]) as file:
        assert set(file) == {"train", "test"}
        for group, images, labels in [
            ("train", IMAGES, LABELS),
            ("test", TEST_IMAGES, TEST_LABELS),
        ]:
            x = gzip.decompress((copies / f"{images}.gz").read_bytes())
            y = gzip.decompress((copies / f"{labels}.gz").read_bytes())
            assert struct.unpack(">iiii", x[:16]) == (0x803, *file[group]["x"].shape)
            assert struct.unpack(">ii", y[:8]) == (0x801, *file[group]["y"].shape)
            assert file[group]["x"][...].tobytes() == x[16:]
            assert file[group]["y"][...].tobytes() == y[8:]
        assert file["train/y"][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
        counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        assert np.bincount(file["test/y"]).tolist() == counts


def test_the_downloaded_file_can_be_mapped_and_says_what_it_is(downloaded):
    with h5py.File(downloaded[1]) as file:
        for dataset in (file["train/x"], file["train/y"], file["test/x"], file["test/y"]):
            assert dataset.dtype == np.uint8
            assert dataset.chunks is None and dataset.id.get_offset()
        assert file.attrs["scale"] == 1 / 255
        assert (file.attrs["mean"], file.attrs["std"], file.attrs["classes"]) == (0, 1, 10)
        assert (file.attrs["name"], file.attrs["licence"]) == ("MNIST", "CC BY-SA 3.0")
        assert "LeCun" in file.attrs["source"]


def test_a_run_says_which_file_from_where_and_is_silent_on_stderr(downloaded):
    ran, file = downloaded
    *lines, last = ran.stdout.splitlines()
    names = (IMAGES, LABELS, TEST_IMAGES, TEST_LABELS)
    assert [line.split(" from http://127.0.0.1:")[0] for line in lines] == list(names)
    assert last == f"{file}: 60,000 images to train, 10,000 to test"
    assert (ran.returncode, ran.stderr) == (0, "")
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("gzipped", [True, False])
def test_local_copies_gzipped_or_not_give_the_same_file(downloaded, copies, gzipped, tmp_path):
    folder, output = copies, tmp_path / "mnist.h5"
    output.write_bytes(b"what an earlier run wrote")
    if not gzipped:
        folder = tmp_path / "unpacked"
        folder.mkdir()
        for path in copies.glob("*.gz"):
            (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    ran = run("mnist.py", "--from", folder, "--output", output)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert output.read_bytes() == downloaded[1].read_bytes()


def test_a_recipe_writes_beside_itself_from_wherever_it_is_run(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("digits.py", "digits.csv.gz"):
        shutil.copy(ROOT / "data" / name, data)
    assert run(data / "digits.py", cwd=tmp_path).returncode == 0
    assert {path.name for path in data.iterdir()} == {"digits.py", "digits.csv.gz", "digits.h5"}


def test_the_digits_are_split_in_the_order_of_their_rows(tmp_path):
    ran = run("digits.py", "--output", tmp_path / "digits.h5")
    assert (ran.returncode, ran.stderr) == (0, "")
    with gzip.open(ROOT / "data" / "digits.csv.gz", "rt") as file:
        rows = [[int(number) for number in row] for row in csv.reader(file)]
    with h5py.File(tmp_path / "digits.h5") as file:
        for group, here in ("train", rows[:1437]), ("test", rows[1437:]):
            x, y = file[group]["x"], file[group]["y"]
            assert x.shape == (len(here), 8, 8) and y.shape == (len(here),)
            assert x.dtype == y.dtype == np.uint8
            assert x.chunks is None and y.chunks is None
            assert x[...].reshape(-1, 64).tolist() == [row[:64] for row in here]
            assert y[...].tolist() == [row[64] for row in here]
        labels = np.concatenate([file["train/y"], file["test/y"]])
        counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
        assert np.bincount(labels).tolist() == counts
        assert file["train/x"][...].max() * file.attrs["scale"] == 1
        assert (file.attrs["mean"], file.attrs["std"], file.attrs["classes"]) == (0, 1, 10)
        assert (file.attrs["name"], file.attrs["licence"]) == ("Digits", "CC BY 4.0")
        assert "10.24432/C50P49" in file.attrs["source"]


# Any text.


@pytest.fixture(scope="module")
def shakespeare():
    """The text that nanoGPT's benchmark is about."""
    path = SHARED / "text" / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip("needs ../shared/text/tinyshakespeare.txt, or text/ of DPEDF_SHARED")
    return path


def text_in(dataset):
    """What the symbols of a data file stand for."""
    characters = dataset.file.attrs["characters"]
    return "".join(characters[k] for k in dataset[...])


def test_tinyshakespeare_is_split_as_nanogpt_does(shakespeare, tmp_path):
    output = tmp_path / "text.h5"
    ran = run("text.py", shakespeare, "--output", output)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == (
        f"{output}: 1,003,854 characters to train, of 65 kinds, and 111,540 to validate, "
        "which are also those to test\n"
    )
    with h5py.File(output) as file:
        assert file["train/text"].dtype == file["valid/text"].dtype == np.uint8
        assert text_in(file["train/text"]) + text_in(file["valid/text"]) == shakespeare.read_text()
        assert file["test/text"] == file["valid/text"]  # the very same dataset
        characters = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
        assert file.attrs["characters"] == characters and file.attrs["classes"] == 65
        assert file["train/text"].chunks is None and file["train/text"].id.get_offset()
    assert output.stat().st_size < 1_130_000


def test_a_text_is_written_beside_the_recipe_under_its_own_name(tmp_path):
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data" / "text.py", tmp_path / "data")
    (tmp_path / "my poem.txt").write_text("Rosen sind rot")
    assert run(tmp_path / "data" / "text.py", "my poem.txt", cwd=tmp_path).returncode == 0
    with h5py.File(tmp_path / "data" / "my poem.h5") as file:
        assert (text_in(file["train/text"]), text_in(file["test/text"])) == ("Rosen sind r", "ot")
        assert (file.attrs["name"], file.attrs["source"]) == ("my poem", "my poem.txt")


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("ab", "u1"),
        ("Grüße\n\n\t😀 ", "u1"),  # a space at the end stays as it is
        ("".join(map(chr, range(256, 512))), "u1"),
        ("".join(map(chr, range(256, 513))), "u2"),
        ("".join(map(chr, range(0x10000, 0x20001))), "u4"),
    ],
    ids=["two", "of any width", "256", "257", "65,537"],
)
def test_a_text_of_any_characters_is_kept(text, dtype, tmp_path):
    (tmp_path / "text.txt").write_bytes(text.encode())
    ran = run("text.py", tmp_path / "text.txt", "--output", tmp_path / "text.h5")
    assert (ran.returncode, ran.stderr) == (0, "")
    with h5py.File(tmp_path / "text.h5") as file:
        assert text_in(file["train/text"]) + text_in(file["valid/text"]) == text
        assert file["train/text"].dtype == dtype
        assert file.attrs["characters"] == "".join(sorted(set(text)))
        assert file.attrs["classes"] == len(set(text))


def test_line_ends_and_the_mark_at_the_start_are_read_as_python_reads_them(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffa\r\n\rb\n\r\r\n\ufeffc".encode())
    assert run("text.py", path, "--output", tmp_path / "text.h5").returncode == 0
    with h5py.File(tmp_path / "text.h5") as file:
        found = text_in(file["train/text"]) + text_in(file["valid/text"])
    assert found == path.read_text("utf-8-sig") == "a\n\nb\n\n\n\ufeffc"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "0 characters"),
        (b"\xef\xbb\xbfa", "1 character,"),
        (b"a", "1 character,"),
        (b"a\0b", "NUL"),
        (b"Gr\xfc\xdfe", "0xfc"),
        (Path.mkdir, "Is a directory"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.touch() or os.truncate(path, 1 << 40), "free memory"),
    ],
    ids=[
        *("empty", "a mark and one character", "one character", "NUL", "Latin-1"),
        *("a folder", "a FIFO", "a link to itself", "larger than memory"),
    ],
)
def test_what_is_no_text_is_one_line(content, what, tmp_path):
    path = tmp_path / "text.txt"
    content(path) if callable(content) else path.write_bytes(content)
    assert_refused(run("text.py", path, "--output", tmp_path / "text.h5"), f"{path}: ", what)
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_too_small_is_one_line_and_leaves_nothing(on_a_small_disk, tmp_path):
    (tmp_path / "text.txt").write_text("Rosen sind rot. " * 16_000)
    arguments = ROOT / "data" / "text.py", tmp_path / "text.txt", "--output", "text.h5"
    ran, kept = on_a_small_disk(*arguments)
    assert_refused(ran, "text.h5: No space left on device")
    assert list(kept.iterdir()) == []


# Mirrors that fail at once, with what the recipe says of them, and mirrors that take their time.

BAD = {
    "has no such file": (
        lambda request, name: request.send_error(404),
        "HTTP Error 404: Not Found",
    ),
    "cuts off": (sends(PACKED[:5000], 9000), "cut off after 5000 of 9000 bytes"),
    "cuts off, no length": (sends(PACKED[:5000]), "file ended before the end-of-stream marker"),
    "cuts off a chunk": (cuts_off_a_chunk, "IncompleteRead"),
    "sends other bytes": (sends(PACKED, len(PACKED)), "100000 bytes unpacked, MD5 "),
    "sends damaged bytes": (sends(PACKED[:-8] + bytes(8)), "CRC check failed"),
    "sends no deflated bytes": (sends(PACKED[:10] + b"\xff" * 99), "invalid block type"),
    "sends a page": (sends(b"<html>Sign in</html>"), "expected 6bbc9ace898e44ae57da46a324031adb"),
    "sends nothing": (sends(b"", 0), "0 bytes unpacked"),
    "sends without end": (never_ends, "bytes unpacked, MD5 "),
    "announces no number": (sends(b"", "many"), "'many'"),
    "hangs up": (lambda request, name: None, "closed connection without response"),
    "speaks no HTTP": (lambda request, name: request.wfile.write(b"220 ftp\r\n"), "220 ftp"),
}
SLOW = {
    "never answers": (lambda request, name: wait(request), "timed out"),
    "falls silent": (sends(PACKED[:5000], 9000, then=wait), "timed out"),
    "trickles": (sends(PACKED[:5000], 9000, then=drips(bytes(1000), 20, 1000)), "too slow"),
    "trickles a header": (
        lambda request, name: drips(b"HTTP/1.0 200 OK\r\nX: " + b"x" * 979, 20, 1000)(request),
        "too slow",
    ),
}


def test_whatever_is_wrong_with_a_mirror_is_one_line_and_the_next_is_asked(serve, tmp_path):
    mirrors = [serve(answer) for answer, what in BAD.values()]
    ran = run("mnist.py", *places(mirrors), "--output", tmp_path / "mnist.h5")
    assert_refused(ran, IMAGES, "--mirror", "--from")
    lines = iter(ran.stdout.splitlines())
    for mirror, (_, what) in zip(mirrors, BAD.values(), strict=True):
        asked = f"{IMAGES} from {mirror.url}"
        assert next(lines) == asked
        failed = next(lines)
        assert failed.startswith(f"{asked}: failed: ") and what in failed
    assert list(lines) == list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", SLOW)
def test_a_mirror_is_given_up_that(how, serve, tmp_path):
    answer, what = SLOW[how]
    mirror, output = serve(answer), tmp_path / "mnist.h5"
    ran = run("mnist.py", *places([mirror]), "--output", output, "--timeout", 0.6)
    assert_refused(ran, IMAGES)
    assert what in ran.stdout.splitlines()[1]
    assert list(tmp_path.iterdir()) == []


def test_a_slow_line_is_waited_for(serve, tmp_path):
    data = PACKED[:36_000]  # in 3.6 seconds; in 3 of them 3000 bytes must come, none a second late
    mirror = serve(sends(b"", len(data), then=drips(data, 3.6, 72)))
    ran = run("mnist.py", *places([mirror]), "--output", tmp_path / "x", "--timeout", 1)
    assert_refused(ran)
    assert "file ended before the end-of-stream marker" in ran.stdout  # so all of it had come


def test_a_good_mirror_is_found_behind_all_the_bad_ones(downloaded, copies, serve, tmp_path):
    bad, good = [serve(answer) for answer, what in BAD.values()], serve(sends_files(copies))
    ran = run("mnist.py", *places([*bad, good]), "--output", tmp_path / "mnist.h5")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [mirror.asked for mirror in bad] == [[IMAGES]] * len(bad)  # once, not for each file
    assert (tmp_path / "mnist.h5").read_bytes() == downloaded[1].read_bytes()


def test_two_mirrors_that_lack_different_files_are_enough(copies, serve, tmp_path):
    first = serve(sends_files(copies, IMAGES, TEST_IMAGES))
    second = serve(sends_files(copies, LABELS, TEST_LABELS))
    ran = run("mnist.py", *places([first, second]), "--output", tmp_path / "mnist.h5")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert first.asked == [IMAGES, LABELS, TEST_IMAGES, TEST_LABELS]
    assert second.asked == [LABELS, TEST_IMAGES, TEST_LABELS]


def test_without_options_two_public_mirrors_are_asked_in_turn(serve, monkeypatch, capsys):
    mnist = imported("mnist", monkeypatch)
    hosts = [urlsplit(url)[:2] for url in mnist.MIRRORS]
    assert {scheme for scheme, host in hosts} == {"https"} and len(set(hosts)) >= 2
    mirrors = [serve(BAD["has no such file"][0]) for host in hosts]
    monkeypatch.setattr(mnist, "MIRRORS", [mirror.url for mirror in mirrors])
    monkeypatch.setattr(sys, "argv", ["mnist.py"])
    with pytest.raises(SystemExit) as left:
        mnist.main()
    assert left.value.code == 2 and capsys.readouterr().err.count("\n") == 1
    assert [mirror.asked for mirror in mirrors] == [[IMAGES]] * len(mirrors)


@pytest.mark.parametrize("url", ["shared/mnist", "http://127.0.0.1:1", "http://[", "http://a b"])
def test_a_place_that_is_no_mirror_is_one_line(url, tmp_path):
    ran = run("mnist.py", "--mirror", url, "--output", tmp_path / "mnist.h5")
    assert_refused(ran, IMAGES)
    assert f"{url}: failed: " in ran.stdout


def test_the_bar_is_shown_on_a_terminal(serve, tmp_path):
    terminal, stderr = os.openpty()
    termios.tcsetwinsize(stderr, (24, 80))
    mirror = serve(sends(b"", 9000, then=drips(PACKED[:9000], 0.5, 5)))
    command = [sys.executable, ROOT / "data" / "mnist.py", *places([mirror])]
    options = {"stdout": subprocess.DEVNULL, "stderr": stderr, "env": ENVIRONMENT}
    with subprocess.Popen([*command, "--output", tmp_path / "x"], **options):
        os.close(stderr)
        shown = b""
        with suppress(OSError):  # so ends a terminal on Linux
            while piece := os.read(terminal, 4096):
                shown += piece
    os.close(terminal)
    assert b"%|" in shown and b"/9.00k" in shown


# Fashion-MNIST and CIFAR-10: small files of their layout, with checksums of their own.


def made(module, monkeypatch, capsys, *words):
    """(status, stdout, stderr) of a recipe that is imported."""
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, words)])
    status = 0
    try:
        module.main()
    except SystemExit as left:
        status = left.code
    return status, *capsys.readouterr()


def idx_file(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def small_fashion(module, monkeypatch, folder):
    """{group: (x, y)}, whose files are in the folder, gzipped."""
    random, groups = np.random.default_rng(0), {}
    for group, name, n in ("train", "train", 40), ("test", "t10k", 10):
        x, y = random.integers(256, size=(n, 28, 28)), random.integers(10, size=n)
        groups[group] = x.astype(np.uint8), y.astype(np.uint8)
        for kind, array in zip(("images-idx3", "labels-idx1"), groups[group], strict=True):
            packed = gzip.compress(idx_file(array))
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(packed)
            md5 = hashlib.md5(packed).hexdigest()
            monkeypatch.setitem(module.MD5, f"{name}-{kind}-ubyte", md5)
    return groups


def small_cifar(module, monkeypatch, folder, missing=None):
    """{group: (x, y)}, whose archive is in the folder; it lacks the batch that is missing."""
    random, content, found = np.random.default_rng(0), io.BytesIO(), []
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in ("test_batch", *(f"data_batch_{k}" for k in range(5, 0, -1))):
            x = random.integers(256, size=(7, 3, 32, 32)).astype(np.uint8)
            y = random.integers(10, size=7).astype(np.uint8)
            found.append((x, y))
            batch = b"".join(
                bytes([label]) + its.tobytes() for its, label in zip(x, y, strict=True)
            )
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(batch)
            if name != missing:
                archive.addfile(member, io.BytesIO(batch))
    packed = content.getvalue()
    (folder / "cifar-10-binary.tar.gz").write_bytes(packed)
    monkeypatch.setitem(module.MD5, "cifar-10-binary.tar.gz", hashlib.md5(packed).hexdigest())
    test, *train = found
    return {"train": [np.concatenate(its) for its in zip(*train[::-1], strict=True)], "test": test}


SMALL = {"fashion_mnist": small_fashion, "cifar10": small_cifar}


@pytest.mark.parametrize("name", SMALL)
def test_other_images_come_from_mirrors_and_folders_as_those_of_mnist(
    name, serve, monkeypatch, capsys, tmp_path
):
    module, here = imported(name, monkeypatch), tmp_path / "here"
    here.mkdir()
    groups = SMALL[name](module, monkeypatch, here)
    mirrors = [serve(BAD["has no such file"][0]), serve(sends_files(here))]
    words = [*places(mirrors), "--output", tmp_path / "remote.h5"]
    status, out, err = made(module, monkeypatch, capsys, *words)
    assert (status, err) == (0, "") and out.count("failed: ") == 1
    n = len(groups["train"][1]), len(groups["test"][1])
    assert out.splitlines()[-1] == f"{words[-1]}: {n[0]} images to train, {n[1]} to test"
    words = ["--from", here, "--output", tmp_path / "local.h5"]
    assert made(module, monkeypatch, capsys, *words)[0] == 0
    assert (tmp_path / "local.h5").read_bytes() == (tmp_path / "remote.h5").read_bytes()
    with h5py.File(tmp_path / "local.h5") as file:
        assert set(file) == set(groups)
        for group, (x, y) in groups.items():
            np.testing.assert_array_equal(file[group]["x"], x)
            np.testing.assert_array_equal(file[group]["y"], y)
            assert file[group]["x"].dtype == file[group]["y"].dtype == np.uint8
        assert len(file.attrs["classes"]) == 10 and file.attrs["scale"] == 1 / 255
        assert file.attrs["classes"][9] == {"cifar10": "truck"}.get(name, "Ankle boot")

    words = ["--from", here, "--output", tmp_path / "held.h5", "--valid", ".2", "--seed", "4"]
    status, out, _ = made(module, monkeypatch, capsys, *words)
    held = round(0.2 * n[0])
    assert out.endswith(f": {n[0] - held} images to train, {held} to validate, {n[1]} to test\n")
    split = drawn(n[0], 0.2, None, 4, ["test"])
    with h5py.File(tmp_path / "held.h5") as file:
        for number, group in enumerate(["train", "valid"]):
            np.testing.assert_array_equal(file[group]["x"], groups["train"][0][split == number])
            np.testing.assert_array_equal(file[group]["y"], groups["train"][1][split == number])
        np.testing.assert_array_equal(file["test/x"], groups["test"][0])


@pytest.mark.parametrize("name", SMALL)
def test_other_images_are_checked_before_they_are_read(name, monkeypatch, capsys, tmp_path):
    module, output = imported(name, monkeypatch), tmp_path / "x.h5"
    words = ["--from", tmp_path, "--output", output]
    status, _, err = made(module, monkeypatch, capsys, *words)
    first = next(iter(module.MD5))
    assert status == 2 and err.count("\n") == 1 and f"{tmp_path}: no {first}" in err
    SMALL[name](module, monkeypatch, tmp_path)
    path = sorted(tmp_path.glob(f"{first}*"))[0]
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    status, _, err = made(module, monkeypatch, capsys, *words)
    assert status == 2 and err.startswith(f"{path}: {len(content)} bytes, MD5 ")
    assert err.count("\n") == 1 and not output.exists()
    if name == "fashion_mnist":  # whose checksums are those of the gzipped files
        path.rename(path.with_suffix(""))
        assert made(module, monkeypatch, capsys, *words)[2].endswith(
            f"expected {path.name} there\n"
        )
    else:
        small_cifar(module, monkeypatch, tmp_path, missing="data_batch_3")
        status, _, err = made(module, monkeypatch, capsys, *words)
        assert status == 2 and "data_batch_3.bin" in err and err.count("\n") == 1


def test_friedmans_table_is_his_function_with_noise_of_variance_1(monkeypatch, capsys, tmp_path):
    module, output = imported("friedman", monkeypatch), tmp_path / "friedman.h5"
    assert made(module, monkeypatch, capsys, "--output", output)[0] == 0
    with h5py.File(output) as file:
        sizes = {group: len(file[group]["y"]) for group in file}
        assert sizes == {"train": 8000, "valid": 1000, "test": 1000}
        assert list(file.attrs["columns"]) == [f"x{i}" for i in range(1, 11)]
        x, y = file["train/x"][...].astype(float), file["train/y"][...].astype(float)
        np.testing.assert_allclose(file.attrs["mean"], x.mean(axis=0))
        np.testing.assert_allclose(file.attrs["std"], x.std(axis=0))
    assert 0 <= x.min() < 0.01 and 0.99 < x.max() < 1
    told = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2
    noise = y - told - 10 * x[:, 3] - 5 * x[:, 4]
    assert abs(noise.mean()) < 0.05 and abs(noise.var() - 1) < 0.05
    assert np.abs(np.corrcoef(noise, x.T)[0, 1:]).max() < 0.05
    before = output.read_bytes()
    assert made(module, monkeypatch, capsys, "--output", output)[0] == 0
    assert output.read_bytes() == before
    status, _, err = made(module, monkeypatch, capsys, "--seed", "-1", "--output", output)
    assert status == 2 and err.startswith("--seed = -1") and output.read_bytes() == before


# Bad copies, and nowhere to write.


def test_the_local_copies_are_not_replaced(tmp_path):
    copy = tmp_path / f"{IMAGES}.gz"
    copy.write_bytes(PACKED)
    ran = run("mnist.py", "--from", tmp_path, "--output", copy)
    assert_refused(ran, f"--output {copy} would replace {copy}, expected another file")


def test_a_folder_without_the_files_is_one_line(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        ran = run("mnist.py", "--from", folder, "--output", tmp_path / "mnist.h5")
        assert_refused(ran, f"{folder}: no {IMAGES}")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_lacks_the_last_file_is_one_line(copies, tmp_path):
    for name in (IMAGES, LABELS, TEST_IMAGES):
        (tmp_path / f"{name}.gz").symlink_to(copies / f"{name}.gz")
    ran = run("mnist.py", "--from", tmp_path, "--output", tmp_path / "mnist.h5")
    assert_refused(ran, f"{tmp_path}: no {TEST_LABELS}")
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        (f"{IMAGES}.gz", PACKED[:5000], "file ended before the end-of-stream marker"),
        (f"{IMAGES}.gz", PACKED, "100000 bytes unpacked, MD5 "),
        (IMAGES, b"", "MD5 d41d8cd98f00b204e9800998ecf8427e, expected 6bbc9ace"),
        (IMAGES, Path.mkdir, "Is a directory"),
        (IMAGES, os.mkfifo, "not a regular file"),
    ],
    ids=["cut off", "another file", "empty", "a folder", "a FIFO"],
)
def test_a_bad_local_copy_is_one_line(name, data, what, tmp_path):
    path = tmp_path / name
    data(path) if callable(data) else path.write_bytes(data)
    ran = run("mnist.py", "--from", tmp_path, "--output", tmp_path / "mnist.h5")
    assert_refused(ran, f"{path}: ", what)
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_and_leaves_the_old_file_whole(tmp_path):
    output = tmp_path / "digits.h5"
    output.write_bytes(b"old")

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    ran = run("digits.py", "--output", output, preexec_fn=small_files)
    assert_refused(ran, "File too large")
    assert list(tmp_path.iterdir()) == [output] and output.read_bytes() == b"old"


def test_a_folder_that_is_not_there_to_write_in_is_one_line(copies, tmp_path):
    output = tmp_path / "nowhere" / "file.h5"
    assert_refused(
        run("digits.py", "--output", output), str(output), f"no directory {output.parent}"
    )
    ran = run("mnist.py", "--from", copies, "--output", output)
    assert_refused(ran, str(output), f"no directory {output.parent}")
    ran = run("text.py", ROOT / "README.md", "--output", output)
    assert_refused(ran, str(output), f"no directory {output.parent}")
    assert list(tmp_path.iterdir()) == []
