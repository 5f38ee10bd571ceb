"""The graph of a network: what a node is called, and what it is computed from."""

import pytest

from fvlrp.network.graph import INPUT, KINDS, Node, ancestors
from fvlrp.network.layers import Add, Flatten, ReLU


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
def test_ancestors_are_what_a_node_is_computed_from(nodes, node, found):
    assert ancestors(nodes, node) == found


def test_a_node_is_of_its_layers_kind(nodes):
    assert [node.kind for node in nodes] == ["relu", "relu", "relu", "add", "flatten"]
    assert all(KINDS[node.kind] is type(node.layer) for node in nodes)
