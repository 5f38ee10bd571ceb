"""Elementwise operators, unary and binary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..layers import (
    Activation,
    Add,
    Clip,
    Constant,
    Expand,
    LeakyReLU,
    Maximum,
    NetworkLayer,
    PReLU,
    Product,
    Quotient,
    ReLU,
    Scale,
    Select,
)
from .model import Call, Value
from .read import Operator, Reader
from .shapes import triangle
from .steps import View


def _float(value: float) -> float:
    """A float32 number of a file in its shortest decimal form, which is the intended number."""
    return float(str(np.float32(value)))


def function(name: str, a: tuple[str, float] | None = None, b: tuple[str, float] | None = None) -> Operator:
    """An operator that is an `Activation`; a and b are attributes and their defaults."""

    def read(reader: Reader, call: Call) -> None:
        values = [0.0 if given is None else _float(call.get(*given)) for given in (a, b)]
        reader.emit(call, Activation(name, *values))

    return read


def layer(make: Callable[[Call], NetworkLayer]) -> Operator:
    """An operator that is one layer of its first input."""
    return lambda reader, call: void(reader.emit(call, make(call)))


def void(result: object) -> None:
    """Nothing: what operators return."""


def dropped(why: str) -> Operator:
    """An operator that leaves its first input as it is."""
    return lambda reader, call: reader.same(call, why)


def _gelu(reader: Reader, call: Call) -> None:
    reader.emit(call, Activation("gelu_tanh" if call.get("approximate", "none") == "tanh" else "gelu"))


def _selu(reader: Reader, call: Call) -> None:
    alpha, gamma = call.get("alpha", 1.6732632423543772), call.get("gamma", 1.0507009873554805)
    reader.emit(call, Activation("selu", float(alpha), float(gamma)))


def _swish(reader: Reader, call: Call) -> None:
    alpha = _float(call.get("alpha", 1.0))
    reader.emit(call, Activation("silu") if alpha == 1 else Activation("swish", alpha))


def _clip(reader: Reader, call: Call) -> None:
    low, high = reader.number(call, "min", 1, -np.inf), reader.number(call, "max", 2, np.inf)
    limited(reader, call, low, high)


def limited(reader: Reader, call: Call, low: float, high: float) -> None:
    """The first input, clipped to a range."""
    reader.emit(call, ReLU() if (low, high) == (0, np.inf) else Clip(low, high))


def _prelu(reader: Reader, call: Call) -> None:
    slope, shape = reader.needed(call, 1), reader.view(call).shape
    if np.broadcast_shapes(shape, slope.shape) != shape:
        raise ValueError(f"slopes of {slope.shape} do not broadcast to {shape}")
    if slope.size == 1:
        reader.emit(call, LeakyReLU(float(slope.reshape(-1)[0])))
        return
    view, slope = reader.meeting(reader.view(call), slope)
    reader.emit(call, PReLU(np.asarray(slope, np.float32)), view)


def _cast_like(reader: Reader, call: Call) -> None:
    """The first input: a constant in the type of what is computed, which is real."""
    if reader.is_constant(call, 0):
        reader.put(call, reader.needed(call, 0).astype(np.float32))
    else:
        reader.same(call, "values stay in the type of the computation")


def _never(reader: Reader, call: Call) -> None:
    """IsNaN or IsInf, by which exporters guard the softmax of attention against rows without any token."""
    reader.put(call, np.broadcast_to(np.False_, reader.view(call).shape))
    reader.passed.append((call.name, call.op, "values are taken to be finite"))


def _dropout(reader: Reader, call: Call) -> None:
    training = reader.constant(call, 2)
    if training is not None and training.any():
        raise ValueError("it is in training mode; export the network for inference")
    reader.same(call, "nothing is dropped in inference")


# ---- with a constant -------------------------------------------------------------------------------------------------


def scaled(reader: Reader, view: View, factor: Value) -> View:
    """A tensor times a constant."""
    if (factor == 1).all() and np.broadcast_shapes(view.shape, factor.shape) == view.shape:
        return view
    view, factor = reader.meeting(view, factor)
    return View(reader.step(Scale(np.asarray(factor, np.float32)), view.step), view.batch)


def shifted(reader: Reader, view: View, value: Value) -> View:
    """A tensor plus a constant."""
    if not value.any() and np.broadcast_shapes(view.shape, value.shape) == view.shape:
        return view
    view, value = reader.meeting(view, value)
    return View(reader.step(Constant(np.asarray(value, np.float32)), view.step), view.batch)


def _which(reader: Reader, call: Call) -> int | None:
    """Which of two inputs is a constant."""
    constant = [reader.is_constant(call, i) for i in (0, 1)]
    return constant.index(True) if any(constant) else None


def _as_float(value: Value) -> Value:
    return value.astype(np.float64)


def _add(reader: Reader, call: Call) -> None:
    if len(call.inputs) == 1:
        reader.same(call, "a sum of one term")
        return
    computed = [reader.view(call, i) for i in range(len(call.inputs)) if not reader.is_constant(call, i)]
    constants = [reader.needed(call, i) for i in range(len(call.inputs)) if reader.is_constant(call, i)]
    view = computed[0] if len(computed) == 1 else added(reader, computed)
    for value in constants:
        view = shifted(reader, view, value)
    reader.set(call, view)


def added(reader: Reader, views: list[View]) -> View:
    """The sum of tensors, broadcast to a common shape."""
    steps, batch = reader.aligned(*views)
    shape = tuple(np.broadcast_shapes(*(step.shape for step in steps)))
    steps = [step if step.shape == shape else reader.step(Expand(shape), step) for step in steps]
    return View(reader.step(Add(), *steps), batch)


def _sub(reader: Reader, call: Call) -> None:
    i = _which(reader, call)
    if i == 1:
        reader.set(call, shifted(reader, reader.view(call, 0), -_as_float(reader.needed(call, 1))))
        return
    second = scaled(reader, reader.view(call, 1), np.array(-1.0))
    if i == 0:
        reader.set(call, shifted(reader, second, reader.needed(call, 0)))
    else:
        reader.set(call, added(reader, [reader.view(call, 0), second]))


def _mul(reader: Reader, call: Call) -> None:
    i = _which(reader, call)
    if i is not None:
        reader.set(call, scaled(reader, reader.view(call, 1 - i), reader.needed(call, i)))
        return
    a, b = reader.view(call, 0), reader.view(call, 1)
    if a == b:
        reader.emit(call, Activation("pow", 2.0), a)
        return
    steps, batch = reader.aligned(a, b)
    reader.set(call, View(reader.step(Product(), *steps), batch))


def _div(reader: Reader, call: Call) -> None:
    i = _which(reader, call)
    if i == 1:
        with np.errstate(all="ignore"):
            factor = 1 / _as_float(reader.needed(call, 1))
        if not np.isfinite(factor).all():
            raise ValueError("it divides by 0")
        reader.set(call, scaled(reader, reader.view(call, 0), factor))
    elif i == 0:
        view = reader.view(call, 1)
        inverse = View(reader.step(Activation("reciprocal"), view.step), view.batch)
        reader.set(call, scaled(reader, inverse, reader.needed(call, 0)))
    else:
        steps, batch = reader.aligned(reader.view(call, 0), reader.view(call, 1))
        reader.set(call, View(reader.step(Quotient(), *steps), batch))


def _pow(reader: Reader, call: Call) -> None:
    exponent = reader.needed(call, 1)
    if exponent.size != 1:
        raise ValueError(f"exponents of shape {exponent.shape} are not supported; expected one number")
    power = float(exponent.reshape(-1)[0])
    view = reader.view(call)
    view = reader.expanded(view, tuple(np.broadcast_shapes(view.shape, exponent.shape)))
    if power == 1 and view == reader.view(call):
        reader.same(call, "the first power")
    elif power == 1:
        reader.set(call, view)
    elif power in (0.5, -1):
        reader.emit(call, Activation("sqrt" if power == 0.5 else "reciprocal"), view)
    else:
        reader.emit(call, Activation("pow", power), view)


def _extreme(sign: int) -> Operator:
    def read(reader: Reader, call: Call) -> None:
        constants = [reader.needed(call, i) for i in range(len(call.inputs)) if reader.is_constant(call, i)]
        views = [reader.view(call, i) for i in range(len(call.inputs)) if not reader.is_constant(call, i)]
        view = views[0]
        for other in views[1:]:
            steps, batch = reader.aligned(view, other)
            view = View(reader.step(Maximum(sign), *steps), batch)
        for value in constants:
            view = _bounded(reader, view, value, sign)
        reader.set(call, view)

    return read


def _bounded(reader: Reader, view: View, value: Value, sign: int) -> View:
    """The larger (sign 1) or smaller (sign -1) of a tensor and a constant."""
    view = reader.expanded(view, tuple(np.broadcast_shapes(view.shape, value.shape)))
    bound = float(value.flat[0])
    if (value != bound).any():  # max(x, c) = relu(x - c) + c
        over = scaled(reader, shifted(reader, view, -_as_float(value)), np.array(float(sign)))
        over = View(reader.step(ReLU(), over.step), over.batch)
        return shifted(reader, scaled(reader, over, np.array(float(sign))), value)
    low, high = (bound, np.inf) if sign > 0 else (-np.inf, bound)
    return View(reader.step(ReLU() if (low, high) == (0, np.inf) else Clip(low, high), view.step), view.batch)


def _mean(reader: Reader, call: Call) -> None:
    _add(reader, call)
    reader.set(call, scaled(reader, reader.views[call.outputs[0]], np.array(1 / len(call.inputs))))


# ---- conditions ------------------------------------------------------------------------------------------------------


def _compared(sign: int, equal: bool) -> Operator:
    """Greater than (sign 1) or less than (sign -1), as an array of 0 and 1."""

    def read(reader: Reader, call: Call) -> None:
        computed = [i for i in (0, 1) if not reader.is_constant(call, i)]
        if len(computed) == 2:
            difference = added(reader, [reader.view(call, 0), scaled(reader, reader.view(call, 1), np.array(-1.0))])
            reader.set(call, _step(reader, difference, sign, 0.0, equal))
            return
        value, view = _as_float(reader.needed(call, 1 - computed[0])), reader.view(call, computed[0])
        view = reader.expanded(view, tuple(np.broadcast_shapes(view.shape, value.shape)))
        bound = float(value.flat[0])
        if (value != bound).any():
            view, bound = shifted(reader, view, -value), 0.0
        reader.set(call, _step(reader, view, sign if computed == [0] else -sign, bound, equal))

    return read


def _step(reader: Reader, view: View, sign: int, bound: float, equal: bool) -> View:
    if sign < 0:
        view, bound = scaled(reader, view, np.array(-1.0)), -bound
    return View(reader.step(Activation("step", bound, float(equal)), view.step), view.batch)


def _not(reader: Reader, view: View) -> View:
    return shifted(reader, scaled(reader, view, np.array(-1.0)), np.array(1.0))


def _where(reader: Reader, call: Call) -> None:
    if not reader.is_constant(call, 0):
        _where_computed(reader, call)
        return
    mask = reader.needed(call, 0).astype(bool)
    parts = []
    for i, kept in ((1, mask), (2, ~mask)):
        if not reader.is_constant(call, i):
            other = reader.needed(call, 3 - i) if reader.is_constant(call, 3 - i) else np.zeros((), np.float32)
            parts.append(_selected(reader, reader.view(call, i), kept, other))
    reader.set(call, parts[0] if len(parts) == 1 else added(reader, parts))


def _where_computed(reader: Reader, call: Call) -> None:
    """Either side times 0 or 1. Most are activations, which are recognised as such later."""
    mask = reader.view(call, 0)
    parts = []
    for i, own in ((1, mask), (2, _not(reader, mask))):
        if not reader.is_constant(call, i):
            parts.append(reader.applied(call, "Mul", own, reader.view(call, i)))
            continue
        value = reader.needed(call, i)
        if not np.isfinite(value).all():
            raise ValueError("a mask that depends on the photograph is not supported; expected a constant one")
        if value.any():
            parts.append(scaled(reader, own, value))
    reader.set(call, parts[0] if len(parts) == 1 else added(reader, parts))


def _selected(reader: Reader, view: View, mask: Value, other: Value) -> View:
    """A tensor where the mask is true, the constant `other` elsewhere."""
    if mask.all() and np.broadcast_shapes(view.shape, mask.shape, other.shape) == view.shape:
        return view
    mask, value = np.broadcast_arrays(mask, other)
    view, mask = reader.meeting(view, mask)
    _, value = reader.meeting(view, value)
    return View(reader.step(Select(mask.copy(), np.asarray(value, np.float32)), view.step), view.batch)


def _trilu(reader: Reader, call: Call) -> None:
    view = reader.view(call)
    mask = triangle(call, view.shape, reader.constant(call, 1))
    reader.set(call, _selected(reader, view, mask, np.zeros((), np.float32)))


OPERATORS: dict[str, Operator] = {
    "Abs": function("abs"),
    "Add": _add,
    "And": _mul,
    "CastLike": _cast_like,
    "Ceil": function("ceil"),
    "Celu": function("celu", ("alpha", 1.0)),
    "Clip": _clip,
    "Cos": function("cos"),
    "Div": _div,
    "Dropout": _dropout,
    "Elu": function("elu", ("alpha", 1.0)),
    "Erf": function("erf"),
    "Exp": function("exp"),
    "Floor": function("floor"),
    "Gelu": _gelu,
    "Greater": _compared(1, False),
    "GreaterOrEqual": _compared(1, True),
    "HardSigmoid": function("hardsigmoid", ("alpha", 0.2), ("beta", 0.5)),
    "HardSwish": function("hardswish"),
    "IsInf": _never,
    "IsNaN": _never,
    "Identity": dropped("it changes nothing"),
    "LeakyRelu": layer(lambda call: LeakyReLU(_float(call.get("alpha", 0.01)))),
    "Less": _compared(-1, False),
    "LessOrEqual": _compared(-1, True),
    "Log": function("log"),
    "Max": _extreme(1),
    "Mean": _mean,
    "Min": _extreme(-1),
    "Mish": function("mish"),
    "Mul": _mul,
    "Neg": lambda reader, call: reader.set(call, scaled(reader, reader.view(call), np.array(-1.0))),
    "Not": lambda reader, call: reader.set(call, _not(reader, reader.view(call))),
    "Or": _extreme(1),
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": function("reciprocal"),
    "Relu": layer(lambda call: ReLU()),
    "Round": function("round"),
    "Selu": _selu,
    "Shrink": function("shrink", ("lambd", 0.5), ("bias", 0.0)),
    "Sigmoid": function("sigmoid"),
    "Sign": function("sign"),
    "Sin": function("sin"),
    "Softplus": function("softplus"),
    "Softsign": function("softsign"),
    "Sqrt": function("sqrt"),
    "Sub": _sub,
    "Sum": _add,
    "Swish": _swish,
    "Tanh": function("tanh"),
    "ThresholdedRelu": function("threshold", ("alpha", 1.0)),
    "Trilu": _trilu,
    "Where": _where,
}
