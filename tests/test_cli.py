"""The command line: results on stdout, exit codes, batches that go on and runs that resume."""

import copy
import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fvlrp import Contrast, ConvNet, FisherVectorClassifier, cli, evaluate, models
from fvlrp.cli import info, naming
from fvlrp.core import figures
from fvlrp.data import files
from fvlrp.data.datasets import open_dataset
from fvlrp.evaluate.evidence import DepthStudy
from fvlrp.network.graph import Node
from fvlrp.network.layers import Activation, Conv, Flatten, GlobalAveragePool, ReLU
from fvlrp.rules import Box, ConvRules, Epsilon, Gamma, WSquare, ZPlus


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(3):
        pixels = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        paths.append(str(tmp_path / f"photo{i}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture
def model(plain, tmp_path):
    path = str(tmp_path / "plain.fvlrp")
    plain.save(path)
    return path


def run(capsys, *args):
    code = cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err


def test_explain_writes_every_picture_and_array_it_names(capsys, photographs, model, tmp_path):
    out = tmp_path / "out"
    code, text, _ = run(
        capsys, "explain", photographs[0], "--model", model, "--target", "all", "--depth", "all", "--format", "png,npz",
        "--sheet", "--out", out, "--json",
    )  # fmt: skip
    result = json.loads(text)["results"][0]
    assert code == 0
    targets = [score["target"] for score in result["scores"]]
    assert len(targets) == 3
    assert len(result["files"]) == 3 * 4 * 2 + 1
    with np.load(out / f"photo0_{targets[0]}_bin.npz") as arrays:
        first = next(ex for ex in result["explanations"] if ex["depth"] == "bin")
        assert arrays["heatmap"].shape == (60, 80)
        assert arrays["heatmap"].sum() == pytest.approx(first["ledger"]["heatmap"])
    for path in result["files"]:
        if path.endswith(".png"):
            Image.open(path).verify()


def test_a_broken_photograph_is_listed_and_does_not_stop_the_batch(capsys, photographs, model, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no photograph")
    code, text, err = run(
        capsys, "explain", photographs[0], broken, photographs[1], "--model", model, "--out", tmp_path / "o", "--json"
    )
    result = json.loads(text)
    assert code == 1
    assert len(result["results"]) == 2
    assert [failure["photo"] for failure in result["failed"]] == [str(broken)]
    assert err.rstrip().splitlines()[-1].startswith(f"fvlrp: {broken}: cannot read image: ")


def test_a_run_resumes_where_it_stopped(capsys, photographs, model, tmp_path):
    args = ["--model", model, "--out", tmp_path / "o", "--json"]
    run(capsys, "explain", *photographs[:2], *args)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "o").iterdir()}
    (tmp_path / "o" / "photo1.json").unlink()
    code, text, _ = run(capsys, "explain", *photographs, *args, "--resume")
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "o").iterdir()}
    assert code == 0 and len(json.loads(text)["results"]) == 3
    assert {path.name for path in before if before[path] == after.get(path) and path.name.startswith("photo0")}
    changed = {path.name for path, when in after.items() if before.get(path) != when}
    assert not any(name.startswith("photo0") for name in changed)
    assert any(name.startswith("photo1") for name in changed) and any(name.startswith("photo2") for name in changed)


def test_resuming_with_other_choices_computes_again(capsys, photographs, model, tmp_path):
    args = ["explain", photographs[0], "--model", model, "--out", tmp_path / "o", "--json", "--resume"]
    run(capsys, *args)
    _, text, _ = run(capsys, *args, "--rule", "epsilon_pool=1")
    assert json.loads(text)["results"][0]["explanations"][0]["rules"]["epsilon_pool"] == 1


def test_resuming_with_another_photograph_of_the_same_name_computes_again(capsys, photographs, model, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    Image.open(photographs[0]).transpose(Image.Transpose.ROTATE_180).save(other / "photo0.png")
    args = ["--model", model, "--out", tmp_path / "o", "--json", "--resume"]
    run(capsys, "explain", photographs[0], *args)
    _, text, _ = run(capsys, "explain", other / "photo0.png", *args)
    assert json.loads(text)["results"][0]["photo"] == str(other / "photo0.png")


def test_an_unreadable_photograph_in_compare_is_named(capsys, photographs, model, tmp_path):
    low = tmp_path / "low.png"
    Image.new("RGB", (9, 9)).save(low)
    out = tmp_path / "sheet.png"
    for target in ([], ["--target", "brick"]):
        code, text, err = run(capsys, "compare", low, "--model", model, "--out", out, "--json", *target)
        assert code == 1 and "low.png" in err and "too small" in err
        assert json.loads(text)["sheet"] is None and not out.exists()
    code, text, err = run(capsys, "compare", low, photographs[0], "--model", model, "--out", out, "--json")
    value = json.loads(text)
    assert code == 1 and err.rstrip().splitlines()[-1].startswith(f"fvlrp: {low}: ")
    assert value["sheet"] == str(out) and len(value["targets"]) == 1 and value["failed"][0]["photo"] == str(low)
    alone = Image.open(out).size
    assert run(capsys, "compare", photographs[0], "--model", model, "--out", out)[0] == 0
    assert Image.open(out).size == alone


def test_photographs_of_one_name_do_not_overwrite_each_other(capsys, photographs, model, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    Image.open(photographs[0]).transpose(Image.Transpose.ROTATE_180).save(other / "photo0.png")
    _, text, _ = run(
        capsys, "explain", photographs[0], other / "photo0.png", "--model", model, "--out", tmp_path / "o", "--json"
    )
    first, second = json.loads(text)["results"]
    assert not set(first["files"]) & set(second["files"])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--target", "unicorn"], "unicorn.*classes are"),
        (["--depth", "pixel"], "pixel.*depths are.*gradient"),
        (["--rule", "epsilon=3"], "epsilon.*valid options are.*epsilon_pool"),
        (["--rule", "epsilon_pool"], "NAME=VALUE"),
        (["--rule", "bias=drop"], "bias must be one of 'distribute'"),
        (["--format", "gif"], "gif"),
        (["--target", "brick", "--depth", "bin,pixel"], "pixel.*depths are.*gradient"),
        (["--target", "brick,unicorn"], "unicorn.*classes are"),
    ],
)
def test_wrong_options_are_named_with_the_valid_ones(capsys, untraced, photographs, model, tmp_path, args, words):
    code, out, err = run(capsys, "explain", *photographs, "--model", model, "--out", tmp_path / "o", *args)
    assert code == 2 and out == ""
    assert len(err.splitlines()) == 1 and re.search(words, err)
    assert not (tmp_path / "o").exists()


@pytest.fixture
def untraced(monkeypatch):
    """No forward pass is allowed."""
    from fvlrp import FisherVectorClassifier

    def refuse(*args):
        raise AssertionError("a forward pass before the options were checked")

    monkeypatch.setattr(FisherVectorClassifier, "trace", refuse)


@pytest.mark.parametrize(
    ("command", "option"),
    [*itertools.product(["flip", "report", "compare"], ["--target", "--depth"]), ("demo", "--target")],
)
def test_every_command_checks_its_options_first(capsys, untraced, photographs, model, tmp_path, command, option):
    given = [] if command == "demo" else ["--model", model]
    given += [] if command == "flip" else ["--out", tmp_path / "out.png"]
    code, _, err = run(capsys, command, *photographs, *given, option, "unicorn")
    assert code == 2 and len(err.splitlines()) == 1 and re.search("unknown .*'unicorn'.* are ", err)


def test_an_unknown_model_lists_the_packaged_ones(capsys, photographs):
    code, _, err = run(capsys, "explain", photographs[0], "--model", "nothing")
    assert code == 1 and re.search("no model 'nothing'.*voc20", err)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", ".", "--out", "x", "--C", "0"], "--C: expected a positive number or auto, got '0'"),
        (["train", ".", "--out", "x", "--C", "best"], "--C: expected a positive number or auto, got 'best'"),
        (["train", ".", "--out", "x", "--step", "0"], "--step: expected a whole number of at least 1, got '0'"),
        (["retrain", "n", ".", "--out", "x", "--C", "-1"], "--C: expected a positive number, got '-1'"),
        (["flip", "x", "--steps", "2.5"], "--steps: expected a whole number of at least 1, got '2.5'"),
        (["flip", "x", "--seed", "-1"], "--seed: expected a whole number of at least 0"),
        (["explain", "x", "--range", "9:1"], "expected the values of black and white, such as 0:4095, got '9:1'"),
        (["explain", "x", "--range", "black"], "such as 0:4095, got 'black'"),
        (["explain", "x", "--page", "-1"], "--page: expected a page, counted from 0"),
        (["info", "--jobs", "0"], "--jobs: expected a number of threads, or -1 for all, got '0'"),
    ],
)
def test_numbers_out_of_range_are_wrong_usage(capsys, args, words):
    with pytest.raises(SystemExit) as stop:
        cli.main(args)
    assert stop.value.code == 2 and words in capsys.readouterr().err


@pytest.fixture
def network(tmp_path):
    """A network with a class whose name has a comma."""
    random = np.random.default_rng(0)
    layers = [
        Conv(random.normal(size=(8, 3, 3, 3)).astype(np.float32), np.zeros(8, np.float32)),
        ReLU(),
        Conv(random.normal(size=(3, 8, 1, 1)).astype(np.float32), np.zeros(3, np.float32)),
        GlobalAveragePool(),
        Flatten(),
    ]
    names = "conv1", "relu", "conv2", "pool", "scores"
    nodes = [Node.of(n, a, (i - 1,)) for i, (n, a) in enumerate(zip(names, layers, strict=True))]
    path = str(tmp_path / "net.fvlrp")
    ConvNet(nodes, (3, 24, 20), ["cat", "crane, bird", "crane, machine"]).save(path)
    return path


def test_retraining_says_what_became_of_the_last_layer(capsys, network, photographs, tmp_path):
    for i, name in enumerate(("a", "b")):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(np.full((24, 20, 3), 90 * i + 50, np.uint8)).save(tmp_path / "set" / name / "1.png")
    features = tmp_path / "features.fvlrp"
    net = models.load(network)
    ConvNet([*net.nodes, Node.of("gelu", Activation("gelu"), (4,))], (3, 24, 20)).save(features)
    for model, words in ((network, "layer 'conv2' was replaced"), (features, "layer 'head' was appended")):
        args = ["retrain", model, tmp_path / "set", "--out", tmp_path / "new.fvlrp"]
        assert words in run(capsys, *args)[1]
        assert json.loads(run(capsys, *args, "--json")[1])["head"] == words


def test_layers_take_their_own_rules(capsys, network, photographs, tmp_path):
    rules = ["--rule", "conv2=gamma:0.5", "--rule", "composite", "--rule", "conv1=wsquare", "--rule", "bias=ignore"]
    args = [photographs[0], "--model", network, "--target", "crane, bird", "--format", "npz", "--quiet", "--json"]
    code, text, _ = run(capsys, "explain", *args, *rules, "--out", tmp_path)
    result = json.loads(text)["results"][0]
    assert code == 0 and [score["target"] for score in result["scores"]] == ["crane, bird"]
    layers = {"conv2": Gamma(0.5), "conv1": WSquare(), "conv": ZPlus(), "first": Box()}
    given = ConvRules(Epsilon(), layers, bias="ignore")
    assert result["explanations"][0]["rules"] == given.to_dict()
    with np.load(result["files"][0]) as arrays:
        wanted = models.load(network).explain(photographs[0], "crane, bird", rules=given).heatmap
        np.testing.assert_allclose(arrays["heatmap"], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            "conv9=flat",
            "no layer or kind 'conv9'; kinds are first, .*conv.*; layers are conv1, relu, conv2, pool, scores",
        ),
        ("conv1=square", "the rule of 'conv1' must be one of 'epsilon', .*'wsquare', 'flat', 'box', got 'square'"),
        ("relu=flat", "'relu'.* takes no rule"),
        ("pool=box", "Box is a rule for the layer that sees the pixels, got it for 'pool'"),
        ("conv2=box", "Box is a rule for the layer that sees the pixels, got it for 'conv2'"),
        ("lrp", "unknown rules 'lrp'; presets are 'smooth', 'paper', .*; rules are epsilon"),
        ("epsilon:much", "takes numbers for epsilon after colons"),
    ],
)
def test_rules_of_a_network_are_checked_first(capsys, network, photographs, tmp_path, rule, words, monkeypatch):
    monkeypatch.setattr(ConvNet, "trace", None)
    code, _, err = run(capsys, "explain", photographs[0], "--model", network, "--out", tmp_path / "o", "--rule", rule)
    assert code == 2 and len(err.splitlines()) == 1 and re.search(words, err)


def test_two_rules_for_all_layers_are_refused(capsys, network, photographs, tmp_path):
    args = ["--model", network, "--out", tmp_path / "o", "--rule", "composite", "--rule", "epsilon"]
    code, _, err = run(capsys, "explain", photographs[0], *args)
    assert code == 2 and err == "fvlrp: --rule takes one preset or rule for all layers, got composite and epsilon\n"


def test_warnings_are_one_line(capsys, photographs, model, monkeypatch):
    import warnings

    monkeypatch.setattr(info, "run", lambda args: warnings.warn("look out", stacklevel=1) or 0)
    assert run(capsys, "info")[2] == "fvlrp: look out\n"


@pytest.mark.parametrize("place", [("--traceback", "info"), ("info", "--traceback")])
def test_traceback_shows_where_an_error_came_from(capsys, monkeypatch, place):
    def run_into(args):
        raise ValueError("no such luck")

    monkeypatch.setattr(info, "run", run_into)
    assert run(capsys, "info") == (1, "", "fvlrp: no such luck\n")
    code, _, err = run(capsys, *place)
    assert code == 1 and "in run_into" in err and err.endswith("\nfvlrp: no such luck\n")


def test_an_internal_error_is_one_line_that_names_traceback(capsys, monkeypatch):
    monkeypatch.setattr(info, "run", lambda args: {}["key"])
    code, _, err = run(capsys, "info")
    assert code == 1 and err == "fvlrp: internal error: KeyError: 'key' (fvlrp --traceback shows where)\n"


def test_an_unexpected_exception_does_not_stop_the_batch(capsys, photographs, model, tmp_path, monkeypatch):
    trace = FisherVectorClassifier.trace

    def buggy(self, photo, *args):
        if photo == photographs[1]:
            raise ZeroDivisionError("a bug")
        if photo == photographs[2]:
            raise MemoryError
        return trace(self, photo, *args)

    monkeypatch.setattr(FisherVectorClassifier, "trace", buggy)
    args = ["--model", model, "--out", tmp_path / "o", "--json"]
    code, text, _ = run(capsys, "explain", *photographs, *args)
    value = json.loads(text)
    assert code == 1 and [result["photo"] for result in value["results"]] == photographs[:1]
    assert [failure["error"].split(" (")[0] for failure in value["failed"]] == [
        "internal error: ZeroDivisionError: a bug",
        "out of memory",
    ]


def test_help_lists_every_command_without_loading_one(tmp_path):
    code = (
        "import sys, fvlrp.cli\n"
        "parser = fvlrp.cli.build_parser([])\n"
        "assert all(f'{name} ' in parser.format_help() for name in fvlrp.cli.COMMANDS)\n"
        "print([name for name in sys.modules if name == 'numpy' or name.startswith('fvlrp.') and 'cli' not in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_documents_its_options(capsys, name):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and out.startswith(f"usage: fvlrp {name} ") and "--json" in out and "--traceback" in out


def test_class_names_that_differ_in_punctuation_do_not_overwrite_each_other(capsys, photographs, textures, tmp_path):
    images, labels = textures(2, seed=4)
    spelled = {"brick": "a b", "grass": "a/b", "gravel": "a_b"}
    clf = FisherVectorClassifier(n_components=4, n_pca=8).fit(images, [spelled[label] for label in labels])
    clf.save(tmp_path / "m.fvlrp")
    args = ["--model", tmp_path / "m.fvlrp", "--target", "all", "--format", "npz", "--out", tmp_path / "o", "--json"]
    _, text, _ = run(capsys, "explain", photographs[0], *args)
    (result,) = json.loads(text)["results"]
    assert len(set(result["files"])) == 3
    for path, explanation in zip(result["files"], result["explanations"], strict=True):
        assert files.load_arrays(path)[0]["target"] == explanation["target"]


def test_names_of_results_are_never_the_same():
    photos = ["a.jpg", "b/a.png", "a-2.jpg", "c/a.jpg", "b/a-2.png"]
    stems = naming.stems(photos)
    assert len(set(stems)) == 5 and stems[:2] == ["a", "a-2"]


def test_a_changed_photograph_or_model_is_explained_again(capsys, photographs, model, tmp_path):
    args = ["explain", photographs[0], "--model", model, "--out", tmp_path / "o", "--quiet", "--resume"]
    run(capsys, *args)
    record = tmp_path / "o" / "photo0.json"
    for changed in (photographs[0], model):
        made = record.stat().st_mtime_ns
        run(capsys, *args)
        assert record.stat().st_mtime_ns == made
        os.utime(changed, ns=(made - 10**12, made - 10**12))  # as a copy that kept its time
        run(capsys, *args)
        assert record.stat().st_mtime_ns != made


@pytest.mark.parametrize("broken", ["", "[]", "{}", '{"photo": 1, "options": 2}', "null"])
def test_a_damaged_record_is_rewritten(capsys, photographs, model, tmp_path, broken):
    record = tmp_path / "photo0.json"
    record.write_text(broken)
    code, *_ = run(capsys, "explain", photographs[0], "--model", model, "--out", tmp_path, "--resume", "--quiet")
    assert code == 0 and json.loads(record.read_text())["photo"] == photographs[0]


def test_unwritable_outputs_are_refused_before_any_work(capsys, untraced, photographs, model, tmp_path):
    (tmp_path / "file").write_text("")
    for command in ("report", "compare"):
        for out, words in (
            (tmp_path / "no" / "x", "no folder"),
            (tmp_path, "is a folder; expected the name of a file"),
        ):
            code, _, err = run(capsys, command, photographs[0], "--model", model, "--out", out)
            assert code == 1 and words in err and "--out" in err
    for out in (tmp_path / "file", tmp_path / "file" / "x"):
        code, _, err = run(capsys, "explain", photographs[0], "--model", model, "--out", out)
        assert code == 1 and "--out" in err and "must be a folder" in err


def test_unprintable_names_are_escaped(photographs, model, tmp_path):
    photo = tmp_path / "猫.png"
    Image.open(photographs[0]).save(photo)
    command = [
        sys.executable,
        "-m",
        "fvlrp",
        "explain",
        photo,
        "--model",
        model,
        "--out",
        tmp_path,
        "--target",
        "brick",
    ]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False)
    assert done.returncode == 0 and done.stdout.strip().endswith(rb"/\u732b_brick_bin.png")


def test_a_sheet_is_a_png(capsys, untraced, photographs, model, tmp_path):
    code, _, err = run(capsys, "compare", photographs[0], "--model", model, "--out", tmp_path / "x.jpg")
    assert code == 2 and re.search(r"--out must end in \.png, got '.*x\.jpg'", err)


def test_a_closed_pipe_prints_no_traceback(model):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "fvlrp", "info", model, "--json"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("command", [["info", "--json"], ["--help"], ["info", "--help"], ["--version"]], ids=" ".join)
def test_an_error_of_writing_to_a_full_device_names_the_stream(command, buffered):
    environment = os.environ | {"PYTHONUNBUFFERED": buffered}
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "fvlrp", *command]
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "fvlrp: cannot write to standard output: No space left on device\n"


@pytest.mark.skipif(os.name != "posix", reason="streams are closed between fork and exec")
@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_streams_do_not_raise(photographs, model, tmp_path, closed):
    command = [sys.executable, "-m", "fvlrp", "explain", photographs[0], "--model", model, "--out", tmp_path]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.run([*command, "--json"], **streams, text=True, check=False, preexec_fn=lambda: os.close(closed))
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert closed == 1 or len(json.loads(done.stdout)["results"]) == 1


def test_train_on_a_folder_per_class_then_evaluate(capsys, tmp_path, textures):
    for i, (picture, name) in enumerate(zip(*textures(4, seed=2), strict=True)):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "data" / name / f"{i}.png")
    out = tmp_path / "model.fvlrp"
    code, text, err = run(
        capsys, "train", tmp_path / "data", "--out", out, "--components", 8, "--step", 6, "--json", "--weights", "int8"
    )
    assert code == 0 and json.loads(text)["classes"] == 3 and "EM" in err
    assert models.load(out).C == 5
    code, text, _ = run(capsys, "evaluate", tmp_path / "data", "--model", out, "--json", "--quiet")
    assert code == 0 and json.loads(text)["results"][0]["mean"]["11point"] == 1  # its own training photographs
    code, text, _ = run(capsys, "evaluate", tmp_path / "data", "--model", out, "--model", out, "--quiet")
    assert code == 0 and "\nmean " in text and text.splitlines()[-1] == "model: accuracy 100.0 (12 of 12)"


def test_evaluate_counts_mistakes_where_a_photograph_has_one_class(capsys, tmp_path, textures):
    for i, (picture, name) in enumerate(zip(*textures(4, seed=2), strict=True)):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "data" / name / f"{i}.png")
    assert run(capsys, "train", tmp_path / "data", "--out", tmp_path / "m.fvlrp", "--components", 4, "--quiet")[0] == 0
    moved = sorted((tmp_path / "data" / "brick").iterdir())[0]
    moved.rename(tmp_path / "data" / "grass" / "wrong.png")
    code, text, _ = run(capsys, "evaluate", tmp_path / "data", "--model", tmp_path / "m.fvlrp", "--quiet")
    assert code == 0 and "m: accuracy 91.7 (11 of 12)" in text
    assert text.splitlines()[-1] == "      1 of grass taken for brick"
    _, text, _ = run(capsys, "evaluate", tmp_path / "data", "--model", tmp_path / "m.fvlrp", "--quiet", "--json")
    result = json.loads(text)["results"][0]
    names = list(result["classes"])
    assert result["confusion"][names.index("grass")][names.index("brick")] == 1 and result["accuracy"] == 0.9167


@pytest.fixture
def labelled(tmp_path, textures):
    """A folder per class; two photographs are broken."""
    for i, (picture, name) in enumerate(zip(*textures(4, seed=2), strict=True)):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "data" / name / f"{i}.png")
    whole = (tmp_path / "data" / "brick" / "0.png").read_bytes()
    (tmp_path / "data" / "brick" / "0.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "data" / "grass" / "x.jpg").write_bytes(b"no photograph")
    return tmp_path / "data"


def test_all_broken_photographs_are_reported_before_training(capsys, labelled, tmp_path, monkeypatch):
    monkeypatch.setattr(FisherVectorClassifier, "fit", None)
    code, out, err = run(capsys, "train", labelled, "--out", tmp_path / "m.fvlrp", "--quiet")
    assert code == 1 and out == "" and not (tmp_path / "m.fvlrp").exists()
    first, second, last = err.splitlines()
    assert first.startswith(f"fvlrp: {labelled / 'brick' / '0.png'}: cannot read")
    assert second.startswith(f"fvlrp: {labelled / 'grass' / 'x.jpg'}: cannot read")
    assert last == "fvlrp: 2 of 13 photographs cannot be read: --skip-broken leaves them out"


def test_broken_photographs_can_be_skipped(capsys, labelled, tmp_path):
    args = ["--out", tmp_path / "m.fvlrp", "--components", 8, "--step", 6, "--json", "--quiet", "--skip-broken"]
    code, text, err = run(capsys, "train", labelled, *args)
    value = json.loads(text)
    assert code == 0 and value["images"] == 11 and value["classes"] == 3
    assert [skipped["photo"] for skipped in value["skipped"]] == [
        str(labelled / "brick" / "0.png"),
        str(labelled / "grass" / "x.jpg"),
    ]
    assert len(err.splitlines()) == 2


def test_train_looks_for_the_folder_before_minutes_of_work(capsys, tmp_path):
    code, _, err = run(capsys, "train", tmp_path, "--out", tmp_path / "missing" / "model.fvlrp")
    assert code == 1 and "no folder" in err


def test_evaluate_reads_voc_annotations(capsys, model, tmp_path, textures):
    year = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (year / folder).mkdir(parents=True)
    pictures, names = textures(2, seed=3)
    lists = {name: [] for name in names}
    for i, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        stem = f"{name}{i}"
        Image.fromarray(picture).save(year / "JPEGImages" / f"{stem}.jpg")
        (year / "Annotations" / f"{stem}.xml").write_text(
            f"<annotation><object><name>{name}</name><difficult>0</difficult><bndbox><xmin>1</xmin>"
            "<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
        )
        for other in lists:
            lists[other].append(f"{stem} {1 if other == name else -1}")
    for name, lines in lists.items():
        (year / "ImageSets" / "Main" / f"{name}_val.txt").write_text("\n".join(lines))
    code, text, _ = run(capsys, "evaluate", tmp_path / "VOCdevkit", "--split", "val", "--model", model, "--json")
    assert code == 0 and set(json.loads(text)["results"][0]["classes"]) == set(names)


def test_a_contrast_has_a_file_of_a_readable_name(capsys, photographs, model, tmp_path):
    args = ["explain", photographs[0], "--model", model, "--out", tmp_path / "o"]
    code, text, _ = run(capsys, *args, "--target", "brick - grass")
    assert code == 0 and text.split() == [str(tmp_path / "o" / "photo0_brick-minus-grass_bin.png")]
    assert naming.result("5-7", "input") != naming.result(Contrast(5, 7), "input") == "5-minus-7_input"
    code, _, err = run(capsys, *args, "--target", "brick-grass")
    assert code == 2 and "the contrast of two classes is 'brick - grass', with spaces" in err
    code, _, err = run(capsys, *args, "--target", "brick-bird")
    assert code == 2 and "did you mean" in err


@pytest.mark.parametrize("command", ["explain", "compare", "report", "flip", "words"])
def test_help_names_the_contrast_of_two_classes(capsys, command):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert '"cat - dog"' in capsys.readouterr().out


def test_info_describes_the_packaged_model(capsys):
    code, text, _ = run(capsys, "info", "voc20", "--json")
    value = json.loads(text)
    assert code == 0
    assert value["model"]["dimensions"] == 327680 and len(value["model"]["classes"]) == 20
    assert value["instruction sets"]["in use"] in value["instruction sets"]["available"]


def test_info_abbreviates_long_class_lists(capsys, data):
    code, text, _ = run(capsys, "info", data / "cnn" / "squeezenet_v1.1.onnx")
    assert code == 0 and max(map(len, text.splitlines())) < 200
    assert "classes: 1000 of them: tench, goldfish, great white shark, ..., toilet tissue" in text
    assert (
        "\n  conv1  conv  (64, 113, 113)  ZPlus(" in text
        and "\ndefault depths: explain input, figures (input, fire4), reports (fire4, input)" in text
    )
    assert "  unchanged\n" in text and "\nimport:\n  a layer for each node\n" in text


def test_the_default_depths_are_called_by_the_names_of_blocks(capsys, tmp_path):
    random = np.random.default_rng(0)
    nodes = []
    for block in range(3):
        for i, stride in enumerate((2, 1)):
            weights = random.normal(size=(4, 4 if nodes else 3, 3, 3)).astype(np.float32)
            layer = Conv(weights, np.zeros(4, np.float32), (stride, stride), (1, 1, 1, 1))
            nodes.append(Node.of(f"body/body.{block}/conv{i}/Conv", layer, (len(nodes) - 1,)))
    nodes.append(Node.of("pool", GlobalAveragePool(), (5,)))
    nodes.append(Node.of("flatten", Flatten(), (6,)))
    ConvNet(nodes, (3, 32, 32)).save(tmp_path / "net.fvlrp")
    code, text, _ = run(capsys, "info", tmp_path / "net.fvlrp")
    assert code == 0 and "\nblocks: body.0 ... body.2\n" in text
    assert "default depths: explain input, figures (input, body.2), reports (body.2, input)\n" in text


def test_info_shows_the_rules_of_the_option(capsys, network):
    args = ["info", network, "--rule", "composite", "--rule", "conv1=wsquare", "--json"]
    code, text, _ = run(capsys, *args)
    rules = {layer["name"]: layer["rule"] for layer in json.loads(text)["model"]["layers"]}
    assert code == 0 and rules["conv1"] == "WSquare()" and rules["relu"] == "unchanged"
    assert run(capsys, "info", network, "--rule", "conv9=flat")[0] == 2


def test_a_network_takes_its_description_from_the_command_line(capsys, data, photographs, tmp_path):
    shutil.copy(data / "cnn" / "squeezenet_v1.1.onnx", tmp_path / "net.onnx")
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class {i}" for i in range(1000)))
    args = ["--model", tmp_path / "net.onnx", "--out", tmp_path / "o", "--target", "285", "--json", "--quiet"]
    code, _, err = run(capsys, "explain", photographs[0], *args)
    assert code == 0 and "RGB in 0..1" in err  # what was assumed
    given = ["--preprocess", data / "cnn" / "squeezenet_v1.1.json", "--classes", names]
    code, text, err = run(capsys, "explain", photographs[0], *args, *given)
    assert code == 0 and err == "" and json.loads(text)["results"][0]["scores"][0]["target"] == "class 285"
    wanted = models.load(data / "cnn" / "squeezenet_v1.1.onnx").explain(photographs[0], 285)
    assert json.loads(text)["results"][0]["scores"][0]["score"] == pytest.approx(wanted.score, rel=1e-5)


def test_one_of_several_outputs_and_the_difference_of_two_classes(capsys, photographs, tmp_path):
    onnx = pytest.importorskip("onnx")
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(4, 3, 3, 3)), "a": random.normal(size=(4, 3)), "b": random.normal(size=(4, 5))}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        *(helper.make_node("MatMul", ["f", name], [f"to_{name}"]) for name in "ab"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", real, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info(f"to_{name}", real, ["n", n]) for name, n in (("a", 3), ("b", 5))],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )  # fmt: skip
    file = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    (tmp_path / "names.txt").write_text("cat\ndog\nhen - house\n")
    args = ["explain", photographs[0], "--model", file, "--out", tmp_path / "o", "--quiet", "--json"]
    code, _, err = run(capsys, *args)
    assert code == 2 and "several outputs could hold the scores, 'to_a', 'to_b'" in err
    code, _, err = run(capsys, *args, "--output", "to_c")
    assert code == 2 and "output must be one of 'to_a', 'to_b', got 'to_c'" in err
    chosen = [*args, "--output", "to_a", "--classes", tmp_path / "names.txt", "--target"]
    code, text, _ = run(capsys, *chosen, "cat,dog,hen - house,cat - dog,cat - hen - house")
    scores = {each["target"]: each["score"] for each in json.loads(text)["results"][0]["scores"]}
    assert code == 0 and list(scores) == ["cat", "dog", "hen - house", "cat - dog", "cat - hen - house"]
    assert scores["cat - dog"] == pytest.approx(scores["cat"] - scores["dog"])
    assert scores["cat - hen - house"] == pytest.approx(scores["cat"] - scores["hen - house"])
    assert "with itself" in run(capsys, *chosen, "cat - cat")[2]
    assert "unknown target 'cow'" in run(capsys, *chosen, "cat - cow")[2]


def test_a_description_is_refused_for_a_fisher_model(capsys, model):
    code, _, err = run(capsys, "info", model, "--classes", "names.txt")
    assert code == 2 and "classes belongs to an ONNX file" in err


def test_info_prints_class_names_verbatim(capsys, plain, tmp_path):
    clf = copy.copy(plain)
    clf.classes_ = np.array(["Mauer", "größer", "猫"])
    clf.save(tmp_path / "m.fvlrp")
    assert "classes: Mauer, größer, 猫" in run(capsys, "info", tmp_path / "m.fvlrp")[1]
    assert json.loads(run(capsys, "info", tmp_path / "m.fvlrp", "--json")[1])["model"]["classes"][2] == "猫"


def test_demo_explains_the_users_own_photographs(capsys, photographs, tmp_path):
    code, text, err = run(capsys, "demo", photographs[0], "--out", tmp_path / "demo", "--json")
    assert code == 0
    record = json.loads(text)["photographs"][0]
    assert [ex["depth"] for ex in record["explanations"]] == ["vector", "descriptor", "bin", "gradient"]
    assert (tmp_path / "demo" / "sheet.png").stat().st_size > 1000
    assert "absorbed_pool" in err


def test_demo_shows_what_the_model_gets_right_with_scores_above_0(capsys, tmp_path):
    pytest.importorskip("skimage.data")
    code, text, err = run(capsys, "demo", "--out", tmp_path / "demo", "--json")
    assert code == 0 and "ranks first" not in err
    records = json.loads(text)["photographs"]
    assert [record["photo"] for record in records] == ["astronaut", "cameraman"]
    for record in records:
        assert {ex["target"] for ex in record["explanations"]} == {"person"}
        for ex in record["explanations"]:
            assert ex["best"][0][0] == "person" and ex["score"] > 0


def test_demo_says_where_the_best_score_is_below_0(capsys, tmp_path):
    samples = pytest.importorskip("skimage.data")
    Image.fromarray(samples.chelsea()).save(tmp_path / "chelsea.png")
    code, _, err = run(capsys, "demo", tmp_path / "chelsea.png", "--out", tmp_path / "demo")
    assert code == 0 and err.count("ranks first") == 1
    assert "  cat ranks first of 20 classes, with a score below 0\n" in err


@pytest.mark.parametrize(
    "command", [("compare", "--out"), ("flip", "--steps", "2", "--region-size", "16", "--journal")]
)
def test_a_contrast_is_spelled_in_json(capsys, photographs, model, tmp_path, command):
    verb, *options = command
    names = models.load(model).classes_
    target = f"{names[0]} - {names[1]}"
    code, out, _ = run(
        capsys, verb, photographs[0], "--model", model, "--target", target, "--json", *options, tmp_path / "made.png"
    )
    found = json.loads(out)
    assert code == 0 and (found["targets"] if verb == "compare" else [found["results"][0]["target"]]) == [target]


def test_bench_refuses_networks(capsys, tmp_path):
    ConvNet([Node.of("flatten", Flatten(), (-1,))], (3, 1, 1)).save(tmp_path / "net.fvlrp")
    code, _, err = run(capsys, "bench", "--model", tmp_path / "net.fvlrp")
    assert code == 2 and "must be a Fisher-vector classifier" in err


def test_compare_draws_one_sheet_of_several_models(capsys, photographs, model, tmp_path):
    out = tmp_path / "compare.png"
    code, text, _ = run(capsys, "compare", photographs[0], "--model", model, "--model", model, "--out", out)
    assert code == 0 and text.strip() == str(out)
    assert Image.open(out).width > Image.open(out).height


def test_compare_names_the_model_that_lacks_the_best_class_of_the_first(capsys, photographs, model, tmp_path):
    two = ["--model", model, "--model", "voc20", "--out", tmp_path / "compare.png"]
    code, _, err = run(capsys, "compare", photographs[0], *two)
    assert code == 1 and not (tmp_path / "compare.png").exists()
    assert re.search("photo0.png: voc20 has no class '.*', the best of plain: choose .* with --target", err)


def test_compare_shows_a_target_for_each_photograph_and_depths_for_each_model(
    capsys, photographs, model, tmp_path, monkeypatch
):
    rows = []
    row = figures.sheet_row
    monkeypatch.setattr(figures, "sheet_row", lambda *args, **named: rows.append(args[1:]) or row(*args, **named))
    two = [*photographs[:2], "--model", model, "--out", tmp_path / "compare.png", "--json"]
    chosen = ["--target", "brick", "--target", "gravel", "--depth", "gradient,vector"]
    code, text, _ = run(capsys, "compare", *two, *chosen)
    assert code == 0 and json.loads(text)["targets"] == ["brick", "gravel"]
    assert rows == [([name], [("gradient", "vector")]) for name in ("brick", "gravel")]
    for wrong, words in (
        (["--target", "brick", *chosen], "--target is given 3 times for 2 photographs: once, or once for each"),
        (["--depth", "bin"], "depths must be two for each model, of high and of low resolution, got ['bin']"),
        (["--depth", "bin,vector", "--depth", "bin,vector"], "--depth is given 2 times for 1 models"),
    ):
        code, _, err = run(capsys, "compare", *two, *wrong)
        assert code == 2 and words in err


@pytest.mark.parametrize("args", [[], ["explain"], ["unknown"]])
def test_wrong_usage_exits_with_2(args):
    done = subprocess.run([sys.executable, "-m", "fvlrp", *args], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "usage" in (done.stdout + done.stderr)


def test_an_interrupt_exits_with_130(capsys, monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "run", interrupted)
    code, _, err = run(capsys, "info")
    assert code == 130 and "interrupted" in err


def test_flip_measures_every_depth_and_the_blind_orders(capsys, photographs, model):
    code, text, _ = run(
        capsys, "flip", photographs[0], photographs[1], "--model", model, "--steps", 5, "--json", "--quiet"
    )
    value = json.loads(text)
    assert code == 0
    depths = {"vector", "descriptor", "bin", "gradient"}
    assert set(value["gap"]) == depths and set(value["mean"]) == depths | {"random", "centre", "edge"}
    for kind, mean in (("aopc", "mean"), ("gap", "gap")):
        amounts = [result[kind]["bin"] for result in value["results"]]
        assert value[mean]["bin"]["mean"] == pytest.approx(np.mean(amounts))


def test_flip_resumes_where_it_was_stopped(capsys, photographs, model, tmp_path, monkeypatch):
    options = ["--model", model, "--steps", 5, "--depth", "bin", "--quiet", "--journal", tmp_path / "flips.jsonl"]
    _, text, _ = run(capsys, "flip", photographs[0], *options, "--json")
    monkeypatch.setattr("fvlrp.fisher.flipper.FisherFlipper.walk", None)  # nothing is walked again
    code, again, _ = run(capsys, "flip", photographs[0], *options, "--json")
    assert code == 0 and json.loads(again) == json.loads(text)
    code, _, err = run(capsys, "flip", photographs[0], *options, "--seed", 1)
    assert code == 1 and "callable" in err


def test_flip_prints_tables_and_draws_curves(capsys, photographs, model, tmp_path):
    pytest.importorskip("matplotlib")
    options = ["--model", model, "--steps", 4, "--depth", "descriptor,bin", "--quiet", "--replacement", "mean"]
    code, text, _ = run(capsys, "flip", *photographs[:2], *options, "--plot", tmp_path / "curves.svg")
    lines = text.splitlines()
    assert code == 0 and lines[0].split() == ["depth", "or", "order", "AOPC", "AOPC,", "LeRF", "gap"]
    assert [line.split()[0] for line in lines[1:]] == ["descriptor", "bin", "random", "centre", "edge"]
    assert (tmp_path / "curves.svg").read_text().startswith("<?xml")
    _, text, _ = run(capsys, "flip", photographs[0], *options, "--table", "csv")
    assert text.splitlines()[0].startswith("depth or order,AOPC,AOPC_low,AOPC_high,")
    _, text, _ = run(capsys, "flip", photographs[0], *options, "--table", "latex")
    assert text.startswith(r"\begin{tabular}")
    code, _, err = run(capsys, "flip", photographs[0], *options, "--plot", tmp_path / "curves.jpg")
    assert code == 2 and ".png, .svg, .pdf" in err


def test_a_report_is_one_file_that_needs_no_other(capsys, photographs, model, tmp_path):
    out = tmp_path / "report.html"
    code, _, err = run(capsys, "report", photographs[0], "/missing/<photo>.jpg", "--model", model, "--out", out)
    text = out.read_text()
    assert code == 1 and "/missing/<photo>.jpg" in err
    assert text.count("data:image/jpeg;base64,") == 1 and "&lt;photo&gt;" in text
    assert "http:" not in text and "https:" not in text
    (section,) = re.findall('<script type="application/json">(.*?)</script>', text)
    (viewer,) = json.loads(section)["viewers"]
    assert viewer["model"] == "plain, Fisher vector"
    ledgers = [one["ledger"] for one in viewer["targets"][0]["maps"]]
    assert len(ledgers) == 4 and "absorbed_pool" in ledgers[2] and "zero_bin" in ledgers[3]
    assert all([*ledger][:1] == ["score"] and [*ledger][-2:] == ["rounding", "heatmap"] for ledger in ledgers)


def test_study_writes_tables_a_figure_and_a_journal(capsys, model, tmp_path, textures):
    pytest.importorskip("matplotlib")
    for i, (picture, name) in enumerate(zip(*textures(2, seed=7), strict=True)):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "data" / name / f"{i}.png")
    options = ["--model", model, "--steps", 4, "--depth", "descriptor,bin", "--rule", "default", "--quiet"]
    code, text, _ = run(capsys, "study", tmp_path / "data", *options, "--out", tmp_path / "out", "--count", 4, "--json")
    value = json.loads(text)
    assert code == 0 and value["photographs"] == 4 and value["failed"] == []
    names = ["study.txt", "study.csv", "study.json", "study.tex", "study.png"]
    assert [os.path.basename(name) for name in value["files"]] == names
    assert all(os.path.getsize(name) for name in value["files"])
    rows = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [(row["rule"], row["depth"]) for row in rows[:2]] == [("default", "descriptor"), ("default", "bin")]
    assert len((tmp_path / "out" / "journal.jsonl").read_text().splitlines()) == 4 * 2

    code, again, err = run(capsys, "study", tmp_path / "data", *options, "--out", tmp_path / "out", "--count", 4)
    assert "replaced" not in err
    assert code == 0 and again.rstrip("\n") == (tmp_path / "out" / "study.txt").read_text().rstrip("\n")
    assert len((tmp_path / "out" / "journal.jsonl").read_text().splitlines()) == 4 * 2
    code, _, err = run(capsys, "study", tmp_path / "data", *options, "--out", tmp_path / "out", "--count", 2)
    assert code == 0 and f"4 results will be replaced, such as {tmp_path / 'out' / 'study.txt'}" in err
    code, _, err = run(
        capsys, "study", tmp_path / "data", "--model", model, "--rule", "nonsense", "--out", tmp_path / "x"
    )
    assert code == 2 and "--rule nonsense" in err


def test_study_shows_the_first_photograph_with_a_score_above_0(capsys, plain, model, tmp_path, textures, monkeypatch):
    for i, (picture, name) in enumerate(zip(*textures(3, seed=7), strict=True)):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "data" / name / f"{i}.png")
    drawn = []
    monkeypatch.setattr(DepthStudy, "figure", lambda self, path, pictures, captions: drawn.append((pictures, captions)))
    options = ["--model", model, "--steps", 2, "--depth", "bin", "--rule", "default", "--quiet", "--seed", 3]
    assert run(capsys, "study", tmp_path / "data", *options, "--out", tmp_path / "out")[0] == 0
    cases = evaluate.cases(open_dataset(str(tmp_path / "data"), None), None, 3)
    scores = [plain.explain(case.image, case.target).score for case in cases]
    first = next(i for i, score in enumerate(scores) if score > 0)
    ((pictures, captions),) = drawn
    assert captions == {"plain": f"{cases[first].target}, score {scores[first]:+.2f}"}
    wanted = plain.explain(cases[first].image, cases[first].target, "bin").overlay()
    assert np.abs(np.asarray(pictures["plain"][0], int) - np.asarray(wanted, int)).max() <= 1


def test_study_has_at_most_one_depth_option_per_model(capsys, model, tmp_path, labelled):
    code, _, err = run(capsys, "study", labelled, "--model", model, "--depth", "bin", "--depth", "vector")
    assert code == 2 and "--depth is given 2 times for 1 models" in err
