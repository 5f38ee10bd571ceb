"""ONNX files as plain values: nodes in topological order, weights on demand, model-local functions expanded.

Hides the package onnx and its protocol buffers from the other modules of `network.onnx`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ...runtime.types import Values

Value: TypeAlias = Values
Element: TypeAlias = "np.dtype[np.floating | np.integer | np.bool]"  # type: ignore[explicit-any]  # of any width
Proto: TypeAlias = Any  # type: ignore[explicit-any]  # a protocol buffer of onnx: these have no types
Attribute: TypeAlias = Any  # type: ignore[explicit-any]  # a number, text, list, tensor or Body: the operator knows

OLDEST_OPSET = 7
MOST_CALLS = 50_000  # most nodes of a file after expanding functions; large networks have a few thousand
DEEPEST = 32  # deepest nesting of functions and branches

STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, eq=False)
class Body:
    """A graph inside a node: a branch of an If."""

    calls: list[Call]
    initialisers: dict[str, Proto]
    outputs: list[str]


@dataclass(frozen=True, eq=False)
class Call:
    """One node: an operator applied to tensors that have names.

    Attributes
    ----------
    op, domain : str
        The operator; `domain` is "" for those of ONNX itself.
    name : str
        The node's own name, or that of its output.
    inputs, outputs : tuple of str
        "" for an optional one that is left out.
    attributes : mapping
        Numbers, strings, lists of them, tensors (protocol buffers) and `Body` values.
    opset : int
        Version of the domain that the node was written for.
    scope : str
        Path of the module that the node was exported from, such as "blocks.0.attn"; "" if the file does not say.
    """

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    opset: int
    scope: str = ""

    def get(self, name: str, default: Attribute = None) -> Attribute:
        """An attribute, or `default`."""
        return self.attributes.get(name, default)

    @property
    def title(self) -> str:
        """The node as messages name it."""
        kind = self.op if self.domain in STANDARD else f"{self.domain}.{self.op}"
        return f"node {self.name!r} ({kind})"


@dataclass(frozen=True, eq=False)
class Model:
    """A file.

    Attributes
    ----------
    calls : list of Call
        In topological order: each after those it reads.
    initialisers : dict of str to protocol buffers
        Weights by name; `tensor` makes arrays of them.
    inputs, outputs : dict of str to tuple
        Shapes by name; None for a free length, or for a shape that is free as a whole.
        Outputs of integers or text, such as predicted labels, are left out if there are others.
    black : int or None
        The value of black if the input is of an integer type: 0, or -128 for int8, which cannot hold 0..255.
    metadata : dict of str to str
    size : int
        Bytes of all weights.
    """

    calls: list[Call]
    initialisers: dict[str, Proto]
    inputs: dict[str, tuple[int | None, ...] | None]
    outputs: dict[str, tuple[int | None, ...] | None]
    black: int | None
    metadata: dict[str, str]
    size: int


def load(name: str) -> Model:
    """The file of that name.

    Raises
    ------
    ImportError
        The package onnx is not installed.
    OSError
        There is no such file, or data that it refers to is missing.
    ValueError
        It is not an ONNX file, is damaged, or uses an opset before OLDEST_OPSET.
    """
    proto = _parsed(name)
    if not proto.HasField("graph"):  # such as an empty file, which is a message without fields
        raise ValueError(f"{name} is not an ONNX file, or it is damaged: it has no graph")
    opsets = {_domain(entry.domain): int(entry.version) for entry in proto.opset_import}
    if opsets.get("", 0) < OLDEST_OPSET:
        found = opsets.get("", 0)
        raise ValueError(f"{name} uses ONNX opset {found}; expected {OLDEST_OPSET} or later: convert it with onnx")
    graph = proto.graph
    if graph.sparse_initializer:
        raise ValueError(f"{name}: sparse initialisers are not supported; expected dense weights")
    try:
        writer = _Writer({(_domain(f.domain), f.name, getattr(f, "overload", "")): f for f in proto.functions})
        initialisers = {each.name: each for each in graph.initializer}
        calls = _sorted(list(writer.calls(graph.node, opsets, {}, {}, "", 0)), {*initialisers, ""})
        used = {source for call in calls for source in _reads(call)}
        inputs = [v for v in graph.input if v.name not in initialisers and v.name in used]
        return Model(
            calls,
            initialisers,
            {value.name: _shape(value) for value in inputs},
            {value.name: _shape(value) for value in _scores(graph.output)},
            _black(inputs[0]) if inputs else None,
            {entry.key: entry.value for entry in proto.metadata_props},
            sum(map(_bytes, graph.initializer)),
        )
    except (AttributeError, LookupError, TypeError, UnicodeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{name} is not an ONNX file, or it is damaged: {error}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def tensor(proto: Proto) -> Value:
    """The array of a tensor's protocol buffer; types that NumPy lacks become float32."""
    from onnx import numpy_helper

    if any(length < 0 for length in proto.dims):
        raise ValueError(f"tensor {proto.name!r} is damaged: it has the shape {tuple(proto.dims)}")
    try:
        value = np.asarray(numpy_helper.to_array(proto))
    except Exception as error:  # damaged data can raise anything
        raise ValueError(f"tensor {proto.name!r} is damaged: {error}") from error
    if value.dtype.kind in "OSUT":
        raise ValueError(f"tensor {proto.name!r} holds {value.dtype}, expected numbers")
    return value if value.dtype.kind in "biuf" else value.astype(np.float32)


def numpy_type(code: int) -> Element:
    """The NumPy type for ONNX's number of an element type; bfloat16 and smaller types become float32."""
    from onnx import helper

    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(code))
    except Exception as error:
        raise ValueError(f"element type {code} is unknown") from error
    return dtype if dtype.kind in "biuf" else np.dtype(np.float32)


def _parsed(name: str) -> Proto:
    try:
        import onnx
    except ImportError:
        raise ImportError("reading ONNX files needs the package onnx: pip install 'fvlrp[onnx]'") from None
    if not os.path.isfile(name):
        raise FileNotFoundError(f"no ONNX file {name}")
    try:
        return onnx.load(name, format="protobuf")  # whatever the file's extension
    except OSError:
        raise
    except onnx.checker.ValidationError as error:  # how onnx reports weights missing from beside the file
        raise OSError(
            f"cannot read the weights of {name}, which are in a file of their own beside it, such as {name}.data, as "
            f"torch exports them: keep both files together under their names ({error})"
        ) from error
    except Exception as error:  # protobuf's error has no public name that all versions share
        raise ValueError(f"{name} is not an ONNX file, or it is damaged: {error}") from error


def _bytes(tensor: Proto) -> int:
    """Bytes of a tensor in the file. ByteSize() writes the whole tensor to count them."""
    return len(tensor.raw_data) or int(tensor.ByteSize())


def _domain(domain: str) -> str:
    return "" if domain in STANDARD else domain


def _shape(value: Proto) -> tuple[int | None, ...] | None:
    if not value.type.tensor_type.HasField("shape"):
        return None
    dims = value.type.tensor_type.shape.dim
    return tuple(int(dim.dim_value) if dim.dim_value > 0 else None for dim in dims)


def _scores(outputs: Sequence[Proto]) -> Sequence[Proto]:
    """The outputs that may hold scores: floating-point numbers, lists of them, or whatever there is."""
    from onnx import TensorProto as T

    real = (T.UNDEFINED, T.FLOAT, T.FLOAT16, T.DOUBLE, T.BFLOAT16)
    return [v for v in outputs if v.type.tensor_type.elem_type in real] or outputs


def _black(value: Proto) -> int | None:
    from onnx import TensorProto as T

    element = value.type.tensor_type.elem_type
    if element == T.INT8:
        return -128
    return 0 if element in (T.UINT8, T.UINT16, T.INT16, T.INT32, T.UINT32, T.INT64) else None


def _reads(call: Call) -> Iterator[str]:
    """Names that a node reads, including those that its branches read from the enclosing graph."""
    yield from call.inputs
    for value in call.attributes.values():
        if isinstance(value, Body):
            own = {*value.initialisers, *(name for inner in value.calls for name in inner.outputs)}
            yield from (name for inner in value.calls for name in _reads(inner) if name not in own)
            yield from (name for name in value.outputs if name not in own)


def reads(call: Call) -> set[str]:
    """Names of the tensors that a node needs."""
    return set(_reads(call)) - {""}


def _sorted(calls: list[Call], known: set[str]) -> list[Call]:
    """The nodes in topological order, which most files have already.

    Nodes that read a tensor which no node computes stay where they are; the reader reports them.
    """
    maker = {name: i for i, call in enumerate(calls) for name in call.outputs if name and name not in known}
    before = [{maker[name] for name in reads(call) if name in maker} for call in calls]
    if all(k < i for i, sources in enumerate(before) for k in sources):
        return calls
    after: dict[int, list[int]] = {}
    for i, sources in enumerate(before):
        for k in sources:
            after.setdefault(k, []).append(i)
    left = [len(sources) for sources in before]
    ready, out = [i for i, count in enumerate(left) if count == 0], []
    for i in ready:
        out.append(calls[i])
        for k in after.get(i, []):
            left[k] -= 1
            if left[k] == 0:
                ready.append(k)
    if len(out) < len(calls):
        stuck = next(i for i, count in enumerate(left) if count)
        raise ValueError(f"{calls[stuck].title} reads what is computed from its own output")
    return out


class _Writer:
    """Writes the nodes of graphs as calls and replaces functions by their bodies."""

    def __init__(self, functions: dict[tuple[str, str, str], Proto]) -> None:
        self.functions = functions
        self.count = 0
        self.prefixes: set[str] = set()

    def calls(
        self,
        nodes: Sequence[Proto],
        opsets: Mapping[str, int],
        names: Mapping[str, str],
        given: Mapping[str, Attribute],
        prefix: str,
        depth: int,
    ) -> Iterator[Call]:
        """Nodes as calls.

        Parameters
        ----------
        opsets : mapping of domain to version
        names : mapping of str to str
            Names in the calling graph of a function's inputs and outputs.
        given : mapping of str to protocol buffer
            Attributes of the function that the nodes are in.
        prefix : str
            Prefix of the names of all other tensors.
        depth : int
            Number of functions and branches around the nodes.
        """
        if depth > DEEPEST:
            raise ValueError(f"functions or branches are nested more than {DEEPEST} deep")

        def renamed(name: str) -> str:
            return names.get(name, prefix + name) if name else ""

        for node in nodes:
            self.count += 1
            if self.count > MOST_CALLS:
                raise ValueError(f"the file has more than {MOST_CALLS} nodes when its functions are written out")
            domain = _domain(node.domain)
            inputs, outputs = tuple(map(renamed, node.input)), tuple(map(renamed, node.output))
            attributes = {a.name: given.get(a.ref_attr_name) if a.ref_attr_name else a for a in node.attribute}
            function = self.functions.get((domain, node.op_type, getattr(node, "overload", "")))
            label = prefix + node.name if node.name else next(filter(None, outputs), node.op_type)
            if function is not None:
                yield from self._function(function, label, inputs, outputs, attributes, depth)
                continue
            values = {
                name: self._value(a, opsets, names, given, prefix, depth)
                for name, a in attributes.items()
                if a is not None
            }
            version = opsets.get(domain, 0)
            yield Call(node.op_type, domain, label, inputs, outputs, values, version, _scope(node))

    def _function(
        self,
        function: Proto,
        label: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        given: dict[str, Attribute],
        depth: int,
    ) -> Iterator[Call]:
        names = dict(zip(function.input, inputs, strict=False))
        names |= dict.fromkeys(list(function.input)[len(inputs) :], "")  # optional ones that are left out
        names |= dict(zip(function.output, outputs, strict=False))
        defaults = {a.name: a for a in getattr(function, "attribute_proto", ())}
        opsets = {_domain(entry.domain): int(entry.version) for entry in function.opset_import}
        prefix, copies = f"{label}/", 1
        while prefix in self.prefixes:
            copies += 1
            prefix = f"{label}_{copies}/"
        self.prefixes.add(prefix)
        taken = {name: outer for name, outer in names.items() if outer or name in function.input}
        yield from self.calls(function.node, opsets, taken, {**defaults, **given}, prefix, depth + 1)

    def _value(
        self,
        attribute: Proto,
        opsets: Mapping[str, int],
        names: Mapping[str, str],
        given: Mapping[str, Attribute],
        prefix: str,
        depth: int,
    ) -> Attribute:
        from onnx import AttributeProto
        from onnx.helper import get_attribute_value

        value = get_attribute_value(attribute)
        if attribute.type == AttributeProto.GRAPH:
            calls = list(self.calls(value.node, opsets, names, given, prefix, depth + 1))
            initialisers = {prefix + each.name: each for each in value.initializer}
            outputs = [names.get(v.name, prefix + v.name) for v in value.output]
            return Body(_sorted(calls, {*initialisers, ""}), initialisers, outputs)
        if attribute.type == AttributeProto.STRING:
            return bytes(value).decode(errors="replace")
        if attribute.type == AttributeProto.STRINGS:
            return [bytes(each).decode(errors="replace") for each in value]
        return value


def _scope(node: Proto) -> str:
    """The module that a node was exported from, as torch's newer exporter records it."""
    for entry in getattr(node, "metadata_props", ()):
        if entry.key == "pkg.torch.onnx.name_scopes":
            names = [name.strip(" '\"") for name in entry.value.strip("[]").split(",")]
            return names[-2] if len(names) > 1 else ""
    return ""
