"""Networks of every family: the scores of onnxruntime, and relevances that another program computed.

Set FVLRP_DATA to the folder with zoo/ (small networks with golden relevances) and cnn/ (networks with real weights).
"""

import json
import os
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fvlrp import Network, Preprocess
from fvlrp.network.rules import NetworkRules
from fvlrp.network.trace import choices
from fvlrp.network.walk import walk
from fvlrp.rules import Epsilon

pytest.importorskip("onnx")

DATA = Path(os.environ["FVLRP_DATA"]) if os.environ.get("FVLRP_DATA") else None
ZOO = DATA / "zoo" if DATA is not None and (DATA / "zoo" / "index.json").is_file() else None
ENTRIES = [] if ZOO is None else json.loads((ZOO / "index.json").read_text())
AVERAGES = ("averagepool", "globalaveragepool", "reduce")

each_file = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"])


def test_the_data_folder_holds_the_expected_files():
    if ZOO is None:
        pytest.skip("set FVLRP_DATA to the folder with zoo/index.json")
    assert len(ENTRIES) == 55


@cache
def network(file):
    entry = next(entry for entry in ENTRIES if entry["file"] == file)
    return Network.from_onnx(ZOO / file, Preprocess.from_dict(entry["preprocess"]))


@cache
def golden(file):
    return np.load(ZOO / file)


def rules_of(variant):
    """The rules that a variant of the golden relevances stands for; see the README of the zoo."""
    words = variant.split(".")
    epsilon = Epsilon(float(words[0].removeprefix("eps")))
    return NetworkRules(
        default=epsilon,
        layers={kind: Epsilon(0) for kind in AVERAGES} if "poolexact" in words else {},
        attention="both" if "both" in words else "value",
        input_affine="fold" if "tifold" in words else "rule",
    )


def relevance(net, x, target, rules):
    """Relevance of the pixels, what was kept on the way, and the score."""
    saved = net.passed(x)
    start = np.zeros_like(saved[-1].y)
    start[0, target] = saved[-1].y[0, target]
    done = walk(net.nodes, x, saved, start, [-1], choices(net.nodes, rules, lambda node, rule: None))[0]
    return done.pixels, done.entries.of(0), float(start.sum(dtype=np.float64))


@each_file
def test_scores_are_onnxruntimes(entry):
    net, data = network(entry["file"]), golden(entry["golden"])
    scores, wanted = net.forward(data["x"]).astype(np.float64), data[entry["ort_key"]].reshape(1, -1)
    if entry["ends_in"] == "Softmax":
        scores = np.exp(scores) / np.exp(scores).sum()
    elif entry["ends_in"] == "Sigmoid":
        scores = 1 / (1 + np.exp(-scores))
        assert net.multilabel_
    assert np.abs(scores - wanted).max() <= 1e-4 * np.abs(wanted).max()


def compared(entry):
    """The variants that have one value here: not LayerScale folded (kept apart) nor clipped without rounding."""
    return [key for key in entry["rules"] if not {"lsfold", "noround"} & set(key.split("."))]


@pytest.mark.parametrize(("dtype", "least", "closes"), [(np.float64, 1e-5, 1e-9), (np.float32, 1e-4, 1e-5)])
@each_file
def test_relevances_are_the_golden_ones_and_the_ledger_closes(entry, dtype, least, closes):
    net, data = network(entry["file"]), golden(entry["golden"])
    x = data["x"].astype(dtype)
    for variant in compared(entry):
        base = variant.removesuffix(".poolexact")
        noise = entry["rules"][variant]["float32_noise"] or entry["rules"].get(base, {}).get("float32_noise") or 0.0
        pixels, kept, score = relevance(net, x, entry["target"], rules_of(variant))
        wanted = data[f"R_{variant}"]
        # Relative to the size of the whole map: single pixels of float32 weights are less certain than their sum.
        difference = np.linalg.norm(pixels - wanted) / np.linalg.norm(wanted)
        assert difference <= max(least, 10 * noise), f"{variant}: {difference:.1e}"
        amounts = [*kept.values(), float(pixels.sum(dtype=np.float64))]
        assert abs(sum(amounts) - score) <= closes * (sum(map(abs, amounts)) + abs(score)), variant


def families():
    """Files that hold the same network."""
    groups = {}
    for entry in ENTRIES:
        groups.setdefault(entry["golden"], []).append(entry["file"])
    return {golden: files for golden, files in groups.items() if len(files) > 1}


@pytest.mark.parametrize("name", families())
def test_every_exporter_gives_the_same_network(name):
    """Fused or decomposed, old opset or new: the same layers, and the same relevance."""
    first, *others = families()[name]
    entry = next(entry for entry in ENTRIES if entry["file"] == first)
    x = golden(name)["x"].astype(np.float64)
    rules = NetworkRules.preset("attention")
    wanted = relevance(network(first), x, entry["target"], rules)[0]
    for other in others:
        assert sorted(node.kind for node in network(other).nodes if node.kind != "reshape") == sorted(
            node.kind for node in network(first).nodes if node.kind != "reshape"
        )
        got = relevance(network(other), x, entry["target"], rules)[0]
        assert np.linalg.norm(got - wanted) <= 2e-4 * np.linalg.norm(wanted)


@each_file
def test_networks_survive_a_file(entry, tmp_path):
    import fvlrp

    net = network(entry["file"])
    net.save(tmp_path / "net.fvlrp")
    again = fvlrp.load(tmp_path / "net.fvlrp")
    x = golden(entry["golden"])["x"]
    np.testing.assert_array_equal(again.forward(x), net.forward(x))
    assert again.layers == net.layers


@each_file
def test_the_ledger_of_an_explanation_closes_at_every_depth(entry):
    net, data = network(entry["file"]), golden(entry["golden"])
    trace = net.trace(data["image"], dtype="float64")
    depths = [*net.layers[:: max(1, len(net.layers) // 6)], "input"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of flat weights below a dense layer
        explanations = trace.explain(target=net.classes_[-1], depth=depths)
    for ex in explanations:
        assert ex.ledger.closes(1e-9), (ex.depth, str(ex.ledger))


REAL = ("dinov2_vits14_cls", "efficientnet_lite0", "ppocr_cls", "squeezenet_v1.1", "tiny_darknet")


@pytest.mark.parametrize("name", REAL)
def test_networks_with_real_weights_score_as_in_onnxruntime_and_their_ledgers_close(name):
    runtime = pytest.importorskip("onnxruntime")
    if DATA is None:
        pytest.skip("set FVLRP_DATA to the folder with cnn/*.onnx")
    path = DATA / "cnn" / f"{name}.onnx"
    net = Network.from_onnx(path)
    image = np.random.default_rng(0).integers(0, 256, (240, 260, 3), dtype=np.uint8)
    x = net.prepare(image)
    run = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = run.run(None, {run.get_inputs()[0].name: x})[0].reshape(1, -1)
    scores = net.forward(x).astype(np.float64)
    if name == "ppocr_cls":  # ends in a softmax
        scores = np.exp(scores) / np.exp(scores).sum()
    assert np.abs(scores - wanted).max() <= 1e-4 * np.abs(wanted).max()
    for dtype, closes in (("float32", 1e-5), ("float64", 1e-9)):
        assert net.trace(image, dtype=dtype).explain(target=net.classes_[0]).ledger.closes(closes)
