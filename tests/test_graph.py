"""The graph of a network: what a node is called, and what it is computed from."""

import numpy as np
import pytest

from fvlrp.network.graph import INPUT, KINDS, Node, ancestors, coarse, first_layers, spacing
from fvlrp.network.layers import (
    Activation,
    Add,
    Affine,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    Product,
    ReLU,
    Reshape,
    Resize,
    Transpose,
)


@pytest.fixture
def nodes():
    """Two branches from node 0, of which node 3 joins one with the input; node 4 reads the other."""
    return [
        Node.of("stem", ReLU(), (INPUT,)),
        Node.of("left", ReLU(), (0,)),
        Node.of("right", ReLU(), (0,)),
        Node.of("sum", Add(), (1, INPUT)),
        Node.of("flat", Flatten(), (2,)),
    ]


@pytest.mark.parametrize(("node", "found"), [(INPUT, set()), (0, {0}), (3, {0, 1, 3}), (4, {0, 2, 4})])
def test_ancestors_of_a_node_are_its_direct_and_indirect_inputs(nodes, node, found):
    assert ancestors(nodes, node) == found


def test_a_node_has_the_kind_of_its_layer(nodes):
    assert [node.kind for node in nodes] == ["relu", "relu", "relu", "add", "flatten"]
    assert all(KINDS[node.kind] is type(node.layer) for node in nodes)


# ---- blocks ----------------------------------------------------------------------------------------------------------


class Builder:
    """A network of layers by name, with the shapes that they make of (3, 64, 64)."""

    def __init__(self):
        self.nodes, self.shapes = [], []

    def add(self, name, layer, *inputs):
        places = [node.name for node in self.nodes]
        before = tuple(places.index(source) for source in inputs) if inputs else (len(places) - 1,)
        self.nodes.append(Node.of(name, layer, before))
        self.shapes.append(layer.out_shape(*((3, 64, 64) if k == INPUT else self.shapes[k] for k in before)))
        return self

    def conv(self, name, outputs, kernel=3, stride=1, depthwise=False, source=()):
        channels = 3 if not self.nodes else self.shapes[-1][0]
        if source:
            channels = self.shapes[[node.name for node in self.nodes].index(source[0])][0]
        weight = np.zeros((outputs, 1 if depthwise else channels, kernel, kernel))
        pads = ((kernel - 1) // 2,) * 4
        groups = channels if depthwise else 1
        return self.add(name, Conv(weight, np.zeros(outputs), (stride,) * 2, pads, (1, 1), groups), *source)

    @property
    def coarse(self):
        found = coarse(self.nodes, self.shapes, (64, 64))
        return "input" if found == INPUT else self.nodes[found].name


def pool(stride=2):
    return MaxPool((stride, stride), (stride, stride))


def test_the_coarse_depth_of_a_chain_is_behind_its_third_pool():
    net = Builder()
    for k in range(1, 5):
        net.conv(f"conv{k}", 8).add(f"relu{k}", ReLU()).add(f"pool{k}", pool())
    assert net.coarse == "relu4"


def test_the_coarse_depth_of_fire_modules_is_their_join_and_not_the_squeeze():
    net = Builder().conv("stem", 8, stride=2).add("relu", ReLU()).add("pool1", pool())
    for k in (2, 3):
        if k == 3:
            net.add("pool2", pool())
        net.conv(f"squeeze{k}", 4, kernel=1).add(f"relu{k}", ReLU())
        net.conv(f"one{k}", 4, kernel=1, source=(f"relu{k}",)).conv(f"three{k}", 4, source=(f"relu{k}",))
        net.add(f"fire{k}", Concat(1), f"one{k}", f"three{k}")
    assert net.coarse == "fire3"


def test_the_coarse_depth_of_inverted_residuals_is_a_projection():
    net = Builder().conv("stem", 8, stride=2)
    for k in (1, 2, 3):
        net.conv(f"expand{k}", 16, kernel=1).add(f"a{k}", ReLU())
        net.conv(f"depthwise{k}", 16, stride=2 if k < 3 else 1, depthwise=True).add(f"b{k}", ReLU())
        net.conv(f"project{k}", 8, kernel=1)
    net.add("sum", Add(), "project2", "project3")
    assert net.coarse == "project2"


def test_the_coarse_depth_of_residual_blocks_is_behind_their_sum():
    net = Builder().conv("stem", 8, stride=2).add("relu", ReLU()).add("pool", pool())
    net.conv("left1", 8, stride=2).add("a1", ReLU()).conv("left2", 8).conv("right", 8, 1, 2, source=("pool",))
    net.add("sum", Add(), "left2", "right").add("out", ReLU())
    assert net.coarse == "out"


def test_the_coarse_depth_of_a_shallow_network_is_its_coarsest_block():
    assert Builder().conv("conv1", 4).add("relu1", ReLU()).add("pool", pool()).conv("conv2", 4).coarse == "conv2"
    dense = [Node.of("flat", Flatten(), (INPUT,)), Node.of("fc", Dense(np.zeros((2, 4)), np.zeros(2)), (0,))]
    assert coarse(dense, [(4,), (2,)], (64, 64)) == INPUT


def test_the_coarse_depth_of_gated_blocks_is_behind_the_projection():
    net = Builder().conv("stem", 8, stride=2)
    for k in (1, 2):
        net.conv(f"depthwise{k}", 8, stride=2, depthwise=True).add(f"a{k}", ReLU()).add(f"mean{k}", GlobalAveragePool())
        net.conv(f"gate{k}", 8, kernel=1).add(f"sigmoid{k}", Activation("sigmoid"))
        net.add(f"product{k}", Product(), f"a{k}", f"sigmoid{k}").conv(f"project{k}", 8, kernel=1)
    assert net.coarse == "project2"


def test_the_coarse_depth_of_strided_convolutions_is_the_one_at_stride_8():
    net = Builder()
    for k in range(1, 5):
        net.conv(f"conv{k}", 8, stride=2).add(f"relu{k}", ReLU())
    assert net.coarse == "relu3"
    assert Builder().conv("conv1", 4).add("pool1", pool()).conv("conv2", 4).conv("conv3", 4, stride=4).coarse == "conv3"


def test_the_coarse_depth_counts_pixels_that_move_into_channels_and_back():
    stem = [Reshape((3, 16, 4, 16, 4)), Transpose((1, 3, 5, 2, 4)), Reshape((48, 16, 16))]
    net = Builder()
    for k, layer in enumerate(stem):
        net.add(f"stem{k}", layer)
    net.conv("conv1", 8).add("pool", pool()).conv("conv2", 8).add("pool2", pool()).conv("conv3", 8)
    assert net.coarse == "conv2"
    grown = Builder().conv("conv1", 8, stride=4).conv("conv2", 8).add("up", Resize((0, 0), (2.0, 2.0))).conv("conv3", 8)
    assert grown.coarse == "conv2"


@pytest.mark.parametrize("shape", [(5, 6, 12), (6, 12, 5), (6, 12, 6)])
def test_the_spacing_of_a_map_is_that_of_its_rows_or_columns_wherever_its_channels_are(shape):
    assert spacing(shape, (48, 96)) == 8
    assert spacing(shape[1:], (48, 96)) == spacing((7, 1, 1), (48, 96)) == 0


def test_first_layers_are_those_closest_to_the_pixels(nodes):
    net = Builder().add("scale", Affine(np.ones(3), np.ones(3))).conv("conv1", 4).add("relu", ReLU()).conv("conv2", 4)
    assert first_layers(net.nodes) == {0, 1}
    assert first_layers(nodes) == {0, 1, 2, 3, 4}
