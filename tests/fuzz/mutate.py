"""Model and image files from strangers: mutate them where it hurts, read them, and use what was read.

    python tests/fuzz/mutate.py [--count 10000] [--seed 0]

Of models, fields and arrays are changed and the checksums made anew, so that most mutants get past checksum and parser;
of images, chunks and segments with their checksums, and bytes. A mutant may load or be refused by an error that names
it; it may not crash, take longer than five seconds of processor time, warn of arithmetic, or give a map that is not
finite. The first that does is kept beside its seed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import copy
import io
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

import fvlrp
from fvlrp.data import files

SECONDS = 5.0
ODD = [
    None,
    True,
    0,
    -1,
    1,
    3,
    1 << 31,
    1 << 70,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "a",
    "\0",
    [],
    [1],
    {},
    [[1, 2]],
]


def small_model(rng: np.random.Generator) -> fvlrp.FisherVectorClassifier:
    images = [rng.random((40, 44)).astype(np.float32) for _ in range(6)]
    clf = fvlrp.FisherVectorClassifier(n_components=3, n_pca=5, random_state=0, pyramid=((2, 1), (1, 1)))
    return clf.fit(images, ["a", "b", "c"] * 2)


# ---- models ----------------------------------------------------------------------------------------------------------


def spots(value, path=()):
    """Every place in nested dicts and lists."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from spots(inner, (*path, key))


def changed(header: dict, rng: np.random.Generator) -> dict:
    """A field deleted, or with another value."""
    header = copy.deepcopy(header)
    places = [path for path in spots(header) if path[0] != "kind"]
    path = places[rng.integers(len(places))]
    holder = header
    for key in path[:-1]:
        holder = holder[key]
    if rng.random() < 0.2 and isinstance(holder, dict):
        del holder[path[-1]]
    else:
        holder[path[-1]] = ODD[rng.integers(len(ODD))]
    return header


def damaged(arrays: dict, rng: np.random.Generator) -> dict:
    """An array of another shape or type, left out, added, or with odd values."""
    arrays = {name: array.copy() for name, array in arrays.items()}
    name = list(arrays)[rng.integers(len(arrays))]
    array, how = arrays[name], rng.integers(8)
    if how == 0:
        del arrays[name]
    elif how == 1:
        arrays["extra"] = array
    elif how == 2:
        arrays[name] = array[..., :-1] if array.ndim else array
    elif how == 3:
        arrays[name] = array[None]
    elif how == 4:
        arrays[name] = np.zeros((0,) * array.ndim, array.dtype)
    elif how == 5 and array.dtype.kind in "if":
        arrays[name] = array.astype([np.int8, np.float16, np.float64, np.int64, np.bool_][rng.integers(5)])
    elif array.size and array.dtype.kind == "f":
        odd = [np.nan, np.inf, -np.inf, 0, -1, 1e-300, 3e38, -3e38, 1e-40]
        with np.errstate(all="ignore"):
            array.flat[rng.integers(array.size)] = odd[rng.integers(len(odd))]
    elif array.size:
        array.flat[rng.integers(array.size)] = array.flat[0]
    return arrays


def mutant_of_model(path: Path, header: dict, arrays: dict, rng: np.random.Generator) -> None:
    """Write a mutant of a .fvlrp file."""
    if rng.random() < 0.75:
        for _ in range(rng.integers(1, 3)):
            if rng.random() < 0.5:
                header = changed(header, rng)
            else:
                arrays = damaged(arrays, rng)
        try:
            files.save_arrays(path, header, arrays, compress=bool(rng.integers(2)))
            return
        except (ValueError, TypeError):  # what cannot be written at all
            pass
    files.save_arrays(path, {"kind": files.FISHER}, {"a": np.zeros(1)}) if not path.exists() else None
    path.write_bytes(scrambled(path.read_bytes(), rng))


def scrambled(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes flipped, left out, repeated, or the end cut off."""
    out = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if not out:
            break
        at, how = int(rng.integers(len(out))), rng.integers(4)
        if how == 0:
            out[at] = int(rng.integers(256))
        elif how == 1:
            del out[at : at + int(rng.integers(1, 40))]
        elif how == 2:
            out[at:at] = out[at : at + int(rng.integers(1, 40))]
        else:
            del out[at:]
    return bytes(out)


# ---- networks --------------------------------------------------------------------------------------------------------


def mutant_of_network(model, rng: np.random.Generator) -> bytes:
    """An ONNX file with other operators, attributes, edges, sizes or values."""
    from onnx import TensorProto

    model = copy.deepcopy(model)
    graph = model.graph
    for _ in range(rng.integers(1, 4)):
        node = graph.node[rng.integers(len(graph.node))]
        how = rng.integers(9)
        if how == 0:
            node.op_type = ["Relu", "Conv", "Gemm", "Add", "Reshape", "Softmax", "MaxPool", "Loop", "Nothing"][
                rng.integers(9)
            ]
        elif how == 1 and node.input:
            node.input[rng.integers(len(node.input))] = ["", "x", node.output[0] if node.output else "q", "none"][
                rng.integers(4)
            ]
        elif how == 2 and node.attribute:
            attribute = node.attribute[rng.integers(len(node.attribute))]
            number = [0, -1, 1, 7, 1 << 31, -(1 << 40), 1 << 62][rng.integers(7)]
            if attribute.ints:
                attribute.ints[rng.integers(len(attribute.ints))] = number
            else:
                attribute.i, attribute.f = number, [float("nan"), 0.0, -1.0, 1e38][rng.integers(4)]
        elif how == 3 and node.attribute:
            del node.attribute[rng.integers(len(node.attribute))]
        elif how == 4 and graph.initializer:
            tensor = graph.initializer[rng.integers(len(graph.initializer))]
            if tensor.dims:
                tensor.dims[rng.integers(len(tensor.dims))] = [0, -1, 1, 2, 1 << 20, 1 << 40][rng.integers(6)]
        elif how == 5 and graph.initializer:
            tensor = graph.initializer[rng.integers(len(graph.initializer))]
            tensor.raw_data = scrambled(tensor.raw_data, rng)
        elif how == 6 and graph.initializer:
            tensor = graph.initializer[rng.integers(len(graph.initializer))]
            tensor.data_type = [TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING, 99, 0][rng.integers(5)]
        elif how == 7 and len(graph.node) > 1:
            del graph.node[rng.integers(len(graph.node))]
        else:
            shape = (graph.input[0] if rng.random() < 0.7 else graph.output[0]).type.tensor_type.shape
            if shape.dim:
                shape.dim[rng.integers(len(shape.dim))].dim_value = [0, -1, 1, 5, 1 << 31, 1 << 50][rng.integers(6)]
    content = model.SerializeToString()
    return scrambled(content, rng) if rng.random() < 0.2 else content


def small_network():
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {"w": (4, 3, 3, 3), "b": (4,), "v": (5, 4 * 36), "c": (5,)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], strides=[1, 1]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("MaxPool", ["z"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], axis=1),
        helper.make_node("Gemm", ["f", "v", "c"], ["s"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 12, 12])],
        [helper.make_tensor_value_info("s", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name) for name, shape in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


# ---- images ----------------------------------------------------------------------------------------------------------


def pictures() -> dict[str, bytes]:
    """Small files of several formats."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    found = {}
    for suffix, picture, options in (
        ("png", colour, {}),
        ("png", colour.convert("P"), {}),
        ("png", Image.fromarray(rng.integers(0, 65536, (40, 50), dtype=np.uint16)), {}),
        ("jpg", colour, {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"}),
        ("jpg", colour.convert("CMYK"), {"progressive": True}),
        ("tif", colour, {}),
        ("tif", colour.convert("L"), {"compression": "tiff_lzw"}),
        ("gif", colour, {}),
        ("bmp", colour, {}),
        ("webp", colour, {}),
        ("ppm", colour, {}),
    ):
        buffer = io.BytesIO()
        picture.save(buffer, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix), **options)
        found[f"{len(found)}.{suffix}"] = buffer.getvalue()
    return found


def mutant_of_picture(content: bytes, rng: np.random.Generator) -> bytes:
    """A picture with damaged bytes; of a PNG file, with a damaged chunk whose checksum is right."""
    if content[:4] != b"\x89PNG" or rng.random() < 0.3:
        return scrambled(content, rng)
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    i = rng.integers(len(chunks))
    kind, body = chunks[i]
    how = rng.integers(4)
    if how == 0 and kind == b"IHDR":
        sizes = [0, 1, 39, 1 << 16, (1 << 31) - 1]
        body = struct.pack(">II", sizes[rng.integers(5)], sizes[rng.integers(5)]) + body[8:]
    elif how == 1 and len(chunks) > 1:
        chunks.insert(int(rng.integers(len(chunks))), (kind, body))
    else:
        body = scrambled(body, rng)
    chunks[i] = kind, body
    parts = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks]
    return content[:8] + b"".join(parts)


# ---- reading and using -----------------------------------------------------------------------------------------------


class Broken(Exception):
    """A promise that was not kept."""


def used(function, path: Path) -> str:
    """ "read" or "refused"; raises Broken for everything else."""
    begin = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            function(path)
        return "read"
    except (ValueError, OSError, MemoryError) as error:
        if path.name not in str(error) and "preprocess makes" not in str(error):  # names the argument
            raise Broken(f"the error does not name the file: {error!r}") from error
        return "refused"
    except Broken:
        raise
    except BaseException as error:
        raise Broken(f"{type(error).__name__}: {error}") from error
    finally:
        if (spent := time.process_time() - begin) > SECONDS:
            raise Broken(f"took {spent:.1f} s")


def explained(model, image) -> None:
    try:
        ex = model.explain(image)
    except Exception as error:
        raise Broken(f"loads, and cannot be used: {error!r}") from error
    if not (np.isfinite(ex.heatmap).all() and np.isfinite(ex.score)):
        raise Broken("loads, and gives a map that is not finite")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    image = np.random.default_rng(1).random((48, 52)).astype(np.float32)
    clf = small_model(np.random.default_rng(args.seed))
    header, arrays = clf.to_parts()
    header = {"kind": files.FISHER, **header}
    network, shown = small_network(), pictures()
    preprocess = fvlrp.Preprocess(size=(12, 12))
    counted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="fvlrp-mutants-") as folder:
        for i in range(args.count):
            rng = np.random.default_rng([args.seed, i])
            kind = ("model", "network", "picture")[i % 3]
            if kind == "model":
                path = Path(folder, f"{i}.fvlrp")
                clf.save(path)
                mutant_of_model(path, header, arrays, rng)
                check = lambda path: explained(fvlrp.load(path), image)  # noqa: E731
            elif kind == "network":
                path = Path(folder, f"{i}.onnx")
                path.write_bytes(mutant_of_network(network, rng))
                check = lambda path: explained(fvlrp.Network.from_onnx(path, preprocess=preprocess), image)  # noqa: E731
            else:
                name = list(shown)[rng.integers(len(shown))]
                path = Path(folder, f"{i}-{name}")
                path.write_bytes(mutant_of_picture(shown[name], rng))
                check = fvlrp.images.load
            try:
                counted[f"{kind} {used(check, path)}"] += 1
            except Broken as error:
                kept = Path(tempfile.gettempdir(), f"fvlrp-mutant-{args.seed}-{path.name}")
                kept.write_bytes(path.read_bytes())
                print(f"{kept}: {error}", file=sys.stderr)
                traceback.print_exception(error.__cause__ or error, limit=-4)
                counted["broken"] += 1
            path.unlink()
    print(", ".join(f"{count} x {what}" for what, count in sorted(counted.items())))
    return 1 if counted["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
