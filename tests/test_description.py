"""What files say about photographs and classes is honoured in every spelling, or a warning says what was assumed."""

import json
import warnings

import numpy as np
import pytest

from fvlrp import Network, Preprocess
from fvlrp.network.description import of_metadata, read_description
from fvlrp.network.labels import read_classes

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HUGGING_FACE = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.4, 0.5],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 32, "width": 48},
}


def described(tmp_path, values):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(values))
    return read_description(path)


def test_hugging_face_stretches_to_its_size(tmp_path):
    preprocess, names = described(tmp_path, HUGGING_FACE)
    assert preprocess == Preprocess((32, 48), mean=(0.5,) * 3, std=(0.5, 0.4, 0.5)) and names is None


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"size": 64}, Preprocess((64, 64))),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}, Preprocess((32, 32), "crop", 40)),
        ({"size": {"shortest_edge": 40}, "crop_size": 32, "do_center_crop": True}, Preprocess((32, 32), "crop", 40)),
        ({"size": {"shortest_edge": 56}, "crop_pct": 0.875}, Preprocess((56, 56), "crop", 64)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 1.0}, Preprocess((384, 384))),
        ({"size": 64, "do_flip_channel_order": True}, Preprocess((64, 64), order="BGR")),
        ({"size": 64, "resample": 3}, Preprocess((64, 64), resample="bicubic")),
        ({"size": 64, "do_rescale": False}, Preprocess((64, 64), high=255)),
    ],
)
def test_hugging_faces_options_are_understood(tmp_path, changes, wanted):
    values = {**HUGGING_FACE, "do_normalize": False, **changes}
    assert described(tmp_path, values)[0] == wanted


def test_a_hugging_face_rescale_factor_applies_before_mean_and_std(tmp_path):
    preprocess, _ = described(tmp_path, {**HUGGING_FACE, "rescale_factor": 1 / 127.5})
    x = preprocess.prepare(np.full((40, 40, 3), 255, np.uint8))
    np.testing.assert_allclose(x[0, :, 0, 0], (2 - 0.5) / np.array([0.5, 0.4, 0.5]), rtol=1e-5)


def test_hugging_face_class_names_come_from_config_json(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"1": "dog", "0": "cat, house cat"}}))
    assert described(tmp_path, HUGGING_FACE)[1].of(2) == ["cat", "dog"]


@pytest.mark.parametrize("wrapped", [True, False])
def test_timms_configurations_are_understood(tmp_path, wrapped):
    config = {"input_size": [3, 64, 64], "interpolation": "bicubic", "crop_pct": 0.9, **IMAGENET}
    preprocess, _ = described(tmp_path, {"pretrained_cfg": config, "num_classes": 2} if wrapped else config)
    assert preprocess == Preprocess((64, 64), "crop", 71, resample="bicubic", **IMAGENET)
    grey = described(tmp_path, {**config, "input_size": [1, 64, 64], "mean": [0.5], "std": [0.5]})[0]
    assert grey.channels == 1


LABELS = {
    "a list": ('["tench", "great white shark, white shark"]', ["tench", "great white shark"]),
    "index to name": ('{"1": "shark", "0": "tench"}', ["tench", "shark"]),
    "index to identifier and name": ('{"0": ["n01440764", "tench"], "1": ["n01443537", "shark"]}', ["tench", "shark"]),
    "name to index": ('{"shark": 1, "tench": 0}', ["tench", "shark"]),
    "id2label": ('{"id2label": {"0": "tench", "1": "shark"}, "hidden_size": 3}', ["tench", "shark"]),
    "one name a line": ("tench\nshark\n\n", ["tench", "shark"]),
    "WordNet identifiers": ("n01440764 tench, Tinca tinca\nn01443537 shark\n", ["tench", "shark"]),
    "numbered lines": ("1: shark\n0: tench\n", ["tench", "shark"]),
    "CSV": ("0,tench\n1,great white shark\n", ["tench", "great white shark"]),
    "lines that begin with numbers": ("2 men\n7 women\n", ["2 men", "7 women"]),
    "Python": ("{0: 'tench, Tinca tinca',\n 1: \"shark\"}", ["tench", "shark"]),
    "objects": ('[{"id": 7, "name": "shark"}, {"id": 3, "name": "tench"}]', ["tench", "shark"]),
    "COCO": ('{"categories": [{"id": 1, "name": "tench"}, {"id": 2, "name": "shark"}]}', ["tench", "shark"]),
    "one line": ("tench,shark\n", ["tench", "shark"]),
    "table": ('id,name\n1,shark\n0,"tench, the"\n', ["tench", "shark"]),
    "table of other columns": ("label\tcount\tindex\nshark\t5\t1\ntench\t2\t0\n", ["tench", "shark"]),
    "YAML map": ("nc: 2\nnames:\n  0: tench\n  1: 'shark'\nval: x\n", ["tench", "shark"]),
    "YAML list": ("names:\n- tench\n- shark\n", ["tench", "shark"]),
    "YAML in braces": ("nc: 2\nnames: {1: shark, 0: tench}\n", ["tench", "shark"]),
    "YAML with a comment": ("names:\n  # of fish\n\n  0: tench\n  1: shark\n", ["tench", "shark"]),
    "names to show": (
        'item {\n name: "/m/1"\n id: 2\n display_name: "shark"\n}\n'
        'item {\n name: "/m/2"\n id: 1\n display_name: "tench"\n}\n',
        ["tench", "shark"],
    ),
    "YAML in brackets": ("names: [tench, shark]\nnc: 2\n", ["tench", "shark"]),
    "TensorFlow": ('item {\n id: 2\n name: "shark"\n}\nitem {\n id: 1\n name: "tench"\n}\n', ["tench", "shark"]),
    "repeated": ('["crane", "crane"]', ["crane", "crane (2)"]),
}


@pytest.mark.parametrize("form", LABELS)
def test_label_files_of_any_form_are_read(tmp_path, form):
    text, wanted = LABELS[form]
    path = tmp_path / "labels"
    path.write_text(text)
    assert read_classes(path).of(2) == wanted


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"0": "a", "b": "c"}', "[1, {", '[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]']
)
def test_label_files_without_names_are_refused_by_file_name(tmp_path, text):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"labels\.json does not list class names"):
        read_classes(path)


def test_a_label_file_that_is_not_utf_8_is_refused_by_file_name(tmp_path):
    (tmp_path / "labels.json").write_bytes('["Käse", "b"]'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"labels\.json does not list class names: .*utf-8"):
        read_classes(tmp_path / "labels.json")


def test_an_infinite_size_is_refused_by_file_name(tmp_path):
    (tmp_path / "p.json").write_text('{"image_mean": 0.5, "size": Infinity}')
    with pytest.raises(ValueError, match=r"p\.json does not describe"):
        read_description(tmp_path / "p.json")


def coco(form):
    """Classes 1, 2, 3, 5 in a form of label files."""
    names = {1: "tench", 2: "shark", 3: "ray", 5: "eel"}
    return {
        "table": "id,name\n" + "".join(f"{i},{name}\n" for i, name in names.items()),
        "lines": "".join(f"{i}: {name}\n" for i, name in reversed(names.items())),
        "lines, number behind": "".join(f"{name},{i}\n" for i, name in names.items()),
        "JSON": json.dumps(names),
        "name to index": json.dumps({name: i for i, name in names.items()}),
        "objects": json.dumps([{"id": i, "name": name} for i, name in names.items()]),
        "YAML": "names:\n" + "".join(f"  {i}: {name}\n" for i, name in names.items()),
        "items": "".join(f'item {{ id: {i} name: "{name}" }}\n' for i, name in names.items()),
    }[form]


@pytest.mark.parametrize(
    "form", ["table", "lines", "lines, number behind", "JSON", "name to index", "objects", "YAML", "items"]
)
def test_the_number_of_classes_decides_what_gaps_in_a_numbering_mean(tmp_path, form):
    path = tmp_path / "labels.txt"
    path.write_text(coco(form))
    labels = read_classes(path)
    assert labels.of(4) == ["tench", "shark", "ray", "eel"]  # outputs without gaps
    assert labels.of(5) == ["tench", "shark", "ray", "class 4", "eel"]  # from 1 on
    assert labels.of(6) == ["class 0", "tench", "shark", "ray", "class 4", "eel"]  # index and output are the same
    with pytest.raises(ValueError, match=r"labels\.txt lists names of 4, 6 or 5 classes, and the network has 7$"):
        labels.of(7)


def test_synonyms_in_one_line_are_one_class_of_a_network_with_one(tmp_path):
    (tmp_path / "labels.txt").write_text("tench, Tinca tinca\n")
    assert read_classes(tmp_path / "labels.txt").of(1) == ["tench"]
    assert read_classes(tmp_path / "labels.txt").of(2) == ["tench", "Tinca tinca"]
    with pytest.raises(ValueError, match=r"labels\.txt lists names of 2 or 1 classes, and the network has 3$"):
        read_classes(tmp_path / "labels.txt").of(3)


def test_numbers_that_begin_all_names_are_no_indices(tmp_path):
    (tmp_path / "labels.txt").write_text("2 men\n7 women\n")
    assert read_classes(tmp_path / "labels.txt").of(2) == ["2 men", "7 women"]


def test_a_background_class_and_a_heading_are_told_by_the_number_of_classes(tmp_path):
    (tmp_path / "labels.txt").write_text("label\ncat\ndog\n")
    assert read_classes(tmp_path / "labels.txt").of(2) == ["cat", "dog"]
    assert read_classes(tmp_path / "labels.txt").of(3) == ["label", "cat", "dog"]
    (tmp_path / "labels.txt").write_text("1: cat\n2: dog\n")
    assert read_classes(tmp_path / "labels.txt").of(2) == ["cat", "dog"]
    assert read_classes(tmp_path / "labels.txt").of(3) == ["class 0", "cat", "dog"]


@pytest.mark.parametrize(
    ("metadata", "wanted"),
    [
        (
            {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "NominalRange_0_255"},
            Preprocess((8, 9), order="BGR", high=255),
        ),
        ({"Image.NominalPixelRange": "Normalized_1_1"}, Preprocess((8, 9), mean=(0.5,), std=(0.5,))),
        ({"mean": "[0.1, 0.2, 0.3]", "std": "0.5"}, Preprocess((8, 9), mean=(0.1, 0.2, 0.3), std=(0.5,))),
        ({"mean": "120, 110, 3", "color_order": "BGR"}, Preprocess((8, 9), order="BGR", high=255, mean=(120, 110, 3))),
        ({"value_range": "[0, 255]"}, Preprocess((8, 9), high=255)),
        ({"preprocess": '{"high": 255, "order": "BGR"}'}, Preprocess((8, 9), order="BGR", high=255)),
        ({"onnx.infer": "onnxruntime.quant"}, None),
    ],
)  # fmt: skip
def test_metadata_say_how_photographs_are_prepared(metadata, wanted):
    assert of_metadata(metadata, (8, 9))[0] == wanted


@pytest.mark.parametrize(
    "metadata",
    [
        {"names": "{0: 'cat', 1: 'dog'}"},
        {"classes": '["cat", "dog"]'},
        {"class_names": "cat, dog"},
        {"labels": "cat\ndog\n"},
        {"labels": "cat;dog"},
        {"class_to_idx": '{"dog": 1, "cat": 0}'},
        {"index_to_name": '{"0": "cat", "1": "dog"}'},
        {"config": '{"id2label": {"0": "cat", "1": "dog"}}'},
        {"dataset_meta": "{'classes': ('cat', 'dog')}"},
        {"labels": "imagenet", "names": '["cat", "dog"]'},
    ],
)
def test_metadata_name_the_classes(metadata):
    assert of_metadata(metadata, (8, 8))[1].of(2) == ["cat", "dog"]


def test_metadata_that_name_no_classes_are_passed_over(tmp_path):
    assert of_metadata({"labels": "imagenet", "names": "{'a': {}}"}, (8, 8))[1] is None


# ---- on files --------------------------------------------------------------------------------------------------------

onnx = pytest.importorskip("onnx")
from test_importers import Graph, session  # noqa: E402


def saved(tmp_path, scaled_by=None, metadata=(), integer=False, outputs=2, kind="UINT8"):
    """A small network that may scale its input itself."""
    graph = Graph((1, 3, 8, 8))
    source = "x"
    if integer:
        graph.add("Cast", source, "float", to=1)
        source = "float"
    if scaled_by is not None:
        graph.constant("by", scaled_by).add("Mul", f"{source} by", "scaled")
        source = "scaled"
    graph.conv(source, "c", 3, outputs).pooled("c")
    model = graph.model()
    if integer:
        model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DataType.Value(kind)
    for key, value in metadata:
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_assumptions_are_reported(tmp_path):
    with pytest.warns(UserWarning, match=r"net\.onnx does not say .* assumed RGB in 0\.\.1, resized to 8 x 8"):
        assert Network.from_onnx(saved(tmp_path)).preprocess == Preprocess((8, 8))


def test_feeding_0_to_1_to_a_network_that_divides_by_255_warns(tmp_path):
    path = saved(tmp_path, scaled_by=1 / 255)
    with pytest.warns(UserWarning, match=r"assumed RGB in 0\.\.255, since the network scales its input itself"):
        assert Network.from_onnx(path).preprocess.high == 255
    with pytest.warns(UserWarning, match=r"scales its input itself as of 0\.\.255, .* at most 1:"):
        Network.from_onnx(path, Preprocess((8, 8)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Network.from_onnx(path, Preprocess((8, 8), high=255))


def test_a_network_that_normalises_its_input_is_said_to(tmp_path):
    path = saved(tmp_path, scaled_by=2.0)
    with pytest.warns(UserWarning, match=r"0\.\.1, since the network normalises its input itself, .* --preprocess\)"):
        net = Network.from_onnx(path)
    assert net.describe()["normalises its input"] is True
    assert Network.from_onnx(saved(tmp_path), Preprocess((8, 8))).describe()["normalises its input"] is False


def test_a_uint8_network_is_fed_uint8(tmp_path):
    path = saved(tmp_path, scaled_by=1 / 255, integer=True)
    with pytest.warns(UserWarning, match=r"0\.\.255"):
        net = Network.from_onnx(path)
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    run = session(str(path))
    wanted = run.run(None, {"x": image.transpose(2, 0, 1)[None]})[0]
    np.testing.assert_allclose(net.forward(net.prepare(image)), wanted, rtol=1e-4, atol=1e-6)


def test_an_int8_network_is_fed_int8(tmp_path):
    path = saved(tmp_path, scaled_by=1 / 128, integer=True, kind="INT8")
    with pytest.warns(UserWarning, match=r"assumed RGB in -128\.\.127 \(mean=128\), since its input is int8"):
        net = Network.from_onnx(path)
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels = (image.astype(int) - 128).astype(np.int8)
    wanted = session(str(path)).run(None, {"x": pixels.transpose(2, 0, 1)[None]})[0]
    np.testing.assert_allclose(net.forward(net.prepare(image)), wanted, rtol=1e-4, atol=1e-6)
    for wrong in (Preprocess((8, 8), high=255), Preprocess((8, 8)), Preprocess((8, 8), high=255, mean=(150,))):
        with pytest.warns(UserWarning, match=r"int8 input, which holds -128\.\.127, and .* prepared to .*mean=128"):
            Network.from_onnx(path, wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Network.from_onnx(path, Preprocess((8, 8), high=255, mean=(128,)))


def test_preprocessing_stated_in_a_file_is_used(tmp_path):
    path = saved(tmp_path, metadata=[("names", "{0: 'cat', 1: 'dog'}"), ("Image.BitmapPixelFormat", "Bgr8")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = Network.from_onnx(path)
    assert net.preprocess.order == "BGR" and net.classes_.tolist() == ["cat", "dog"]
    assert Network.from_onnx(path, classes=["a", "b"]).classes_.tolist() == ["a", "b"]


def test_the_json_file_next_to_a_model_is_found_and_unrelated_ones_are_ignored(tmp_path):
    path = saved(tmp_path)
    (tmp_path / "net.json").write_text('{"input_size": [8, 8], "value_range": [0, 255], "labels": ["cat", "dog"]}')
    net = Network.from_onnx(path)
    assert net.preprocess.high == 255 and net.classes_.tolist() == ["cat", "dog"]
    (tmp_path / "net.json").write_text('{"accuracy": 0.5}')
    with pytest.warns(UserWarning, match="ignored the file beside .*accuracy"):
        Network.from_onnx(path)


def test_classes_may_be_a_file(tmp_path):
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    net = Network.from_onnx(saved(tmp_path), Preprocess((8, 8)), classes=tmp_path / "labels.txt")
    assert net.classes_.tolist() == ["cat", "dog"]
    (tmp_path / "labels.txt").write_text("1,cat\n4,dog\n")
    with pytest.raises(ValueError, match=r"labels\.txt lists names of 2, 5 or 4 classes, and the network has 3$"):
        Network.from_onnx(saved(tmp_path, outputs=3), Preprocess((8, 8)), classes=tmp_path / "labels.txt")
    (tmp_path / "labels.txt").write_text("cat\n")
    saved(tmp_path)
    with pytest.raises(ValueError, match="2 outputs, got 1 names"):
        Network.from_onnx(tmp_path / "net.onnx", Preprocess((8, 8)), classes=tmp_path / "labels.txt")
