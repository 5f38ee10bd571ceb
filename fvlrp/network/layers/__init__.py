"""The layers of a network as plain values: parameters, and a mapping in three forms; no names, no order.

One file a kind. A new layer is a class of its own in one of them, named in `LAYERS`, and a case in
tests/test_layer_protocol.py.
"""

from .activation import LRN, Clip, LeakyReLU, ReLU
from .conv import Conv
from .dense import Dense
from .join import Add, Affine, Concat
from .layer import NetworkLayer, Saved, Shape, Unchanged
from .pool import AveragePool, GlobalAveragePool, MaxPool
from .shape import Flatten, Pad, Reshape

# Every kind of layer: rules and files call it by its class's name in lower case.
LAYERS: tuple[type[NetworkLayer], ...] = (
    Conv,
    Dense,
    ReLU,
    LeakyReLU,
    Clip,
    MaxPool,
    AveragePool,
    GlobalAveragePool,
    LRN,
    Affine,
    Concat,
    Add,
    Flatten,
    Reshape,
    Pad,
)

__all__ = [
    "LAYERS",
    "LRN",
    "Add",
    "Affine",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "Dense",
    "Flatten",
    "GlobalAveragePool",
    "LeakyReLU",
    "MaxPool",
    "NetworkLayer",
    "Pad",
    "ReLU",
    "Reshape",
    "Saved",
    "Shape",
    "Unchanged",
]
