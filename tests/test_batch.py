"""A batch of photographs: in parallel and in order, resumed after a kill, beside other processes, in bounded memory."""

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fvlrp import FisherVectorClassifier, cli
from fvlrp.cli import batch, naming
from fvlrp.cli.outbox import Outbox
from fvlrp.data import files
from fvlrp.data.photographs import File

posix = pytest.mark.skipif(os.name != "posix", reason="signals and locks as POSIX knows them")


@pytest.fixture(scope="module")
def model(plain, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "plain.fvlrp"
    plain.save(path)
    return str(path)


def photograph(path, seed=0, shape=(60, 80, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """Twelve photographs, two of one name in other folders, and two broken ones."""
    root = tmp_path / "photographs"
    for i in range(12):
        photograph(root / ("a" if i % 2 else "b") / f"{i // 2:04}.png", i)
    (root / "a" / "0002.png").write_bytes(b"no photograph")
    (root / "b" / "cut.png").write_bytes(Path(root / "b" / "0001.png").read_bytes()[:2000])
    return root


def run(capsys, *args):
    code = cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err


def tree(out):
    """Every file in and below a folder with a digest of its bytes."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


# ---- pictures among photographs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "maps"])
def test_results_among_the_photographs_are_not_explained(capsys, model, tmp_path, below):
    photographs = tmp_path / "photographs"
    for name in ("a.png", "b.png"):
        photograph(photographs / name)
    args = ["explain", photographs, "--model", model, "--out", photographs / below, "--sheet", "--depth", "all"]
    assert run(capsys, *args)[0] == 0
    first = tree(photographs)
    (photographs / below / "a.json").unlink()  # as if the run had been killed
    code, _, err = run(capsys, *args)
    assert code == 0 and "skipped 10 pictures that fvlrp wrote" in err
    assert tree(photographs).keys() == first.keys()
    code, _, err = run(capsys, *args[:1], photographs / below / "a_sheet.png", *args[2:])
    assert code == 2 and "only pictures that fvlrp wrote" in err


def test_results_in_any_folder_of_photographs_are_not_explained_unless_named(capsys, model, tmp_path):
    photo, args = photograph(tmp_path / "x" / "a.png"), ["--model", model, "--out"]
    assert run(capsys, "explain", photo, *args, tmp_path / "x" / "maps")[0] == 0
    code, _, err = run(capsys, "explain", tmp_path / "x", *args, tmp_path / "other")
    assert code == 0 and "skipped 1 picture that fvlrp wrote" in err
    heatmap = next((tmp_path / "x" / "maps").glob("*.png"))
    code, text, err = run(capsys, "explain", heatmap, *args, tmp_path / "other")
    assert code == 0 and "skipped" not in err and len(text.splitlines()) == 1


def test_results_of_other_options_are_not_replaced_in_silence(capsys, model, tmp_path):
    args = ["explain", photograph(tmp_path / "a.png"), "--model", model, "--out", tmp_path / "o", "--quiet"]
    assert "replaced" not in run(capsys, *args)[2]
    assert "replaced" not in run(capsys, *args)[2]  # the same again
    code, _, err = run(capsys, *args, "--cmap", "grey")
    assert code == 0 and "replaced 1 result of other options, such as a_" in err
    assert "replaced" not in run(capsys, *args, "--cmap", "grey", "--depth", "gradient")[2]


@pytest.mark.parametrize(
    ("command", "name"),
    [("compare", "a.png"), ("words", "a.png"), ("report", "a.html"), ("flip", "a.svg")],
)
def test_no_command_replaces_a_result_in_silence(capsys, model, tmp_path, command, name):
    if command == "flip":
        pytest.importorskip("matplotlib")
    option = "--plot" if command == "flip" else "--out"
    args = [command, photograph(tmp_path / "photo.png"), "--model", model, option, tmp_path / name, "--quiet"]
    args += ["--steps", 2] if command == "flip" else []
    code, _, err = run(capsys, *args)
    assert code == 0 and "replaced" not in err
    code, _, err = run(capsys, *args)
    assert code == 0 and f"{tmp_path / name} exists and will be replaced" in err


def test_a_demo_names_the_results_that_it_replaces(capsys, tmp_path):
    args = ["demo", photograph(tmp_path / "photo.png"), "--out", tmp_path / "o", "--quiet"]
    assert "replaced" not in run(capsys, *args)[2]
    assert f"5 results will be replaced, such as {tmp_path / 'o' / 'photo_vector.png'}" in run(capsys, *args)[2]


def test_a_resumed_run_says_what_was_done_already(capsys, model, tmp_path):
    first, second = (photograph(tmp_path / name) for name in ("a.png", "b.png"))
    args = ["--model", model, "--out", tmp_path / "o", "--resume"]
    assert "already" not in run(capsys, "explain", first, *args)[2]
    _, _, err = run(capsys, "explain", first, second, *args)
    lines = {str(photo): next(line for line in err.splitlines() if f"{photo}: " in line) for photo in (first, second)}
    assert lines[str(first)].endswith("(already done)") and "already" not in lines[str(second)]
    assert "1 of 2 photographs already done" in err.splitlines()


def test_an_empty_out_is_refused(capsys, model, tmp_path):
    code, _, err = run(capsys, "explain", photograph(tmp_path / "a.png"), "--model", model, "--out", "")
    assert code == 2 and '--out must name a folder, got ""' in err


# ---- in parallel -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [2, 3])
def test_results_are_the_same_bytes_in_the_same_order_for_any_number_of_threads(capsys, folder, model, tmp_path, jobs):
    args = ["explain", folder, "--model", model, "--format", "png,npz", "--sheet", "--json"]
    code, text, err = run(capsys, *args, "--out", tmp_path / "one", "--jobs", 1)
    other_code, other_text, other_err = run(capsys, *args, "--out", tmp_path / "two", "--jobs", jobs)
    assert code == other_code == 1
    one, two = json.loads(text), json.loads(other_text.replace(str(tmp_path / "two"), str(tmp_path / "one")))
    assert one == two and len(one["results"]) == 11 and len(one["failed"]) == 2
    photos = [result["photo"] for result in one["results"]]
    assert photos == sorted(photos)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert err.splitlines()[-2:] == other_err.splitlines()[-2:]


def test_photographs_are_processed_in_parallel(capsys, folder, model, tmp_path, monkeypatch):
    import threading

    meeting, trace = threading.Barrier(2, timeout=20), FisherVectorClassifier.trace

    def wait(self, *args):
        if threading.current_thread() is not threading.main_thread():
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait()
        return trace(self, *args)

    monkeypatch.setattr(FisherVectorClassifier, "trace", wait)
    photos = [folder / "b" / f"{i:04}.png" for i in range(4)]
    assert run(capsys, "explain", *photos, "--model", model, "--out", tmp_path / "o", "--jobs", 2)[0] == 0
    assert not meeting.broken


def test_names_of_files_come_as_photographs_are_done(folder, model, tmp_path):
    command = [sys.executable, "-m", "fvlrp", "explain", folder, "--model", model, "--out", tmp_path / "o", "--quiet"]
    done = subprocess.run([*command, "--jobs", "2"], capture_output=True, text=True, check=False)
    names = done.stdout.splitlines()
    assert done.returncode == 1 and len(names) == 11 and all(Path(name).is_file() for name in names)


def test_outputs_keep_the_subfolders_of_their_photographs(capsys, folder, model, tmp_path):
    run(capsys, "explain", folder, "--model", model, "--out", tmp_path / "o", "--target", "brick")
    assert {"a/0000_brick_bin.png", "b/0000_brick_bin.png"} <= tree(tmp_path / "o").keys()


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [True, False])
def test_photographs_of_one_name_never_overwrite_each_other(capsys, model, tmp_path, together):
    photos = [photograph(tmp_path / name / "0001.png", seed) for seed, name in enumerate("abc")]
    args = ["--model", model, "--out", tmp_path / "o", "--target", "brick", "--format", "npz", "--json"]
    results = []
    for given in [photos] if together else [[photo] for photo in photos]:
        code, text, _ = run(capsys, "explain", *given, *args)
        assert code == 0
        results += json.loads(text)["results"]
    assert len({result["files"][0] for result in results}) == 3
    for result in results:
        assert np.array_equal(
            files.load_arrays(result["files"][0])[1]["image"], np.asarray(Image.open(result["photo"]))
        )


def test_names_of_results_do_not_depend_on_other_photographs(capsys, model, tmp_path):
    photos = [photograph(tmp_path / name / "0001.png", seed) for seed, name in enumerate("ab")]
    args = ["--model", model, "--out", tmp_path / "o", "--resume", "--json"]
    _, text, _ = run(capsys, "explain", *photos, *args)
    before = tree(tmp_path / "o")
    for given in (photos[::-1], photos[1:]):
        _, again, _ = run(capsys, "explain", *given, *args)
        assert json.loads(again)["results"][0] == json.loads(text)["results"][1]
    assert tree(tmp_path / "o") == before


def test_a_broken_photograph_is_reported_under_its_name(capsys, model, tmp_path):
    """Else names would depend on whether it had failed before the next of its name was asked for."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0001.png").write_bytes(b"broken")
    second = photograph(tmp_path / "b" / "0001.png")
    results = []
    for jobs in (1, 3):
        args = [tmp_path / "a" / "0001.png", second, "--model", model, "--json", "--jobs", jobs]
        code, text, _ = run(capsys, "explain", *args, "--out", tmp_path / f"o{jobs}")
        assert code == 1
        results.append([Path(name).name for name in json.loads(text)["results"][0]["files"]])
        assert "cannot read" in json.loads((tmp_path / f"o{jobs}" / "0001.json").read_text())["error"]
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ["..jpg", ".jpg", "...png", "a b/../..png", "-.png"])
def test_no_name_escapes_the_folder(capsys, model, tmp_path, name):
    path = tmp_path / "in" / Path(name).name
    photograph(tmp_path / "in" / "x.png")
    os.rename(tmp_path / "in" / "x.png", path)
    outside = set(tmp_path.iterdir())
    code, text, _ = run(capsys, "explain", path, "--model", model, "--out", tmp_path / "o", "--json")
    (result,) = json.loads(text)["results"]
    assert code == 0 and all(Path(file).parent == tmp_path / "o" for file in result["files"])
    assert set(tmp_path.iterdir()) - outside == {tmp_path / "o"}
    assert not any(entry.name.startswith(".") for entry in (tmp_path / "o").iterdir())


@posix
def test_long_names_are_shortened_and_stay_apart(capsys, textures, tmp_path):
    images, labels = textures(2, seed=4)
    long = {"brick": "b" * 200, "grass": "b" * 199 + "c", "gravel": "ä" * 120}
    clf = FisherVectorClassifier(n_components=4, n_pca=8).fit(images, [long[label] for label in labels])
    clf.save(tmp_path / "m.fvlrp")
    photos = [photograph(tmp_path / ("x" * 240 + end), seed) for seed, end in enumerate(("1.png", "2.png"))]
    args = ["--model", tmp_path / "m.fvlrp", "--target", "all", "--out", tmp_path / "o", "--json"]
    code, text, _ = run(capsys, "explain", *photos, *args)
    written = [file for result in json.loads(text)["results"] for file in result["files"]]
    assert code == 0 and len(set(written)) == 6 and all(os.path.isfile(file) for file in written)


def test_photographs_and_classes_share_no_file():
    """The parts of a name can be told apart from its end: a class called "table" takes no file of "dining table"."""
    one = f"x_{naming.result('dining table', 'bin')}"
    other = f"x_dining_{naming.result('table', 'bin')}"
    assert one == "x_dining-table_bin" != other


# ---- resumed ---------------------------------------------------------------------------------------------------------


def command(folder, out, model, *more):
    return [
        *(sys.executable, "-m", "fvlrp", "explain", str(folder), "--model", model, "--out", str(out)),
        *("--quiet", "--jobs", "2", "--format", "png,npz", "--resume", *more),
    ]


@posix
def test_resuming_after_a_kill_loses_and_repeats_nothing(folder, model, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    subprocess.run(command(folder, whole, model), capture_output=True, check=False)
    wanted, draw, kills = tree(whole), random.Random(5), 0
    for _ in range(12):
        started = subprocess.Popen(command(folder, out, model), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while started.poll() is None and not any(out.rglob("*.json")):
            time.sleep(0.002)
        time.sleep(draw.random() * 0.15)
        started.send_signal(signal.SIGKILL)
        kills += started.wait() == -signal.SIGKILL
        for record in out.rglob("*.json"):  # whole wherever they are
            json.loads(record.read_text())
    finished = {
        record: record.stat().st_mtime_ns
        for record in out.rglob("*.json")
        if "error" not in json.loads(record.read_text())
    }
    last = subprocess.run(command(folder, out, model), capture_output=True, text=True, check=False)
    assert kills > 2 and last.returncode == 1
    assert tree(out) == wanted
    assert all(record.stat().st_mtime_ns == made for record, made in finished.items())


@posix
def test_temporary_files_of_a_killed_run_are_removed_and_reported(capsys, model, tmp_path):
    photo = photograph(tmp_path / "x.png")
    out = tmp_path / "o"
    out.mkdir()
    (out / ".0123456789abcdef.tmp").write_bytes(b"half")
    code, _, err = run(capsys, "explain", photo, "--model", model, "--out", out, "--resume")
    assert code == 0 and "removed 1 temporary file of killed runs" in err
    assert not list(out.glob(".*"))


def test_resume_does_not_accept_files_of_an_interrupted_run_with_other_options(capsys, model, tmp_path, monkeypatch):
    """Its pictures may have replaced the first run's, under the same names."""
    photo, args = photograph(tmp_path / "x.png"), ["--model", model, "--out", tmp_path / "o", "--target", "brick"]
    run(capsys, "explain", photo, *args)
    with monkeypatch.context() as patch:
        patch.setattr("fvlrp.cli.outbox.Claim.finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(capsys, "explain", photo, *args, "--rule", "epsilon_pool=1")[0] == 130
    _, text, _ = run(capsys, "explain", photo, *args, "--resume", "--json")
    (result,) = json.loads(text)["results"]
    assert result["explanations"][0]["rules"]["epsilon_pool"] == 100
    wanted = tmp_path / "wanted"
    run(capsys, "explain", photo, *args[:2], "--out", wanted, *args[4:])
    assert (wanted / "x_brick_bin.png").read_bytes() == (tmp_path / "o" / "x_brick_bin.png").read_bytes()


# ---- beside others ---------------------------------------------------------------------------------------------------


@posix
def test_processes_that_share_a_folder_do_not_overwrite_each_other(model, tmp_path):
    for seed in range(16):
        photograph(tmp_path / f"in{seed % 4}" / f"{seed // 4:04}.png", seed)
    out = tmp_path / "o"
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "fvlrp", "explain", *map(str, sorted((tmp_path / f"in{i}").iterdir()))),
                *("--model", model, "--out", str(out), "--format", "npz", "--json", "--quiet"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(4)
    ]
    results = [result for process in started for result in json.loads(process.communicate()[0])["results"]]
    written = [file for result in results for file in result["files"]]
    assert [process.returncode for process in started] == [0] * 4 and len(set(written)) == 16
    for result in results:
        stored = files.load_arrays(result["files"][0])[1]["image"]
        assert np.array_equal(stored, np.asarray(Image.open(result["photo"])))
    assert not list(out.glob(".*"))


def test_a_photograph_replaced_while_it_is_explained_is_explained_again(tmp_path):
    photo, out = photograph(tmp_path / "a.png"), tmp_path / "out"
    out.mkdir()
    outbox, file = Outbox(out, {}), File(photo)
    for replaced in (False, True):
        claim = outbox.claim(file)
        claim.path("b.png").touch()
        if replaced:
            photograph(Path(photo), 1, (20, 20, 3))
        claim.finish({"files": [str(claim.path("b.png"))]})
        assert (outbox.finished(file) is None) == replaced


@posix
def test_a_photograph_locked_by_another_process_is_refused(capsys, model, tmp_path):
    photo, out = photograph(tmp_path / "x.png"), tmp_path / "o"
    out.mkdir()
    claim = Outbox(out, {}).claim(File(photo))
    code, text, err = run(capsys, "explain", photo, "--model", model, "--out", out, "--json")
    assert (
        code == 1
        and "another fvlrp process is explaining it into" in json.loads(text)["failed"][0]["error"]
        and photo in err
    )
    claim.release()
    assert run(capsys, "explain", photo, "--model", model, "--out", out)[0] == 0


# ---- memory and time -------------------------------------------------------------------------------------------------


def bomb(path, height, width):
    """A grey PNG of any size in a few kilobytes."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    pack, row = zlib.compressobj(9), bytes(width + 1)
    data = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return str(path)


def test_a_photograph_beyond_the_memory_budget_is_refused_and_the_batch_continues(capsys, model, tmp_path):
    large = bomb(tmp_path / "large.png", 400, 200_000)
    small = photograph(tmp_path / "small.png")
    assert os.path.getsize(large) < 200_000
    start = time.monotonic()
    args = ["--model", model, "--out", tmp_path / "o", "--memory", "2", "--json"]
    code, text, err = run(capsys, "explain", large, small, *args)
    value = json.loads(text)
    assert code == 1 and [result["photo"] for result in value["results"]] == [small]
    assert value["failed"][0]["error"].startswith("out of memory: it would take 2.5 GB, and photographs may take")
    assert large in err and time.monotonic() - start < 20


def test_the_memory_option_raises_the_budget(capsys, model, tmp_path):
    photo = photograph(tmp_path / "x.png")  # 60 x 80 pixels at 111 bytes
    args = ["explain", photo, "--model", model, "--out", tmp_path / "o"]
    assert run(capsys, *args, "--memory", "0.0005")[0] == 1
    assert run(capsys, *args, "--memory", "0.0006")[0] == 0


def test_footprint_counts_the_descriptors_of_one_strip():
    clf = FisherVectorClassifier(max_height=None)

    def cost(height, width):
        return batch.footprint(clf, np.broadcast_to(np.uint8(0), (height, width)))

    assert cost(1000, 1000) == (batch.OF_PHOTOGRAPH + batch.OF_REDUCED) * 10**6
    assert cost(10000, 20000) - cost(10000, 10000) == batch.OF_PHOTOGRAPH * 10**8
    assert cost(10000, 10000) < batch.MOST  # measured: 1.6 GB, and 2.7 GB where the map is saved as a picture


def test_photographs_share_the_memory_budget(capsys, folder, model, tmp_path, monkeypatch):
    now, most, trace = 0, 0, FisherVectorClassifier.trace

    def count(self, *args):
        nonlocal now, most
        now += 1
        most = max(most, now)
        time.sleep(0.005)
        made = trace(self, *args)
        now -= 1
        return made

    monkeypatch.setattr(FisherVectorClassifier, "trace", count)
    args = ["explain", *(folder / "b" / f"{i:04}.png" for i in range(5)), "--model", model, "--out", tmp_path / "o"]
    assert run(capsys, *args, "--jobs", 4, "--memory", "0.0006")[0] == 0
    assert most == 1


def test_a_long_run_prints_an_estimate(capsys, folder, model, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "LONG", 0)
    monkeypatch.setattr(batch, "IMMEDIATE", -1)  # whatever the machine is doing, the first photograph is timed
    _, _, err = run(capsys, "explain", folder, "--model", model, "--out", tmp_path / "o", "--jobs", 2)
    lines = [line for line in err.splitlines() if "left: about" in line]
    assert len(lines) == 1 and lines[0].startswith("12 photographs left: about ")
    assert lines[0].endswith(" and 1 MB in addition to the model, with 2 threads")


@pytest.mark.parametrize(("seconds", "words"), [(3.2, "3 s"), (119, "119 s"), (600, "10 min"), (36_000, "10.0 h")])
def test_durations_are_readable(seconds, words):
    assert batch._duration(seconds) == words


# ---- signals and disks -----------------------------------------------------------------------------------------------


@posix
def heed_interrupts():
    """Tests may run in the background of a shell, which lets its jobs ignore interrupts, and their children too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_a_batch_at_once_without_partial_files(data, tmp_path, number, code, word):
    photos = sorted((data / "VOCdevkit" / "VOC2012" / "JPEGImages").iterdir())[:60]
    out = tmp_path / "o"
    # Coverage would save its counts after the last clean-up, while threads are still at work.
    uncounted = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    started = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "fvlrp",
            "explain",
            *map(str, photos),
            "--out",
            str(out),
            "--jobs",
            "2",
            "--format",
            "png,npz",
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=uncounted,
        preexec_fn=heed_interrupts,
    )
    while not any(out.glob("*.json")):
        time.sleep(0.01)
    time.sleep(0.2)
    start = time.monotonic()
    started.send_signal(number)
    _, err = started.communicate()
    took = time.monotonic() - start
    assert started.returncode == code and err.splitlines()[-1] == f"fvlrp: {word}" and "Traceback" not in err
    assert took < 5  # docs/reliability.md has the measured time, well under half a second
    assert not list(out.glob(".*"))
    for record in out.glob("*.json"):
        for name in json.loads(record.read_text()).get("files", ()):
            assert (out / name).stat().st_size > 0


@posix
@pytest.mark.parametrize("name", ["argparse", "numpy"])
def test_an_interrupt_while_modules_load_prints_no_traceback(tmp_path, name):
    """argparse stands for what `fvlrp.cli` itself imports, numpy for all that takes long to import."""
    stub = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
    (tmp_path / f"{name}.py").write_text(stub)
    code = "import sys, fvlrp.__main__; sys.path.insert(0, sys.argv.pop()); sys.exit(fvlrp.__main__.main())"
    command = [sys.executable, "-c", code, "info", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=heed_interrupts)
    assert done.returncode == 130 and done.stderr == "\nfvlrp: interrupted\n"


def test_a_full_disk_fails_the_photograph_and_leaves_nothing(capsys, model, tmp_path, monkeypatch):
    photos = [photograph(tmp_path / f"{i}.png", i) for i in range(2)]
    replace, calls = os.replace, []

    def full(source, target):
        calls.append(target)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        return replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    code, text, _ = run(capsys, "explain", *photos, "--model", model, "--out", tmp_path / "o", "--jobs", 1, "--json")
    value = json.loads(text)
    assert code == 1 and "No space left" in value["failed"][0]["error"] and len(value["results"]) == 1
    assert not list((tmp_path / "o").glob(".*"))
