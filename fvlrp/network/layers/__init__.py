"""The layers of a network as plain values: parameters and a mapping in three forms, without names or connections.

One module for each kind of layer, for the modules of `fvlrp.network`. To add a layer, write a class in one of them, add
it to `LAYERS`, and add a case to tests/test_layer_protocol.py.
"""

from .activation import LRN, Activation, Clip, LeakyReLU, PReLU, ReLU
from .attention import MatMul, Softmax
from .constant import Constant, DynamicQuantise, Extend, Quantise, Scale, Select, Table
from .conv import Conv
from .dense import Dense
from .join import Add, Affine, Concat
from .layer import NetworkLayer, Saved, Shape, Unchanged
from .norm import GroupNorm, LayerNorm, RMSNorm
from .pool import AveragePool, GlobalAveragePool, MaxPool
from .product import Maximum, Product, Quotient
from .reduce import POSITIONS, GlobalMaxPool, Reduce, Resize
from .select import Expand, Gather, Slice, Transpose
from .shape import Flatten, Pad, Reshape

# Every kind of layer: in rules and files, its name is that of the class in lower case.
LAYERS: tuple[type[NetworkLayer], ...] = (
    Conv,
    Dense,
    ReLU,
    LeakyReLU,
    PReLU,
    Clip,
    Activation,
    MaxPool,
    AveragePool,
    GlobalAveragePool,
    GlobalMaxPool,
    LRN,
    LayerNorm,
    RMSNorm,
    GroupNorm,
    Affine,
    Scale,
    Constant,
    Select,
    Extend,
    Quantise,
    DynamicQuantise,
    Table,
    Concat,
    Add,
    Product,
    Quotient,
    Maximum,
    MatMul,
    Softmax,
    Reduce,
    Resize,
    Flatten,
    Reshape,
    Transpose,
    Slice,
    Gather,
    Expand,
    Pad,
)

__all__ = [
    "LAYERS",
    "LRN",
    "POSITIONS",
    "Activation",
    "Add",
    "Affine",
    "AveragePool",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "Dense",
    "DynamicQuantise",
    "Expand",
    "Extend",
    "Flatten",
    "Gather",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNorm",
    "LayerNorm",
    "LeakyReLU",
    "MatMul",
    "MaxPool",
    "Maximum",
    "NetworkLayer",
    "PReLU",
    "Pad",
    "Product",
    "Quantise",
    "Quotient",
    "RMSNorm",
    "ReLU",
    "Reduce",
    "Reshape",
    "Resize",
    "Saved",
    "Scale",
    "Select",
    "Shape",
    "Slice",
    "Softmax",
    "Table",
    "Transpose",
    "Unchanged",
]
