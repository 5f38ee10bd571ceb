"""Operators of ONNX files one by one, in ONNX's text form: the same numbers as onnxruntime, or a clear refusal.

Every case reads x, float (n, 3, 4, 6) in 0.2..1, and makes t, whose numbers for each image are the scores.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from fvlrp import Network
from fvlrp.network.onnx import OPERATORS

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx.parser")

HEAD = '<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1]> g (float[n, 3, 4, 6] x) => (float[n, m] y)'
ROW = "float[6] {0.5, -1.0, 2.0, 0.25, 1.5, -0.5}"


def case(body, opset=17, **constants):
    """The text of a graph: constants by name, as literals of ONNX or as tuples of whole numbers, and then `body`."""
    lines = [f"{name} = Constant <value = {literal(value)}> ()" for name, value in constants.items()]
    return HEAD.format(opset=opset) + "{" + "\n".join([*lines, body, "y = Flatten <axis = 1> (t)"]) + "}"


def literal(value):
    return value if isinstance(value, str) else f"int64[{len(value)}] {{{', '.join(map(str, value))}}}"


def weights(*shape):
    """A literal of numbers drawn from a seed, three decimals each."""
    values = np.random.default_rng(shape).uniform(-1, 1, shape).round(3)
    return f"float[{', '.join(map(str, shape))}] {{{', '.join(map(str, values.ravel()))}}}"


def number(value):
    return f"float {{{value}}}"


def scores_of(text, path, n=2):
    """Scores of random images: fvlrp's and onnxruntime's, float (n, m)."""
    onnx.save(onnx.parser.parse_model(text), path)
    x = np.random.default_rng(7).uniform(0.2, 1, (n, 3, 4, 6)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return Network.from_onnx(path).forward(x), session.run(None, {"x": x})[0]


FLAT = "f = Flatten <axis = 1> (x)\n"  # (n, 72)
MEAN = "m = ReduceMean <axes = [1], keepdims = 1> (x)\n"  # (n, 1, 4, 6)
CENTRED = "s = Sub (x, p)\n"
FUNCTIONS = (
    *("Abs", "Celu", "Cos", "Elu", "Erf", "Exp", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Reciprocal", "Relu"),
    *("Selu", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh"),
)

EACH = {"s": "float[3] {0.01, 0.02, 0.005}", "z": "uint8[3] {3, 5, 9}"}  # of a quantised tensor, for each channel

ELEMENTWISE = {
    "add of a constant": case("t = Add (x, c)", c=ROW),
    "add of two, one shorter": case(MEAN + "t = Add (x, m)"),
    "sum of one": case("t = Sum (x)"),
    "sum of three": case("t = Sum (x, c, x)", c=ROW),
    "difference to a constant": case("t = Sub (x, c)", c=ROW),
    "difference of a constant": case("t = Sub (c, x)", c=ROW),
    "difference of two": case(MEAN + "t = Sub (x, m)"),
    "product with a constant": case("t = Mul (c, x)", c=ROW),
    "product with a longer constant": case("m = ReduceMean <axes = [3], keepdims = 1> (x)\n t = Mul (m, c)", c=ROW),
    "product with one": case("t = Mul (x, c)", c=number(1)),
    "square as a product": case("t = Mul (x, x)"),
    "product of two": case("s = Sigmoid (x)\n t = Mul (x, s)"),
    "quotient by a constant": case("t = Div (x, c)", c=ROW),
    "quotient of a constant": case("t = Div (c, x)", c=ROW),
    "quotient of two": case(MEAN + "t = Div (x, m)"),
    "negative": case("t = Neg (x)"),
    **{f"power {p}": case("t = Pow (x, p)", p=number(p)) for p in (1.0, 2.0, 0.5, -1.0, 3.0)},
    "maximum with a constant": case("t = Max (x, c)", c=number(0.5)),
    "maximum with zero": case(CENTRED + "t = Max (s, z)", p=number(0.5), z=number(0)),
    "maximum of two": case(MEAN + "t = Max (x, m)"),
    "maximum with a row": case("t = Max (x, c)", c=ROW),
    "minimum with a row": case("t = Min (c, x)", c=ROW),
    "maximum with many zeros": case(CENTRED + "t = Max (s, z)", p=number(0.5), z="float[6] {0, 0, 0, 0, 0, 0}"),
    "maximum with more zeros": case(
        "m = ReduceMean <axes = [3], keepdims = 1> (x)\n s = Sub (m, p)\n r = Max (s, z)\n t = Mul (r, c)",
        p=number(0.6), z="float[6] {0, 0, 0, 0, 0, 0}", c=ROW,
    ),
    "mean of a tensor and a row": case("t = Mean (x, c)", c=ROW),
    **{
        f"{name} than a row": case(f"g = {name} ({sides})\n c1 = Cast <to = 1> (g)\n t = Mul (c1, x)", c=ROW)
        for name in ("Greater", "Less", "GreaterOrEqual", "LessOrEqual")
        for sides in ("x, c", "c, x")
    },
    "minimum with a constant": case("t = Min (x, c)", c=number(0.5)),
    "mean of one": case("t = Mean (x)"),
    "mean of two": case("s = Sigmoid (x)\n t = Mean (x, s)"),
    "clip": case("t = Clip (x, low, high)", low=number(0.4), high=number(0.8)),
    "slope for all": case(CENTRED + "t = PRelu (s, a)", p=number(0.5), a="float[1] {0.3}"),
    "slope per channel": case(CENTRED + "t = PRelu (s, a)", p=number(0.5), a="float[3, 1, 1] {0.3, 0.1, -0.2}"),
    "cast": case("t = Cast <to = 1> (x)"),
    "cast like": case("t = CastLike (x, c)", c=ROW),
    "choice from a constant": case("t = Where (c, x, v)", c="bool[6] {1, 0, 1, 1, 0, 0}", v=ROW),
    "choice from two": case("s = Neg (x)\n t = Where (c, x, s)", c="bool[6] {1, 0, 1, 1, 0, 0}"),
    "upper triangle": case("t = Trilu (x)"),
    "lower triangle, shifted": case("t = Trilu <upper = 0> (x, k)", k="int64 {2}"),
    **{
        name: case(CENTRED + f"t = {name} (s)", p=number(0.1 if name in ("Log", "Sqrt") else 0.5))
        for name in FUNCTIONS
    },
    "Round": case("s = Mul (x, c)\n t = Round (s)", c=number(7)),
    "Floor, Ceil": case("s = Mul (x, c)\n f = Floor (s)\n g = Ceil (s)\n t = Mul (f, g)", c=number(7)),
    "Sigmoid": case("s = Sigmoid (x)\n t = Mul (s, c)", c=ROW),  # one at the end is left out
    "Shrink": case("t = Shrink <lambd = 0.4, bias = 0.1> (x)"),
    "ThresholdedRelu": case("t = ThresholdedRelu <alpha = 0.5> (x)"),
    "Mish": case(CENTRED + "t = Mish (s)", 18, p=number(0.5)),
    "Gelu": case(CENTRED + "t = Gelu (s)", 20, p=number(0.5)),
    "Gelu by tanh": case(CENTRED + 't = Gelu <approximate = "tanh"> (s)', 20, p=number(0.5)),
    "Gelu of onnxruntime": case(CENTRED + "t = com.microsoft.Gelu (s)", p=number(0.5)),
    "FastGelu": case(CENTRED + "t = com.microsoft.FastGelu (s)", p=number(0.5)),
    "QuickGelu": case(CENTRED + "t = com.microsoft.QuickGelu <alpha = 1.5> (s)", p=number(0.5)),
    "BiasGelu": case("t = com.microsoft.BiasGelu (x, c)", c=ROW),
    "quantised": case(
        "q = QuantizeLinear (x, s, z)\n d = DequantizeLinear (q, s, z)\n t = Mul (d, c)",
        s=number(0.01), z="uint8 {3}", c=ROW,
    ),
    "quantised by channels, which are then last": case(
        "q = QuantizeLinear <axis = 1> (x, s, z)\n r = Transpose <perm = [0, 2, 3, 1]> (q)\n "
        "d = DequantizeLinear <axis = 3> (r, s, z)\n t = Mul (d, c)",
        c="float[3] {0.5, -1.0, 2.0}", **EACH,
    ),
    "quantised by channels, read by rows": case(
        "q = QuantizeLinear <axis = 1> (x, s, z)\n r = Reshape (q, n)\n "
        "d = DequantizeLinear <axis = 2> (r, s, z)\n t = Mul (d, c)",
        n=(0, -1, 3), c="float[3] {0.5, -1.0, 2.0}", **EACH,
    ),
    "quantised by channels, the largest of windows": case(
        "q = QuantizeLinear <axis = 1> (x, s, z)\n p = MaxPool <kernel_shape = [2, 2]> (q)\n "
        "d = DequantizeLinear <axis = 1> (p, s, z)\n t = Mul (d, c)",
        c=number(2), **EACH,
    ),
    "quantised by channels, read at one scale": case(
        "q = QuantizeLinear <axis = 1> (x, s, z)\n t = DequantizeLinear (q, r, y0)",
        r=number(0.02), y0="uint8 {5}", **EACH,
    ),
    "quantised by channels, real numbers": case(
        "q = QuantizeLinear <axis = 1> (x, s, z)\n r = Transpose <perm = [0, 3, 2, 1]> (q)\n t = Cast <to = 1> (r)",
        **EACH,
    ),
    "two quantised tensors in one": case(
        "q = QuantizeLinear (x, s, z)\n "
        "g = Sigmoid (x)\n p = QuantizeLinear (g, s, z)\n r = Concat <axis = 2> (q, p)\n "
        "d = DequantizeLinear (r, s, z)\n t = Mul (d, c)",
        s=number(0.01), z="uint8 {3}", c=ROW,
    ),
    "quantised at two scales in one": case(
        "q = QuantizeLinear (x, s, z)\n p = QuantizeLinear <axis = 3> (x, u, v)\n r = Concat <axis = 2> (q, p)\n "
        "d = DequantizeLinear (r, s, z)\n t = Mul (d, c)",
        s=number(0.01), z="uint8 {3}", u="float[6] {0.01, 0.02, 0.03, 0.01, 0.02, 0.03}",
        v="uint8[6] {0, 1, 2, 3, 4, 5}",
        c=ROW,
    ),
    "a border around dequantised values": case(
        "q = QuantizeLinear (x, s, z)\n d = DequantizeLinear (q, s, z)\n t = Pad (d, p, v)",
        s=number(0.01), z="uint8 {30}", p=(0, 0, 1, 1, 0, 0, 1, 1), v=number(0.5),
    ),
    "dequantised values in another type": case(
        "q = QuantizeLinear (x, s, z)\n d = DequantizeLinear (q, s, z)\n g = Cast <to = 1> (d)\n t = Mul (g, c)",
        s=number(0.01), z="uint8 {30}", c=ROW,
    ),
    "whole numbers, a constant, real numbers": case(
        "q = QuantizeLinear (x, s, z)\n i = Cast <to = 6> (q)\n j = Sub (i, k)\n "
        "g = Cast <to = 1> (j)\n t = Mul (g, c)",
        s=number(0.01), z="uint8 {30}", k="int32 {30}", c=ROW,
    ),
    "a dequantised product of whole numbers": case(
        "q = QuantizeLinear (x, s, z)\n m = MatMulInteger (q, w, z)\n d = DequantizeLinear (m, r)\n t = Mul (d, c)",
        s=number(0.01), z="uint8 {30}", w="int8[6, 2] {1, -2, 3, 4, -5, 6, 7, 8, 9, -10, 11, 12}", r=number(0.02),
        c=number(2),
    ),
    "quantised, read at another scale": case(
        "q = QuantizeLinear (x, s, z)\n t = DequantizeLinear (q, r, y0)",
        s=number(0.01), z="uint8 {3}", r=number(0.02), y0="uint8 {5}",
    ),
}  # fmt: skip

EIGHT = "int8[6, 5] {" + ", ".join(str(7 * i % 100 - 50) for i in range(30)) + "}"
WINDOWS = "uint8[2, 3, 2, 2] {" + ", ".join(str(9 * i) for i in range(24)) + "}"
QUANTISED = "q = QuantizeLinear (x, s, z)\n "
STEP = {"s": number(0.01), "z": "uint8 {30}"}
WHOLE = {
    "whole numbers as real ones": case(QUANTISED + "c = Cast <to = 1> (q)\n t = Mul (c, k)", k=number(0.01), **STEP),
    "MatMulInteger by a scale of the file": case(
        QUANTISED + "m = MatMulInteger (q, w, z, v)\n c = Cast <to = 1> (m)\n t = Mul (c, k)",
        w=EIGHT, v="int8 {3}", k=number(0.002), **STEP,
    ),
    "MatMulInteger without zero points": case(
        QUANTISED + "m = MatMulInteger (q, w)\n c = Cast <to = 1> (m)\n t = Mul (c, k)",
        w=EIGHT, k=number(0.002), **STEP,
    ),
    "MatMulIntegerToFloat by a scale of the file": case(
        QUANTISED + "t = com.microsoft.MatMulIntegerToFloat (q, w, s, r, z, v, b)",
        w=EIGHT, v="int8 {3}", r=number(0.02), b=weights(5), **STEP,
    ),
    "ConvInteger by a scale of the file": case(
        QUANTISED + "m = ConvInteger <pads = [1, 1, 0, 0]> (q, w, z, v)\n c = Cast <to = 1> (m)\n t = Mul (c, k)",
        w=WINDOWS, v="uint8 {100}", k=number(0.01), **STEP,
    ),
    "quantised to a type without a zero point": case(
        CENTRED + "q = QuantizeLinear <output_dtype = 3> (s, r)\n d = DequantizeLinear (q, r)\n t = Mul (d, c)",
        21, p=number(0.6), r=number(0.003), c=ROW,
    ),
    **{
        f"QLinearSoftmax of opset {opset}": case(
            QUANTISED + f"r = com.microsoft.QLinearSoftmax <axis = 2, opset = {opset}> (q, s, z, k, o)\n "
            "t = DequantizeLinear (r, k, o)",
            s=number(0.05), z="uint8 {30}", k=number(1 / 256), o="uint8 {0}",
        )
        for opset in (12, 13)
    },
}  # fmt: skip

PRODUCTS = {
    "Gemm": case(FLAT + "t = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (f, w, b)", w=weights(5, 72), b=weights(5)),
    "Gemm, one bias": case(FLAT + "t = Gemm (f, w, b)", w=weights(72, 5), b="float[1] {0.5}"),
    "Gemm, computed bias": case(FLAT + "g = Gemm (f, w)\n t = Gemm <beta = 0.5> (f, w, g)", w=weights(72, 5)),
    "Gemm, constant first": case(
        FLAT + "g = Gemm <transA = 1, transB = 1> (w, f, b)\n t = Transpose (g)", w=weights(72, 5), b="float[1] {0.5}"
    ),
    "MatMul": case("t = MatMul (x, w)", w=weights(6, 5)),
    "MatMul, a vector": case("t = MatMul (x, w)", w=weights(6)),
    "MatMul, a stack": case("t = MatMul (x, w)", w=weights(3, 6, 2)),
    "MatMul, a stack of one": case("t = MatMul (x, w)", w=weights(1, 1, 6, 2)),
    "MatMul, a longer stack": case(
        "r = Reshape (x, s)\n p = MatMul (r, w)\n "
        "t = Transpose <perm = [1, 0, 2, 3]> (p)", s=(0, 12, 6), w=weights(2, 1, 6, 2)
    ),
    "MatMul, constant first": case("t = MatMul (w, x)", w=weights(5, 4)),
    "MatMul, a stack first": case("t = MatMul (w, x)", w=weights(3, 5, 4)),
    "MatMul, a vector first": case("t = MatMul (w, x)", w=weights(4)),
    "MatMul, two": case("s = Transpose <perm = [0, 1, 3, 2]> (x)\n t = MatMul (x, s)"),
    "FusedMatMul": case("t = com.microsoft.FusedMatMul <transB = 1, alpha = 0.5> (x, w)", w=weights(5, 6)),
    "FusedMatMul, two": case("t = com.microsoft.FusedMatMul <transA = 1> (x, x)"),
    **{
        f"Einsum {equation}": case(f't = Einsum <equation = "{equation}"> ({inputs})', **constants)
        for equation, inputs, constants in (
            ("bchw,bcgw->bchg", "x, x", {}),
            ("bchw,bkhw->bck", "x, x", {}),
            ("bchw,wk->bkch", "x, v", {"v": weights(6, 5)}),
            ("ck,bchw->bkhw", "v, x", {"v": weights(3, 5)}),
            ("bchw,wkz->bchk", "x, v", {"v": weights(6, 5, 2)}),
            ("bchw->bwc", "x", {}),
            ("...w,wk->...k", "x, v", {"v": weights(6, 5)}),
            ("bchw,wk", "x, v", {"v": weights(6, 5)}),
        )
    },
    "Attention": case(
        "q = Mul (x, a)\n k = Mul (x, b)\n t = Attention (q, k, x)", 23, a=weights(6), b=weights(6)
    ),
    "Attention, masked": case(
        "t = Attention <is_causal = 1, softcap = 2.0, scale = 3.0> (x, x, x, m)", 23,
        m="bool[4, 4] {1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1}"
    ),
    "Attention, keys shared by heads": case(
        "r = Reshape (x, s)\n k = Slice (r, o, e, a)\n t = Attention <q_num_heads = 4, kv_num_heads = 2> (r, k, k)", 23,
        s=(0, 9, 8), o=(2,), e=(6,), a=(2,),
    ),
    "Attention, tokens": case(
        "r = Reshape (x, s)\n t = Attention <q_num_heads = 2, kv_num_heads = 2> (r, r, r)", 23, s=(0, 12, 6)
    ),
}  # fmt: skip

MOVES = {
    "Split whose last part is shorter": case(
        "s = Slice (x, o, e, k)\n a, b, c = Split <axis = 3, num_outputs = 3> (s)\n t = Concat <axis = 3> (c, b, a)",
        18, o=(0,), e=(5,), k=(3,),
    ),
    "Split whose last part is nothing": case(
        "a, b, c, d = Split <axis = 3, num_outputs = 4> (x)\n t = Concat <axis = 3> (d, c, a)", 18
    ),
    "Reshape": case("t = Reshape (x, s)", s=(0, 12, -1)),
    "Flatten behind the second axis": case("f = Flatten <axis = 2> (x)\n t = Reshape (f, s)", s=(-1, 72)),
    "Squeeze, Unsqueeze": case(MEAN + "s = Squeeze (m, a)\n t = Unsqueeze (s, b)", a=(1,), b=(1, -1)),
    "Slice": case("t = Slice (x, a, e, d, s)", a=(1, -1), e=(3, -7), d=(2, 3), s=(1, -2)),
    "Slice by attributes": case("t = Slice <starts = [1], ends = [9], axes = [3]> (x)", 9),
    "Gather, one": case("t = Gather <axis = 2> (x, i)", i="int64 {-2}"),
    "Gather, many": case("t = Gather <axis = 3> (x, i)", i="int64[2, 2] {0, -1, 3, 3}"),
    "Gather, in another order": case("t = Gather <axis = 1> (x, i)", i=(2, 0)),
    "Concat": case(MEAN + "t = Concat <axis = 1> (x, m, x)"),
    "Concat with constants": case(FLAT + "s = Shape <end = 1> (x)\n l = Concat <axis = 0> (s, k)\n "
    "c = Expand (v, l)\n t = Concat <axis = 1> (c, f, c)", k=(6,), v=ROW),
    "Split in unequal parts": case("a, b, c = Split <axis = 3> (x, s)\n t = Concat <axis = 3> (c, a)", s=(1, 2, 3)),
    "Split in equal parts": case("a, b = Split <axis = 2> (x)\n t = Sub (a, b)"),
    "Tile": case("t = Tile (x, r)", r=(1, 1, 2, 3)),
    "Expand": case("m = ReduceMean <axes = [2], keepdims = 1> (x)\n t = Expand (m, s)", s=(1, 3, 5, 6)),
    "Transpose": case("t = Transpose <perm = [0, 3, 1, 2]> (x)"),
    "Pad": case("t = Pad (x, p, v)", p=(0, 1, 2, 0, 0, 0, 1, 3), v=number(0.5)),
    "Pad, reflected": case('t = Pad <mode = "reflect"> (x, p)', p=(0, 0, 2, 1, 0, 0, 1, 3)),
    "Pad, cut off": case('t = Pad <mode = "edge"> (x, p)', p=(0, 0, -1, 1, 0, 0, 1, -2)),
    "Pad, rows": case(FLAT + "t = Pad (f, p)", p=(0, 2, 0, 1)),
    "DepthToSpace": case("c = Concat <axis = 1> (x, x, x, x)\n t = DepthToSpace <blocksize = 2> (c)"),
    "DepthToSpace, CRD": case(
        'c = Concat <axis = 1> (x, x, x, x)\n t = DepthToSpace <blocksize = 2, mode = "CRD"> (c)'
    ),
    "SpaceToDepth": case("t = SpaceToDepth <blocksize = 2> (x)"),
    "Resize, nearest, by thirds": case("t = Resize (x, e, s)", e="float[0] {}", s="float[4] {1, 1, 1, 1.3}"),
    "Resize, nearest, before nearest_mode": case("t = Resize (x, s)", 10, s="float[4] {1, 1, 2, 0.6}"),
    "Resize to the same": case("t = Resize (x, e, s)", e="float[0] {}", s="float[4] {1, 1, 1, 1}"),
    "Resize, nearest": case("t = Resize (x, e, s)", e="float[0] {}", s="float[4] {1, 1, 2, 2}"),
    "Resize, linear": case('t = Resize <mode = "linear"> (x, e, s)', e="float[0] {}", s="float[4] {1, 1, 1.5, 2}"),
    "Resize, cubic": case(
        't = Resize <mode = "cubic", coordinate_transformation_mode = "align_corners"> (x, e, s)',
        e="float[0] {}", s="float[4] {1, 1, 2, 2}",
    ),
    "Resize, nearest, as TensorFlow once had it": case(
        't = Resize <coordinate_transformation_mode = "tf_half_pixel_for_nn"> (x, e, s)',
        e="float[0] {}", s="float[4] {1, 1, 2, 0.6}",
    ),
    "Resize, cubic, without the outside": case(
        't = Resize <mode = "cubic", exclude_outside = 1> (x, e, s)', e="float[0] {}", s="float[4] {1, 1, 2, 1.5}"
    ),
    "Resize, symmetric": case(
        't = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel_symmetric"> (x, e, s)', 19,
        e="float[0] {}", s="float[4] {1, 1, 1.3, 0.7}",
    ),
    "Slice backwards past the start": case("t = Slice (x, a, e, d, s)", a=(-1,), e=(-99,), d=(3,), s=(-2,)),
    "Gather of one row of indices": case("t = Gather <axis = 2> (x, i)", i="int64[1, 2] {3, 1}"),
    "Squeeze of all": case("m = ReduceMean <axes = [1, 2], keepdims = 1> (x)\n t = Squeeze (m)"),
    "Resize, axes": case('t = Resize <axes = [2, 3]> (x, e, s)', 18, e="float[0] {}", s="float[2] {2, 3}"),
    "Upsample": case("t = Upsample (x, s)", 9, s="float[4] {1, 1, 2, 2}"),
}  # fmt: skip

ALONG = {
    **{
        f"sums up to a place of axis {axis}, {how}": case(f"t = CumSum <{how}> (x, a)", a=f"int64 {{{axis}}}")
        for axis, how in ((3, "reverse = 0"), (2, "reverse = 1"), (-3, "exclusive = 1"))
    },
    "averages over neighbouring channels": case(
        "v = Reshape (x, s)\n p = Pad (v, w)\n a = AveragePool <kernel_shape = [3, 1, 1], strides = [1, 1, 1]> (p)\n "
        "t = Reshape (a, r)",
        s=(0, 1, 3, 4, 6), w=(0, 0, 1, 0, 0, 0, 0, 1, 0, 0), r=(0, 3, 4, 6),
    ),
    "the largest of neighbouring channels": case(
        "v = Reshape (x, s)\n t = MaxPool <kernel_shape = [2, 1, 1], pads = [0, 0, 0, 1, 0, 0]> (v)", s=(0, 1, 3, 4, 6)
    ),
    **{
        f"Reduce{how}": case(f"t = Reduce{how} <axes = [1, 3], keepdims = 0> (x)")
        for how in ("Mean", "Max", "Min", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
    },
    "ReduceLogSumExp": case("t = ReduceLogSumExp <axes = [2, 3], keepdims = 0> (x)"),
    "ReduceLogSumExp far below 0": case("u = Mul (x, k)\n t = ReduceLogSumExp <axes = [-1]> (u)", k=number(-9e3)),
    "ReduceLogSumExp far above 0": case("u = Mul (x, k)\n t = ReduceLogSumExp <axes = [-1]> (u)", k=number(9e3)),
    "ReduceSum": case("t = ReduceSum <keepdims = 0> (x, a)", a=(-1,)),
    "ReduceSum of nothing": case("t = ReduceSum <noop_with_empty_axes = 1> (x)"),
    "ReduceMin of all": case("m = ReduceMin <axes = [1, 2, 3], keepdims = 0> (x)\n t = Unsqueeze (m, a)", a=(1,)),
    **{
        f"Reduce{how} of nothing": case(f"t = Reduce{how} <noop_with_empty_axes = 1> (x)", 18)
        for how in ("SumSquare", "LogSum")
    },
    "Softmax": case("s = Softmax <axis = 3> (x)\n t = Mul (s, c)", c=ROW),
    "Softmax over several axes": case("s = Softmax <axis = 2> (x)\n t = Mul (s, c)", 11, c=ROW),
    "LogSoftmax": case("s = LogSoftmax <axis = 2> (x)\n t = Mul (s, c)", c=ROW),
    "LayerNormalization": case("t = LayerNormalization <axis = -1> (x, a, b)", a=weights(6), b=weights(6)),
    "LayerNormalization, two axes": case("t = LayerNormalization <axis = 2> (x, a)", a=weights(4, 6)),
    "SkipLayerNormalization": case(
        "r = Reshape (x, s)\n t = com.microsoft.SkipLayerNormalization (r, r, a, b, c)",
        s=(0, 12, 6), a=weights(6), b=weights(6), c=ROW,
    ),
    "SkipLayerNormalization of a constant": case(
        "r = Reshape (x, s)\n t = com.microsoft.SkipLayerNormalization (r, k, a)",
        s=(0, 2, 36), k=weights(2, 36), a=weights(36),
    ),
    "RMSNormalization": case("t = RMSNormalization (x, a)", 23, a=weights(6)),
    "InstanceNormalization": case("t = InstanceNormalization (x, a, b)", a=weights(3), b=weights(3)),
    "GroupNormalization": case("t = GroupNormalization <num_groups = 3> (x, a, b)", 21, a=weights(3), b=weights(3)),
    "MeanVarianceNormalization": case("t = MeanVarianceNormalization <axes = [2, 3]> (x)"),
    "LpNormalization": case("t = LpNormalization <axis = 1> (x)"),
    "LpNormalization, p = 1": case("t = LpNormalization <axis = 3, p = 1> (x)"),
    **{
        f"LpNormalization of zeros, p = {p}": case(
            CENTRED + f"r = Relu (s)\n t = LpNormalization <axis = 1, p = {p}> (r)", p=number(0.75)
        )
        for p in (1, 2)
    },
    "LpPool": case("t = LpPool <kernel_shape = [2, 3], strides = [2, 2]> (x)"),
    "LpPool, cut off": case("t = LpPool <kernel_shape = [3, 4], strides = [2, 2], p = 3, ceil_mode = 1> (x)", 18),
    "LRN": case("t = LRN <size = 3, alpha = 0.1> (x)"),
    "MaxPool": case("t = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)"),
    "MaxPool of lengths": case("r = Reshape (x, s)\n "
    "t = MaxPool <kernel_shape = [2], strides = [2]> (r)", s=(0, 12, 6)),
    "AveragePool": case("t = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (x)"),
    "GlobalMaxPool": case("t = GlobalMaxPool (x)"),
    "ConvTranspose": case(
        "t = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 0]> (x, w)",
        w=weights(3, 2, 3, 3),
    ),
    "ConvTranspose of lengths": case(
        "r = Reshape (x, s)\n "
        "t = ConvTranspose <strides = [3], dilations = [2], pads = [1, 0], output_padding = [1]> (r, w, b)",
        s=(0, 12, 6), w=weights(12, 2, 3), b=weights(2),
    ),
    **{
        f"ConvTranspose, {how}, {more}, kernel {kernel}": case(
            f't = ConvTranspose <strides = [3, 2], output_padding = {more}, auto_pad = "{how}"> (x, w)',
            w=weights(3, 2, *kernel),
        )
        for how in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for more in ([0, 1], [1, 0], [2, 1])
        for kernel in ((3, 3), (2, 4), (1, 2))
    },
    "ConvTranspose, longer than its windows": case(
        't = ConvTranspose <group = 3, strides = [3, 2], output_shape = [12, 13], auto_pad = "SAME_UPPER"> (x, w)',
        w=weights(3, 2, 2, 3),
    ),
    "Conv of lengths": case("r = Reshape (x, s)\n t = Conv <pads = [1, 1]> (r, w)", s=(0, 12, 6), w=weights(5, 12, 3)),
    "Conv, padded by itself": case('t = Conv <auto_pad = "SAME_LOWER"> (x, w)', w=weights(5, 3, 2, 2)),
}  # fmt: skip

# Functions that exporters write out in steps, and the layer that must come of them.
_DEVIATION = """m = ReduceMean <axes = [-1]> (x)\n d = Sub (x, m)\n p = Pow (d, two)\n v = ReduceMean <axes = [-1]> (p)
 e = Add (v, eps)\n r = Sqrt (e)\n"""
_NORMAL = {"two": number(2), "eps": number(1e-5)}
WRITTEN_OUT = {
    "LayerNorm": (
        "layernorm",
        case(_DEVIATION + "q = Div (d, r)\n s = Mul (q, a)\n t = Add (s, b)", a=weights(6), b=weights(6), **_NORMAL),
    ),
    "LayerNorm by a reciprocal": (
        "layernorm",
        case(_DEVIATION + "i = Reciprocal (r)\n s = Mul (d, i)\n t = Mul (s, a)", a=weights(6), **_NORMAL),
    ),
    "RMSNorm": (
        "rmsnorm",
        case(
            "p = Mul (x, x)\n v = ReduceMean <axes = [-1]> (p)\n e = Add (v, eps)\n r = Sqrt (e)\n q = Div (x, r)\n"
            " t = Mul (q, a)",
            a=weights(6), eps=number(1e-5),
        ),
    ),
    "LayerNorm by a variance whose axis is dropped and put back": (
        "layernorm",
        case(
            "m = ReduceMean <axes = [-1]> (x)\n d = Sub (x, m)\n p = Mul (d, d)\n"
            " v = ReduceMean <axes = [-1], keepdims = 0> (p)\n w = Reshape (v, u)\n e = Add (w, eps)\n r = Sqrt (e)\n"
            " q = Div (d, r)\n s = Mul (q, a)\n t = Add (s, b)",
            u=(0, 3, 4, 1), a=weights(6), b=weights(6), eps=number(1e-5),
        ),
    ),
    "InstanceNorm with a scale and shift for each channel": (
        "groupnorm",
        case(
            "m = ReduceMean <axes = [2, 3]> (x)\n d = Sub (x, m)\n p = Mul (d, d)\n"
            " v = ReduceMean <axes = [2, 3]> (p)\n"
            " e = Add (v, eps)\n r = Sqrt (e)\n q = Div (d, r)\n s = Mul (q, a)\n t = Add (s, b)",
            a=weights(3, 1, 1), b=weights(3, 1, 1), eps=number(1e-5),
        ),
    ),
    "GroupNorm by groups as channels": (
        "groupnorm",
        case(
            "c = Conv (x, w)\n g = Reshape (c, s)\n i = InstanceNormalization (g, o, z)\n k = Reshape (i, u)\n"
            " f = Mul (k, a)\n t = Add (f, b)",
            w=weights(4, 3, 1, 1), s=(0, 2, -1), u=(0, 4, 4, 6), o="float[2] {1, 1}", z="float[2] {0, 0}",
            a=weights(4, 1, 1), b=weights(4, 1, 1),
        ),
    ),
    "Softmax": (
        "softmax",
        case(
            "m = ReduceMax <axes = [-1]> (x)\n d = Sub (x, m)\n e = Exp (d)\n u = ReduceSum (e, i)\n q = Div (e, u)\n"
            " t = Mul (q, c)",
            i=(-1,), c=ROW,
        ),
    ),
    "Gelu": (
        "gelu",
        case(
            CENTRED + "d = Div (s, h)\n e = Erf (d)\n o = Add (e, one)\n m = Mul (s, o)\n t = Mul (m, q)",
            p=number(0.5), h=number(2**0.5), one=number(1), q=number(0.5),
        ),
    ),
    "Swish": ("silu", case(CENTRED + "g = Sigmoid (s)\n t = Mul (s, g)", p=number(0.5))),
    "HardSwish": (
        "hardswish",
        case(CENTRED + "g = HardSigmoid <alpha = 0.16666667> (s)\n t = Mul (s, g)", p=number(0.5)),
    ),
    "Mish": ("mish", case(CENTRED + "g = Softplus (s)\n h = Tanh (g)\n t = Mul (s, h)", p=number(0.5))),
}  # fmt: skip

# c of six numbers, or of one, from constants alone; onnxruntime computes it, too.
FOLDED = {
    "arithmetic": "a = Add (v, v)\n b = Sub (a, v)\n d = Mul (b, a)\n c = Div (d, v)",
    "whole numbers": "a = Div (i, k)\n b = Mod (i, k)\n d = Add (a, b)\n c = Cast <to = 1> (d)",
    "comparisons": "a = Greater (v, n)\n b = Less (v, n)\n d = Or (a, b)\n e = Not (d)\n f = Equal (v, v)\n "
    "g = Xor (e, f)\n"
    " c = Where (g, v, n)",
    "functions": "a = Exp (v)\n b = Sqrt (a)\n d = Log (b)\n e = Tanh (d)\n f = Sigmoid (e)\n g = Abs (f)\n "
    "h = Neg (g)\n"
    " j = Reciprocal (h)\n l = Erf (j)\n m = Floor (l)\n o = Ceil (l)\n p = Add (m, o)\n c = Add (p, l)",
    "reductions": "a = ReduceMean <keepdims = 1> (v)\n b = ReduceMax <keepdims = 1> (v)\n "
    "d = ReduceMin <keepdims = 1> (v)\n"
    " e = ReduceL2 <keepdims = 1> (v)\n f = ReduceSumSquare <keepdims = 1> (v)\n g = Sum (a, b, d, e, f)\n"
    " h = ReduceProd <keepdims = 1> (v)\n c = Mul (g, h)",
    "extremes": "a = Max (v, n)\n b = Min (a, n)\n d = Mean (a, b)\n c = Clip (d, n)",
    "powers": "a = Mul (v, v)\n c = Pow (a, v)",
    "ranges": "a = Constant <value_float = 0.0> ()\n b = Constant <value_float = 3.0> ()\n "
    "d = Constant <value_float = 0.5> ()\n"
    " c = Range (a, b, d)",
    "shapes": "a = Reshape (v, s23)\n b = Transpose (a)\n d = Flatten <axis = 0> (b)\n e = Squeeze (d)\n "
    "f = Unsqueeze (e, zero)\n"
    " c = Squeeze (f, zero)",
    "lengths": "a = Shape (v)\n b = Size (v)\n d = Add (a, b)\n c = Cast <to = 1> (d)",
    "fillings": "a = Shape (v)\n b = ConstantOfShape <value = float[1] {0.7}> (a)\n c = Add (b, v)",
    "copies": "a = Gather (v, zero)\n b = Tile (a, six)\n d = Expand (a, six)\n c = Add (b, d)",
    "cuts": "a, b = Split (v)\n d = Slice (v, zero, three)\n e = Concat <axis = 0> (b, a)\n "
    "f = Concat <axis = 0> (d, d)\n"
    " c = Add (e, f)",
    "picks": "a = GatherElements (v, i5)\n b = GatherND (v, i51)\n d = ScatterElements (v, zero, one)\n"
    " e = ScatterND (d, i51, b)\n c = Add (a, e)",
    "picks among fewer": "a = Reshape (v, s23)\n b = GatherElements <axis = 1> (a, i12)\n "
    "d = ScatterElements <axis = 1> (a, i12, b)\n c = Reshape (d, six)",
    "borders": "a = Slice (v, zero, three)\n b = Pad (a, p12)\n d = Pad <mode = \"edge\"> (a, p12)\n c = Add (b, d)",
    "products": "a = Reshape (v, s23)\n b = Transpose (a)\n d = MatMul (a, b)\n e = Gemm <transA = 1> (d, a)\n"
    " f = Einsum <equation = \"ij->ji\"> (e)\n g = Reshape (f, six)\n c = Add (g, v)",
    "numbers of a node": "a = Constant <value_ints = [1, 2, 3, 4, 5, 6]> ()\n b = Cast <to = 1> (a)\n c = Mul (b, v)",
    "backwards past the start": "c = Slice (v, five, before, zero, back)",
    "quantised in blocks": "c = DequantizeLinear <axis = 0, block_size = 3> (q6, n2, z2)",
    "sums": "a = CumSum (v, axis)\n c = Add (a, v)",
    "triangles": "a = Reshape (v, s23)\n b = Trilu (a)\n e = EyeLike (a)\n d = Add (b, e)\n c = Reshape (d, six)",
    "one hot": "a = OneHot (zero, length, pair)\n b = Reshape (a, six)\n c = Add (b, v)",
    "places": "a = NonZero (v)\n b = Cast <to = 1> (a)\n c = Reshape (b, six)",
    "quantised": "q = QuantizeLinear (v, n, z8)\n d = DequantizeLinear (q, n, z8)\n c = Add (d, v)",
    "cast like": "a = CastLike (i, v)\n c = Add (a, v)",
    "rounded": "a = Round (v)\n b = Sign (v)\n c = Add (a, b)",
    "normalised": "a = Reshape (v, s23)\n b = BatchNormalization (a, w3, w3, w3, u3)\n c = Reshape (b, six)",
}  # fmt: skip
KNOWN = {
    "v": ROW,
    "n": number(0.25),
    "i": "int64[6] {-7, -3, 5, 8, 9, 11}",
    "k": "int64 {3}",
    "s23": (2, 3),
    "zero": (0,),
    "one": "float[1] {1.0}",
    "three": (3,),
    "six": (6,),
    "axis": "int64 {0}",
    "i5": (5, 0, -1, 2, 2, 1),
    "i51": "int64[2, 1] {5, 1}",
    "i12": "int64[1, 2] {2, 0}",
    "p12": (1, 2),
    "length": "int64 {6}",
    "pair": "float[2] {0.5, 2.0}",
    "z8": "uint8 {100}",
    "five": (5,),
    "before": (-99,),
    "back": (-1,),
    "q6": "uint8[6] {100, 120, 90, 200, 80, 0}",
    "n2": "float[2] {0.25, 0.5}",
    "z2": "uint8[2] {100, 90}",
    "w3": "float[3] {0.5, -1.0, 2.0}",
    "u3": "float[3] {0.5, 1.0, 2.0}",
}
CASES = {
    **ELEMENTWISE,
    **WHOLE,
    **PRODUCTS,
    **MOVES,
    **ALONG,
    **{
        f"folded {name}": case(body + "\n t = Mul (x, c)", 21 if "block_size" in body else 17, **KNOWN)
        for name, body in FOLDED.items()
    },
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:.*does not say how photographs")
def test_numbers_are_those_of_onnxruntime(tmp_path, name):
    scores, expected = scores_of(CASES[name], tmp_path / "net.onnx")
    assert np.abs(expected).max() > 1e-3, "the case's own numbers are dead"
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max())


ALONE = {  # which onnxruntime computes across the images of a batch, and fvlrp of each alone
    "MeanVarianceNormalization of planes": case("t = MeanVarianceNormalization (x)"),
    "MeanVarianceNormalization of rows": case("t = MeanVarianceNormalization <axes = [0, 1, 3]> (x)"),
    "GatherND by batches": case("t = GatherND <batch_dims = 2> (x, i)", i="int64[1, 3, 2, 1] {0, 2, 1, 3, -1, 0}"),
    "Resize to one row": case(
        't = Resize <mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel"> (x, e, s, z)',
        e="float[0] {}", s="float[0] {}", z=(1, 3, 1, 6),
    ),
    "ReverseSequence": case("t = ReverseSequence <time_axis = 1, batch_axis = 0> (x, l)", l=(3,)),
    "ScatterND": case("t = ScatterND (x, i, u)", i="int64[1, 4] {0, 1, 2, 3}", u="float[1] {9.0}"),
    "ScatterElements": case(
        "t = ScatterElements <axis = 3> (x, i, u)", i="int64[1, 1, 1, 2] {4, 0}", u="float[1, 1, 1, 2] {7.0, -3.0}"
    ),
    "ScatterElements of the photograph": case(
        "u = Slice (x, o, e, a)\n t = ScatterElements <axis = 1> (k, i, u)", o=(1,), e=(2,), a=(1,),
        k=weights(1, 3, 4, 6), i="int64[1, 1, 4, 6] {" + ", ".join(str(i % 3) for i in range(24)) + "}",
    ),
    "LRN of two images that the file makes of one": case(
        "e = Expand (x, s)\n n = LRN <size = 3, alpha = 0.5> (e)\n t = Reshape (n, u)", s=(2, 1, 1, 1), u=(1, 144)
    ),
    "LRN of rows as images": case(
        "r = Transpose <perm = [2, 1, 0, 3]> (x)\n n = LRN <size = 3, alpha = 0.5> (r)\n t = Reshape (n, u)", u=(1, 72)
    ),
    "MatMul of numbers without a batch": case(
        "r = Reshape (x, s)\n m = MatMul (r, w)\n l = ReduceMax <axes = [0]> (m)\n d = Sub (m, l)\n t = Reshape (d, u)",
        s=(72,), w=weights(72, 3), u=(1, 3),
    ),
    "MatMul of numbers without a batch and several matrices": case(
        "r = Reshape (x, s)\n m = MatMul (r, w)\n l = ReduceMax <axes = [1]> (m)\n d = Sub (m, l)\n t = Reshape (d, u)",
        s=(72,), w=weights(2, 72, 3), u=(1, 6),
    ),
    "ConvTranspose of two images that the file makes of one": case(
        "e = Expand (x, s)\n c = ConvTranspose <strides = [2, 2], group = 3> (e, w, b)\n t = Reshape (c, u)",
        s=(2, 1, 1, 1), w=weights(3, 2, 3, 2), b=weights(6), u=(1, -1),
    ),
    "ConvTranspose of channels as images": case(
        "r = Reshape (x, s)\n c = ConvTranspose <strides = [2]> (r, w)\n t = Reshape (c, u)",
        s=(3, 4, 6), w=weights(4, 2, 3), u=(1, -1),
    ),
    "Pow by one number of more axes": case(
        "p = Pow (x, e)\n r = Transpose <perm = [0, 4, 3, 2, 1]> (p)\n m = ReduceMax <axes = [1]> (r)\n "
        "d = Sub (r, m)\n t = Reshape (d, u)", e="float[1, 1, 1, 1, 1] {1.5}", u=(1, 72),
    ),
    "Resize to a size that is whole in float32": case(
        "p = Pad (x, w)\n t = Resize (p, e, s)",
        w=(0, 0, 0, 2, 0, 0, 0, 2), e="float[0] {}", s="float[4] {1, 1, 1, 0.7}",
    ),
    "Size": case("n = Size (x)\n c = Cast <to = 1> (n)\n t = Div (x, c)"),
    "GatherND of one batch": case("t = GatherND <batch_dims = 1> (x, i)", i="int64[1, 2, 2] {0, 2, 1, -1}"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALONE)
def test_numbers_of_one_image_are_those_of_onnxruntime(tmp_path, name):
    scores, expected = scores_of(ALONE[name], tmp_path / "net.onnx", 1)
    np.testing.assert_allclose(scores, expected, atol=1e-5 * np.abs(expected).max())


BOUNDED = {
    "cut off above": case("u = Mul (x, k)\n m = Relu (u)\n t = Clip (m, , h)", k=number(50), h=number(20)),
    "cut off far above": case("u = Mul (x, k)\n m = Max (u, z)\n t = Min (m, h)", k=number(5e4), z=number(0),
                              h=number(2e4)),
    "square, cut off": case("u = Mul (x, k)\n m = Mul (u, u)\n t = Clip (m, , h)", k=number(50), h=number(900)),
    "above a small threshold": case(
        "u = Sub (x, p)\n g = Greater (u, c)\n t = Where (g, u, z)", p=number(0.5), c=number(0.02), z=number(0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.filterwarnings("ignore:.*does not say how photographs")
def test_formulas_are_not_taken_for_an_activation_that_they_equal_near_0(tmp_path, name):
    scores, expected = scores_of(BOUNDED[name], tmp_path / "net.onnx")
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operator", ["MaxPool", "Conv"])
@pytest.mark.parametrize("how", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("stride", "dilation"), [((1, 1), (2, 2)), ((2, 2), (2, 1)), ((3, 2), (1, 2))])
def test_padding_of_dilated_windows_is_that_of_the_specification(tmp_path, operator, how, stride, dilation):
    """auto_pad as the pads that the specification derives: onnxruntime reads those, but not auto_pad with dilations."""
    constants = {"w": weights(2, 3, 2, 2)} if operator == "Conv" else {}
    text = f"t = {operator} <kernel_shape = [2, 2], strides = {list(stride)}, dilations = {list(dilation)}, "
    inputs = "(x, w)" if constants else "(x)"
    total = [max(0, (-(-n // s) - 1) * s + d + 1 - n) for n, s, d in zip((4, 6), stride, dilation, strict=True)]
    begin = [n // 2 if how == "SAME_UPPER" else n - n // 2 for n in total]
    pads = [*begin, *(n - b for n, b in zip(total, begin, strict=True))]
    _, expected = scores_of(case(f"{text} pads = {pads}> {inputs}", **constants), tmp_path / "pads.onnx")
    onnx.save(
        onnx.parser.parse_model(case(f'{text} auto_pad = "{how}"> {inputs}', **constants)), tmp_path / "auto.onnx"
    )
    x = np.random.default_rng(7).uniform(0.2, 1, (2, 3, 4, 6)).astype(np.float32)
    found = Network.from_onnx(tmp_path / "auto.onnx").forward(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", WRITTEN_OUT)
@pytest.mark.filterwarnings("ignore:.*does not say how photographs")
def test_functions_in_steps_become_the_layer_of_that_name(tmp_path, name):
    kind, text = WRITTEN_OUT[name]
    scores, expected = scores_of(text, tmp_path / "net.onnx")
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=2e-5 * np.abs(expected).max())
    nodes = Network.from_onnx(tmp_path / "net.onnx").nodes
    kinds = [node.layer.name if node.kind == "activation" else node.kind for node in nodes]
    kinds = kinds[kinds[0] == "affine" :]  # the shift of the pixels in CENTRED
    assert kind in kinds and "affine" not in kinds and "quotient" not in kinds


REFUSED = {
    "not supported; nearest are Log, ReduceSum and Exp, and all .*'Bring your own network'.*feeds node 'y'": case(
        "t = ReduceProd <axes = [1], keepdims = 0> (x)"
    ),
    "nearest are .*SpaceToDepth.* feeds node 'y'": case("t = com.microsoft.SpaceToDepthTwice (x)"),
    "'linear' at positions 'tf_half_pixel_for_nn'": case(
        't = Resize <mode = "linear", coordinate_transformation_mode = "tf_half_pixel_for_nn"> (x, e, s)',
        e="float[0] {}",
        s="float[4] {1, 1, 2, 2}",
    ),
    "'nearest' at positions 'tf_crop_and_resize'": case(
        't = Resize <coordinate_transformation_mode = "tf_crop_and_resize"> (x, r, s)',
        r="float[8] {0, 0, 0, 0, 1, 1, 0.5, 0.5}",
        s="float[4] {1, 1, 2, 2}",
    ),
    "scale differs from pixel to pixel": case(
        "q = QuantizeLinear <axis = 3> (x, s, z)\n p = MaxPool <kernel_shape = [2, 2]> (q)\n t = Cast <to = 1> (p)",
        s="float[6] {0.01, 0.02, 0.01, 0.02, 0.01, 0.02}",
        z="uint8[6] {0, 0, 0, 0, 0, 0}",
    ),
    "differs from that of the DynamicQuantizeLinear before it.*; nearest is .*y_scale": case(
        "q, a, b = DynamicQuantizeLinear (x)\n t = DequantizeLinear (q, s, z)", **STEP
    ),
    "input 'r' is not quantised; expected integers from QuantizeLinear": case(
        QUANTISED + "d = DequantizeLinear (q, s, z)\n r = Mul (d, k)\n t = DequantizeLinear (r, s, z)",
        k=number(2),
        **STEP,
    ),
    "division of integers": case(
        QUANTISED + "i = Cast <to = 6> (q)\n j = Div (i, k)\n t = Cast <to = 1> (j)", k="int32 {2}", **STEP
    ),
    "the batch alone": case("t = MeanVarianceNormalization <axes = [0]> (x)"),
    "divides by 0": case("t = Div (x, z)", z=number(0)),
    "exponents of shape": case("t = Pow (x, p)", p=ROW),
    "selections that depend on the photograph": case("n = NonZero (x)\n t = Cast <to = 1> (n)"),
    "pools of three spatial axes are not supported": case(
        "v = Reshape (x, s)\n t = MaxPool <kernel_shape = [1, 2, 2]> (v)", s=(0, 1, 3, 4, 6)
    ),
    "a letter repeats": case('t = Einsum <equation = "bcww->bcw"> (x)'),
    "its weights depend": case("t = Conv (x, x)"),
    "a border around the batch": case("t = Pad (x, p)", p=(1, 0, 0, 0, 0, 0, 0, 0)),
    "only height and width": case("t = Resize (x, e, s)", e="float[0] {}", s="float[4] {1, 2, 1, 1}"),
    "antialias": case(
        't = Resize <mode = "linear", antialias = 1> (x, e, s)', 18, e="float[0] {}", s="float[4] {1, 1, 0.5, 0.5}"
    ),
    "in training mode": case("t = Dropout (x, r, m)", r=number(0.5), m="bool {1}"),
    "only be cast to floating": case("i = Cast <to = 7> (x)\n t = Cast <to = 1> (i)"),
    "shape .* has more than one free length": case("t = Reshape (x, s)", s=(0, -1, -1)),
    r"an array of \(1, 3, 4, 6\) does not fit shape": case("t = Reshape (x, s)", s=(0, 5, -1)),
    r"axes \[3\] of an array of \(1, 3, 4, 6\) cannot be dropped": case("t = Squeeze (x, a)", a=(3,)),
    r"slopes of \(1, 1, 1, 4, 1\) do not broadcast to \(1, 3, 4, 6\)": case(
        "t = PRelu (x, a)", a=weights(1, 1, 1, 4, 1)
    ),
    "repeat one another": case("t = Unsqueeze (x, a)", a=(1, 1)),
    r"6 values do not split into \[1, 2\]": case("a, b = Split <axis = 3> (x, s)\n t = Add (a, a)", s=(1, 2)),
    "nothing is left of axis 3": case("t = Slice (x, a, e, d)", a=(4,), e=(2,), d=(3,)),
    "its inputs have different numbers of axes": case(FLAT + "t = Concat <axis = 1> (x, f)"),
    "sequences of several lengths": case("t = ReverseSequence <time_axis = 3, batch_axis = 2> (x, l)", l=(6, 5, 6, 6)),
    "a list of slices is not supported; nearest is Split": case(
        "l = SplitToSequence <axis = 3, keepdims = 0> (x)\n t = SequenceAt (l, i)", i="int64 {0}"
    ),
    "a list of 2 tensors has no element 2": case(
        "l = SplitToSequence <axis = 3> (x, s)\n t = SequenceAt (l, i)", s="int64 {3}", i="int64 {2}"
    ),
    "is not resized; expected .batch, channels, height, width.": case(
        "r = Reshape (x, s)\n t = Resize (r, e, k)", s=(0, 12, 6), e="float[0] {}", k="float[3] {1, 1, 2}"
    ),
    "keep_aspect_ratio_policy 'stretch'": case(
        't = Resize <keep_aspect_ratio_policy = "not_larger"> (x, e, s, z)',
        18,
        e="float[0] {}",
        s="float[0] {}",
        z=(1, 3, 8, 8),
    ),
    "expected one or two arrays": case('t = Einsum <equation = "bchw,bchw,bchw->bchw"> (x, x, x)'),
    "do not fit arrays of": case('t = Einsum <equation = "bch->bhc"> (x)'),
    "past keys and values": case("t, p, v = Attention (x, x, x, , k, k)", 23, k=weights(1, 3, 2, 6)),
    "its output 'm' is used, only the first": case(
        "r, m = MaxPool <kernel_shape = [2, 2]> (x)\n c = Cast <to = 1> (m)\n t = Add (r, c)"
    ),
    "indices must be in -6..5": case("c = Gather (v, i)\n t = Mul (x, c)", v=ROW, i=(6,)),
    "do not fit 1 batch_dims": case(
        "c = GatherND <batch_dims = 1> (v, i)\n t = Mul (x, c)", v=weights(2, 6), i="int64[3, 1] {0, 1, 2}"
    ),
    "an ellipsis is not supported": case('c = Einsum <equation = "...i->...i"> (v)\n t = Mul (x, c)', v=ROW),
    "exclusive or reverse sums": case("c = CumSum <reverse = 1> (v, a)\n t = Mul (x, c)", v=ROW, a="int64 {0}"),
    "indices must be in": case("t = Gather <axis = 3> (x, i)", i=(6,)),
    "reduction 'add'": case(
        't = ScatterElements <axis = 0, reduction = "add"> (x, i, x)', 18, i="int64[1, 1, 1, 1] {0}"
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_errors_for_unsupported_nodes_name_the_node_and_the_reason(tmp_path, reason):
    onnx.save(onnx.parser.parse_model(REFUSED[reason]), tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=rf"net\.onnx: node '.*{reason}"):
        Network.from_onnx(tmp_path / "net.onnx")


def test_the_documentation_lists_the_operators():
    page = (Path(__file__).parent.parent / "docs" / "howto" / "networks.md").read_text()
    own, theirs = page.partition("## Operators")[2].split("From onnxruntime's domain")
    own, theirs = (re.findall(r"`([A-Z]\w+)`", part) for part in (own, theirs))
    refused = {"Loop", "Scan", "LSTM", "GRU", "RNN"}
    assert {*own} - refused == {name for name in OPERATORS if "." not in name}
    assert {*theirs} == {name.rpartition(".")[2] for name in OPERATORS if "." in name}
