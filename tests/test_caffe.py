"""Caffe files in: scores as another reader of them has them, Caffe's own ways of pooling, and what it refuses."""

import struct

import numpy as np
import pytest

from fvlrp import Network, Preprocess
from fvlrp.network import caffe, protobuf

PROTOTXT = """
name: "small"  # a comment
layer {
  name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 3 dim: 23 dim: 20 } }
}
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 6 kernel_size: 3 stride: 2 pad: 1 bias_term: false } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" batch_norm_param { eps: 0.001 } }
layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1"
  lrn_param { local_size: 5 alpha: 0.5 beta: 0.75 } }
layer { name: "left" type: "Convolution" bottom: "norm1" top: "left"
  convolution_param { num_output: 4 kernel_h: 3 kernel_w: 1 pad_h: 1 pad_w: 0 group: 2 } }
layer { name: "right" type: "Convolution" bottom: "norm1" top: "right"
  convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: "leak" type: "ReLU" bottom: "right" top: "right" relu_param { negative_slope: 0.25 } }
layer { name: "sum" type: "Eltwise" bottom: "left" bottom: "right" top: "sum" eltwise_param { operation: SUM } }
layer { name: "both" type: "Concat" bottom: "sum" bottom: "left" top: "both" }
layer { name: "pool2" type: "Pooling" bottom: "both" top: "pool2"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "drop" type: "Dropout" bottom: "pool2" top: "pool2" include { phase: TRAIN } }
layer { name: "fc" type: "InnerProduct" bottom: "pool2" top: "fc" inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""
# Read by OpenCV 4's own reader of Caffe files, from `files` and `photograph` below: the layer "fc".
OPENCV = [-1.229117, 1.937951, -7.943363, 4.099205, -0.578484]


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def part(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(values, old=False):
    values = np.asarray(values, np.float32)
    data = part(5, values.tobytes())
    if not old:
        return part(7, part(1, b"".join(varint(n) for n in values.shape))) + data
    shape = (1,) * (4 - values.ndim) + values.shape
    return b"".join(varint(i + 1 << 3) + varint(n) for i, n in enumerate(shape)) + data


def caffemodel(weights, old=False):
    layer, name, blobs = (2, 4, 6) if old else (100, 1, 7)
    return b"".join(
        part(layer, part(name, key.encode()) + b"".join(part(blobs, blob(array, old)) for array in arrays))
        for key, arrays in weights.items()
    )


def weights():
    draw = np.random.default_rng(0)

    def normal(*shape):
        return draw.standard_normal(shape).astype(np.float32)

    return {
        "conv1": [normal(6, 3, 3, 3)],
        "bn1": [normal(6) * 5, draw.uniform(5, 20, 6), [10.0]],
        "scale1": [normal(6), normal(6)],
        "left": [normal(4, 3, 3, 1), normal(4)],
        "right": [normal(4, 6, 1, 1), normal(4)],
        "fc": [normal(5, 8 * 4 * 3), normal(5)],
    }


@pytest.fixture
def files(tmp_path):
    (tmp_path / "net.prototxt").write_text(PROTOTXT)
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(weights()))
    return tmp_path / "net.prototxt", tmp_path / "net.caffemodel"


def photograph():
    return np.random.default_rng(1).standard_normal((1, 3, 23, 20)).astype(np.float32)


def scores(nodes, x):
    values = {-1: x}
    for i, node in enumerate(nodes):
        values[i] = node.layer.apply(*(values[k] for k in node.inputs))
    return values[len(nodes) - 1]


def edited(files, old, new):
    text = files[0].read_text()
    assert old in text
    files[0].write_text(text.replace(old, new))
    return files


def test_scores_are_those_of_another_reader(files):
    net = caffe.read_network(*files)
    assert net.input_shape == (3, 23, 20) and not net.multilabel
    np.testing.assert_allclose(scores(net.nodes, photograph())[0], OPENCV, rtol=2e-5, atol=2e-5)


def test_batch_normalisation_moves_into_the_convolution(files):
    kinds = [node.kind for node in caffe.read_network(*files).nodes]
    assert kinds[:3] == ["conv", "relu", "maxpool"] and "affine" not in kinds


def test_batch_normalisation_is_not_folded_when_another_layer_reads_the_convolution(files):
    edited(
        files,
        'name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1"',
        'name: "bn1" type: "BatchNorm" bottom: "conv1" top: "bn1"',
    )
    edited(
        files,
        'name: "scale1" type: "Scale" bottom: "conv1" top: "conv1"',
        'name: "scale1" type: "Scale" bottom: "bn1" top: "scaled"',
    )
    edited(
        files,
        'name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1"',
        'name: "add" type: "Eltwise" bottom: "conv1" bottom: "scaled" top: "conv1"',
    )
    kinds = [node.kind for node in caffe.read_network(*files).nodes]
    assert kinds[:4] == ["conv", "affine", "affine", "add"]


def test_files_from_before_2015_are_read(files):
    net = caffe.read_network(*files)
    text = PROTOTXT.replace("layer {", "layers {").replace('type: "Convolution"', "type: CONVOLUTION")
    text = text.replace('type: "ReLU"', "type: RELU").replace('type: "Pooling"', "type: POOLING")
    head, tail = text.index("layers"), text.index('layers { name: "conv1"')
    text = text[:head] + 'input: "data" input_dim: 1 input_dim: 3 input_dim: 23 input_dim: 20\n' + text[tail:]
    files[0].write_text(text)
    files[1].write_bytes(caffemodel(weights(), old=True))
    old = caffe.read_network(*files)
    np.testing.assert_array_equal(scores(old.nodes, photograph()), scores(net.nodes, photograph()))


def test_a_branch_used_only_in_training_is_dropped(files):
    branch = """layer { name: "aux" type: "InnerProduct" bottom: "pool1" top: "aux"
      inner_product_param { num_output: 5 } }
    layer { name: "auxloss" type: "SoftmaxWithLoss" bottom: "aux" bottom: "label" top: "loss" }
    layer { name: "norm1" """
    edited(files, 'layer { name: "norm1" ', branch)
    files[1].write_bytes(caffemodel({**weights(), "aux": [np.ones((5, 6 * 6 * 5)), np.ones(5)]}))
    net = caffe.read_network(*files)
    assert "aux" not in [node.name for node in net.nodes]
    np.testing.assert_allclose(scores(net.nodes, photograph())[0], OPENCV, rtol=2e-5, atol=2e-5)


def test_a_final_sigmoid_means_multi_label(files):
    assert caffe.read_network(*edited(files, '"Softmax"', '"Sigmoid"')).multilabel


def test_photographs_are_bgr_less_the_mean_that_the_data_layer_states(files):
    assert not caffe.read_network(*files).states_mean
    stated = "transform_param { scale: 0.5 mean_value: 104 mean_value: 117 mean_value: 123 } input_param {"
    net = caffe.read_network(*edited(files, "input_param {", stated))
    assert net.states_mean and net.preprocess.order == "BGR"
    image = np.full((23, 20, 3), (200, 150, 100), np.uint8)
    np.testing.assert_allclose(net.preprocess.prepare(image)[0, :, 0, 0], [-2, 16.5, 38.5], atol=1e-5)


def test_an_unknown_layer_is_named_with_the_known_ones(files):
    with pytest.raises(ValueError, match=r"net\.prototxt: layer 'left' \(Deconvolution\): .*Convolution, .*Pooling"):
        caffe.read_network(*edited(files, '"left" type: "Convolution"', '"left" type: "Deconvolution"'))


def test_weights_of_another_network_are_refused(files):
    files[1].write_bytes(caffemodel({**weights(), "right": [np.ones((9, 6, 1, 1)), np.ones(9)]}))
    with pytest.raises(ValueError, match=r"layer 'right'.*\(9, 6, 1, 1\), expected \(4, 6, 1, 1\)"):
        caffe.read_network(*files)


@pytest.mark.parametrize("text", ["layer {", "}", "a: ", "layer { x: @ }", "a {" * 100, 'name: "open'])
def test_a_damaged_prototxt_is_a_value_error(files, text):
    files[0].write_text(text)
    with pytest.raises(ValueError, match=r"net\.prototxt"):
        caffe.read_network(*files)


def test_damaged_weights_are_a_value_error_or_another_network(files):
    good = files[1].read_bytes()
    draw = np.random.default_rng(2)
    for _ in range(300):
        bad = bytearray(good)
        for place in draw.integers(0, 200, 3):
            bad[place] = draw.integers(256)
        files[1].write_bytes(bytes(bad[: draw.integers(1, len(bad))]) if draw.random() < 0.5 else bytes(bad))
        try:
            caffe.read_network(*files)
        except ValueError as error:
            assert "net." in str(error)


def test_every_form_of_prototxt_is_parsed():
    text = 'a: 1 b { c: \'x\' c: "y\\"" } d: [1, 2.5, true] e < f: WORD > # end'
    assert protobuf.parse_text(text) == {
        "a": [1],
        "b": [{"c": ["x", 'y"']}],
        "d": [1, 2.5, True],
        "e": [{"f": ["WORD"]}],
    }


def test_every_protobuf_wire_type_is_read():
    data = varint(1 << 3) + varint(300) + varint(2 << 3 | 5) + struct.pack("<f", 1) + part(3, b"xy")
    assert [(n, w, v if w == 0 else bytes(v)) for n, w, v in protobuf.fields(memoryview(data))] == [
        (1, 0, 300),
        (2, 5, struct.pack("<f", 1)),
        (3, 2, b"xy"),
    ]


def test_a_caffe_network_scores_and_explains_like_any_network(files, tmp_path):
    with pytest.warns(UserWarning, match="does not state the mean"):
        net = Network.from_caffe(*files, classes=["a", "b", "c", "d", "e"])
    image = np.random.default_rng(3).integers(0, 256, (46, 40, 3), dtype=np.uint8)
    for depth in ("input", "conv1", "fc"):
        ex = net.explain(image, target="b", depth=depth)
        assert ex.heatmap.shape == (46, 40) and ex.ledger.closes()
    net.save(tmp_path / "net.fvlrp")


@pytest.mark.filterwarnings("error")
def test_explicit_preprocessing_gives_no_warning(files):
    stated = Preprocess((23, 20), order="BGR", high=255, mean=(104, 117, 123))
    assert Network.from_caffe(*files, preprocess=stated).preprocess == stated
    edited(files, "input_param {", "transform_param { mean_value: 104 mean_value: 117 mean_value: 123 } input_param {")
    assert Network.from_caffe(*files).preprocess == stated


# ---- one layer after the other, against NumPy ------------------------------------------------------------------------

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 5 } } }\n'
DRAWN = np.random.default_rng(4)
SMALL = DRAWN.standard_normal((1, 3, 4, 5)).astype(np.float32)
ROWS = DRAWN.standard_normal((60, 2)).astype(np.float32)
SHIFT = np.float32([0.5, -1.0, 2.0])


def alone(folder, layer, arrays=(), before=INPUT):
    """The network of one layer "l" of the data, with its arrays."""
    (folder / "l.prototxt").write_text(f'{before}layer {{ name: "l" bottom: "data" top: "l" {layer} }}\n')
    (folder / "l.caffemodel").write_bytes(caffemodel({"l": list(arrays)}))
    return caffe.read_network(folder / "l.prototxt", folder / "l.caffemodel")


def convolution(stated):
    return f'type: "Convolution" convolution_param {{ {stated} }}'


def pooling(stated):
    return f'type: "Pooling" pooling_param {{ {stated} }}'


ALONE = {
    "a factor and a shift": ('type: "Power" power_param { scale: 2 shift: -0.5 }', [], 2 * SMALL - 0.5),
    "a shift of each channel": ('type: "Bias"', [SHIFT], SMALL + SHIFT[:, None, None]),
    "means of whole maps": (pooling("pool: AVE global_pooling: true"), [], SMALL.mean(axis=(2, 3))),
    "maxima of whole maps": (pooling("pool: MAX global_pooling: true"), [], SMALL.max(axis=(2, 3))),
    "pooling by number": (pooling("pool: 1 kernel_h: 4 kernel_w: 5"), [], SMALL.mean(axis=(2, 3))),
    "weights stored by inputs": (
        'type: "InnerProduct" inner_product_param { num_output: 2 transpose: true }',
        [ROWS, SHIFT[:2]],
        SMALL.reshape(1, 60) @ ROWS + SHIFT[:2],
    ),
    "one row": ('type: "Flatten"', [], SMALL),
    "channels counted from the end": (
        'bottom: "data" type: "Concat" concat_param { axis: -3 }',
        [],
        np.concatenate([SMALL, SMALL], axis=1),
    ),
    "a type by its old number": ("type: 18", [], np.maximum(SMALL, 0)),
}


@pytest.mark.parametrize("name", ALONE)
def test_a_layer_computes_what_caffe_defines(tmp_path, name):
    layer, arrays, wanted = ALONE[name]
    found = scores(alone(tmp_path, layer, arrays).nodes, SMALL)
    np.testing.assert_allclose(found, wanted.reshape(1, -1), rtol=1e-5, atol=1e-5)


REFUSED = {
    "it states no kernel_size": convolution("num_output: 2"),
    "it states no num_output": convolution("kernel_size: 1"),
    "2 filters in 2 groups do not fit 3 channels": convolution("num_output: 2 kernel_size: 1 group: 2"),
    "it pools by STOCHASTIC; expected MAX or AVE": pooling("pool: STOCHASTIC kernel_size: 2"),
    "it states no kernel_size.?": pooling("pool: MAX"),
    "expected ACROSS_CHANNELS": 'type: "LRN" lrn_param { norm_region: WITHIN_CHANNEL }',
    "expected constants of channels": 'type: "Scale" scale_param { axis: 2 }',
    "adds another layer's output": 'bottom: "data" type: "Bias"',
    "its power is 2; expected 1": 'type: "Power" power_param { power: 2 }',
    "along axis 0, that of the batch or none": 'bottom: "data" type: "Concat" concat_param { axis: 0 }',
    "the operation SUM with coefficients of 1": 'bottom: "data" type: "Eltwise" eltwise_param { operation: PROD }',
    r"reads \['label'\], which no layer before it computes": 'bottom: "label" type: "Concat"',
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_layer_of_another_kind_is_refused_with_the_reason(tmp_path, reason):
    with pytest.raises(ValueError, match=rf"layer 'l' \(\w+\): .*{reason}"):
        alone(tmp_path, REFUSED[reason])


@pytest.mark.parametrize(
    ("before", "shape"),
    [
        ('input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 9 }\n', (3, 8, 9)),
        ('layer { name: "data" type: "Data" top: "data" transform_param { crop_size: 7 } }\n', (3, 7, 7)),
    ],
)
def test_the_input_is_stated_at_the_top_or_by_the_crop_of_the_data(tmp_path, before, shape):
    assert alone(tmp_path, 'type: "ReLU"', before=before).input_shape == shape


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("", "does not state its input; expected `input` and `input_dim`, or a layer of type Input"),
        ('input: "data" input_dim: 1 input_dim: 3\n', r"must have four lengths .*got \[1, 3\]"),
    ],
)
def test_an_input_without_a_size_is_refused(tmp_path, before, message):
    with pytest.raises(ValueError, match=message):
        alone(tmp_path, 'type: "ReLU"', before=before)


def test_the_mean_photograph_of_a_file_becomes_a_mean_of_each_channel(tmp_path):
    planes = np.ones((3, 4, 5)) * [[[104]], [[117]], [[123]]] + np.linspace(-1, 1, 20).reshape(4, 5)
    (tmp_path / "mean.binaryproto").write_bytes(blob(planes, old=True))
    before = INPUT.replace("input_param", 'transform_param { mean_file: "mean.binaryproto" } input_param')
    net = alone(tmp_path, 'type: "ReLU"', before=before)
    assert net.states_mean
    np.testing.assert_allclose(net.preprocess.mean, (104, 117, 123), rtol=1e-6)


def test_lengths_of_an_array_may_be_stored_one_by_one(tmp_path):
    file = part(7, b"\x08\x03") + part(5, SHIFT.tobytes())
    layer = part(100, part(1, b"l") + part(7, file))
    alone(tmp_path, 'type: "Bias"', [SHIFT])
    (tmp_path / "l.caffemodel").write_bytes(layer)
    net = caffe.read_network(tmp_path / "l.prototxt", tmp_path / "l.caffemodel")
    np.testing.assert_allclose(scores(net.nodes, SMALL)[0], (SMALL + SHIFT[:, None, None]).ravel(), rtol=1e-6)


def test_a_measurement_against_labels_is_passed_over(tmp_path):
    before = INPUT + 'layer { name: "right" type: "Accuracy" bottom: "data" bottom: "label" top: "right" }\n'
    assert [node.kind for node in alone(tmp_path, 'type: "ReLU"', before=before).nodes] == ["relu", "flatten"]


def test_a_network_without_layers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no layers that compute anything"):
        alone(tmp_path, 'type: "Softmax"')
