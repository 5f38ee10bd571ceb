"""Files from strangers: mutate them where it hurts, read them, and use what was read.

    python tests/fuzz/mutate.py [--count 10000] [--seed 0] [--first 0]

Models, explanations, ONNX networks, pictures (Pillow's formats, TIFF, DICOM, .npy), descriptions and class lists. Seven
of ten mutants are changed in their structure: fields and arrays with checksums made anew, the messages of ONNX files,
pictures of odd modes, sizes, depths and tags, values of JSON. The others have damaged bytes. "Past the parser" counts
those that the format's own reader takes: `load_arrays`, onnx, Pillow, tifffile, pydicom, NumPy, json.

A mutant may be used or refused by an error that names it; it may not crash, take longer than five seconds of processor
time, warn of arithmetic, or give a map that is not finite. What does is kept beside its seed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import hashlib
import io
import json
import re
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

import fvlrp
from fvlrp.data import files

SECONDS = 5.0
NAMED_ARGUMENT = re.compile(
    r"preprocess makes|bin_sizes=|max_height|^image |classes must |that preprocess scales"
)  # of a message that is about no file
RAW = 0.3  # of mutants have damaged bytes
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
    path = path if path != ("",) else places[-1]
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
        with np.errstate(all="ignore"):
            arrays[name] = array.astype([np.int8, np.float16, np.float64, np.int64, np.bool_][rng.integers(5)])
    elif array.size and array.dtype.kind == "f":
        odd = [np.nan, np.inf, -np.inf, 0, -1, 1e-300, 3e38, -3e38, 1e-40]
        with np.errstate(all="ignore"):
            array.flat[rng.integers(array.size)] = odd[rng.integers(len(odd))]
    elif array.size:
        array.flat[rng.integers(array.size)] = array.flat[0]
    return arrays


def packed(header: dict, arrays: dict) -> bytes:
    """A file as `files.save_arrays` writes it, with right checksums, that may hold what the latter refuses."""
    index, members = {}, {}
    for name, array in arrays.items():
        stream = io.BytesIO()
        np.lib.format.write_array(stream, array, allow_pickle=False)
        members[name] = stream.getvalue()
        digest = hashlib.sha256(members[name]).hexdigest()
        index[name] = {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": digest}
    document = {"format": files.FORMAT, "version": files.VERSION, "header": header, "arrays": index}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(document))
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def mutant_of_archive(header: dict, arrays: dict, rng: np.random.Generator) -> bytes:
    """A mutant of a .fvlrp or .npz file."""
    if rng.random() < RAW:
        return scrambled(packed(header, arrays), rng)
    for _ in range(rng.integers(1, 3)):
        if rng.random() < 0.5 and len(header) > 1:
            header = changed(header, rng)
        elif arrays:
            arrays = damaged(arrays, rng)
    return packed(header, arrays)


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


OPERATORS = (
    "Relu", "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Div", "Sub", "Pow", "Reshape", "Transpose",
    "Softmax", "LogSoftmax", "MaxPool", "AveragePool", "GlobalAveragePool", "LRN", "BatchNormalization",
    "LayerNormalization", "ReduceMean", "ReduceLogSumExp", "ReduceMax", "Exp", "Log", "Sqrt", "Reciprocal",
    "Concat", "Split", "Slice", "Gather", "Pad", "Resize", "Squeeze", "Unsqueeze", "Expand", "Tile", "Clip", "Cast",
    "Shape", "Where", "Loop", "Nothing",
)  # fmt: skip


def mutant_of_network(model, rng: np.random.Generator) -> bytes:
    """An ONNX file with other operators, attributes, edges, sizes or values."""
    from onnx import TensorProto

    raw = rng.random() < RAW
    model = copy.deepcopy(model)
    graph = model.graph
    for _ in range(0 if raw else rng.integers(1, 4)):
        if not graph.node:
            break
        node = graph.node[rng.integers(len(graph.node))]
        how = rng.integers(13)
        if how == 0:
            node.op_type = OPERATORS[rng.integers(len(OPERATORS))]
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
        elif how == 8:
            model.opset_import[0].version = [0, -1, 1, 6, 11, 18, 25, 1000][rng.integers(8)]
        elif how == 9:
            entry = model.metadata_props.add()
            entry.key = ["names", "mean", "std", "preprocess", "classes", "id2label", "input_range"][rng.integers(7)]
            entry.value = ["", "a,b", "[1", "nan", "0,0,0", '{"size": [-1, 5]}', "{0: 'a'}", "1e999"][rng.integers(8)]
        elif how == 10:
            node.input.append(["", "w", "x", node.output[0] if node.output else "q"][rng.integers(4)])
        elif how == 11:
            node.output.append(["", "w", "s", "x", "more"][rng.integers(5)])
        elif how == 12 and graph.initializer:
            tensor = graph.initializer[rng.integers(len(graph.initializer))]
            odd = np.float32([np.nan, np.inf, 0, 3e38, -3e38, 1e-40, 1e20][rng.integers(7)])
            values = np.frombuffer(tensor.raw_data[: len(tensor.raw_data) // 4 * 4], np.float32).copy()
            values[: int(rng.integers(len(values) + 1))] = odd
            tensor.raw_data = values.tobytes()
        elif how == 7 and len(graph.node) > 1:
            del graph.node[rng.integers(len(graph.node))]
        else:
            shape = (graph.input[0] if rng.random() < 0.7 else graph.output[0]).type.tensor_type.shape
            if shape.dim:
                shape.dim[rng.integers(len(shape.dim))].dim_value = [0, -1, 1, 5, 1 << 31, 1 << 50][rng.integers(6)]
    content = model.SerializeToString()
    return scrambled(content, rng) if raw else content


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


def with_chunks(content: bytes, rng: np.random.Generator) -> bytes:
    """A PNG file with a damaged, repeated or missing chunk whose checksum is right."""
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


def with_tag(content: bytes, rng: np.random.Generator) -> bytes:
    """A TIFF file of Pillow, with another type, count or value of one tag."""
    out = bytearray(content)
    (at,) = struct.unpack("<I", out[4:8])
    (count,) = struct.unpack("<H", out[at : at + 2])
    entry = at + 2 + 12 * int(rng.integers(count))
    how, odd = rng.integers(4), [0, 1, 2, 3, 5, 8, 16, 1 << 15, (1 << 31) - 1]
    if how == 0:
        out[entry + 2 : entry + 4] = struct.pack("<H", int(rng.integers(14)))
    elif how == 1:
        out[entry + 4 : entry + 8] = struct.pack("<I", odd[rng.integers(9)])
    else:
        out[entry + 8 : entry + 12] = struct.pack("<I", odd[rng.integers(9)])
    return bytes(out)


LENGTHS = (1, 2, 7, 15, 16, 17, 31, 39, 40, 48, 63, 300)
MODES = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"),
    "jpg": ("L", "RGB", "CMYK"),
    "tif": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F"),
    "gif": ("1", "L", "P", "RGB"),
    "bmp": ("1", "L", "P", "RGB", "RGBA"),
    "webp": ("RGB", "RGBA", "L"),
    "ppm": ("1", "L", "RGB", "I"),
    "tga": ("L", "P", "RGB", "RGBA"),
    "jp2": ("L", "LA", "RGB", "RGBA"),
}


def odd_picture(suffix: str, rng: np.random.Generator) -> bytes:
    """A valid picture of an odd size, mode, palette, orientation, profile or compression."""
    mode = MODES[suffix][rng.integers(len(MODES[suffix]))]
    height, width = (LENGTHS[rng.integers(len(LENGTHS))] for _ in range(2))
    if mode in ("I;16", "I", "F"):
        high = [1, 255, 4095, 65535][rng.integers(4)]
        values = rng.random((height, width)) * high
        if mode == "F" and rng.random() < 0.3:
            values.flat[0] = [np.nan, np.inf, -1, 1e38][rng.integers(4)]
        picture = Image.fromarray(values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    else:
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(
            "RGB" if mode in ("LAB", "PA") else mode
        )
        if mode == "LAB":
            picture = Image.frombytes("LAB", (width, height), rng.bytes(3 * height * width))
    options: dict = {}
    if rng.random() < 0.5:
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(0, 12))
        options["exif"] = exif.tobytes() if rng.random() < 0.7 else scrambled(exif.tobytes(), rng)
    if rng.random() < 0.3:
        options["icc_profile"] = rng.bytes(int(rng.integers(1, 200)))
    if mode == "P" and rng.random() < 0.5:
        options["transparency"] = int(rng.integers(256))
        picture.putpalette(rng.bytes(3 * int(rng.integers(1, 256))))
    if suffix == "tif" and mode not in ("F", "LAB", "I", "I;16"):
        options["compression"] = [None, "tiff_lzw", "packbits", "tiff_deflate", "raw"][rng.integers(5)]
    if suffix in ("gif", "tif", "webp", "png") and rng.random() < 0.2:
        options |= {"save_all": True, "append_images": [picture.copy()]}
    if suffix == "jpg":
        options |= {"progressive": bool(rng.integers(2)), "subsampling": int(rng.integers(3)) if mode == "RGB" else 0}
    buffer = io.BytesIO()
    kind = {"jpg": "jpeg", "tif": "tiff", "jp2": "jpeg2000"}.get(suffix, suffix)
    try:
        picture.save(buffer, kind, **options)
    except Exception:  # options or modes that this writer refuses
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def odd_array(rng: np.random.Generator) -> np.ndarray:
    """An array of an odd shape and type."""
    shape = (
        tuple(LENGTHS[rng.integers(len(LENGTHS))] for _ in range(2))
        + ((), (1,), (2,), (3,), (4,), (5, 3))[rng.integers(6)]
    )
    types = [np.uint8, np.uint16, np.int16, np.float16, np.float32, np.float64, np.bool_, np.int64, np.complex64, "S3"]
    high = [1, 1, 255, 4095, 65535][rng.integers(5)]
    values = rng.random(shape) * high
    if rng.random() < 0.2 and values.size:
        values.flat[0] = [np.nan, np.inf, -1, 1e300][rng.integers(4)]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return values.astype(types[rng.integers(len(types))])


def odd_npy(rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    values = odd_array(rng)
    np.save(buffer, np.asfortranarray(values) if rng.random() < 0.3 else values)
    return buffer.getvalue()


def odd_tiff(rng: np.random.Generator) -> bytes:
    """TIFF files that Pillow does not write: tiles, strips, planes, many bits, BigTIFF."""
    import tifffile

    for _ in range(20):
        values, buffer, options = odd_array(rng), io.BytesIO(), {}
        if rng.random() < 0.4:
            options["tile"] = (16, [16, 32, 64][rng.integers(3)])
        elif rng.random() < 0.5:
            options["rowsperstrip"] = int(rng.integers(1, 9))
        if values.ndim == 3 and values.shape[2] in (3, 4):
            options |= {"photometric": ["rgb", "minisblack", "ycbcr"][rng.integers(3)], "planarconfig": "contig"}
            if rng.random() < 0.3:
                values, options["planarconfig"] = np.moveaxis(values, -1, 0).copy(), "separate"
        else:
            options["photometric"] = ["minisblack", "miniswhite"][rng.integers(2)]
        options["extratags"] = [(274, "H", 1, int(rng.integers(0, 11)), True)]
        try:
            with tifffile.TiffWriter(buffer, bigtiff=bool(rng.integers(2))) as file:
                file.write(values, **options)
            return buffer.getvalue()
        except Exception:  # what cannot be written
            continue
    return odd_picture("tif", rng)


def odd_dicom(rng: np.random.Generator) -> bytes:
    """An uncompressed DICOM file with odd windows, slopes, bits and sizes."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    height, width = (LENGTHS[rng.integers(len(LENGTHS))] for _ in range(2))
    colour = rng.random() < 0.3
    values = rng.integers(0, 256 if colour else 4096, (height, width, 3) if colour else (height, width))
    values = values.astype(np.uint8 if colour else np.uint16)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    buffer = io.BytesIO()
    file = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    file.Rows, file.Columns, file.SamplesPerPixel = height, width, 3 if colour else 1
    file.PhotometricInterpretation = "RGB" if colour else ["MONOCHROME1", "MONOCHROME2"][rng.integers(2)]
    file.BitsAllocated, file.BitsStored, file.HighBit = (8, 8, 7) if colour else (16, 12, 11)
    file.PixelRepresentation = 0
    if colour:
        file.PlanarConfiguration = 0
    file.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
    fields = {
        "WindowCenter": [0, 40, "nan", 1e30, 2048],
        "WindowWidth": [0, 1, -5, 400, 1e30],
        "RescaleSlope": [0, 1, -1, 1e30, "nan"],
        "RescaleIntercept": [0, -1024, 1e30],
        "BitsStored": [0, 1, 8, 12, 16, 40],
        "PixelRepresentation": [0, 1, 2],
        "NumberOfFrames": [0, 1, 2, 1000],
        "Rows": [0, 1, 65535],
        "PhotometricInterpretation": ["RGB", "PALETTE COLOR", "YBR_FULL", "NONSENSE", "MONOCHROME1"],
        "VOILUTFunction": ["SIGMOID", "LINEAR_EXACT", "ODD"],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(rng.integers(0, 4)):
            name = list(fields)[rng.integers(len(fields))]
            try:
                setattr(file, name, fields[name][rng.integers(len(fields[name]))])
            except ValueError:
                continue
        try:
            pydicom.dcmwrite(buffer, file, enforce_file_format=True)
        except Exception:  # values that cannot be written
            return odd_dicom(rng)
    return buffer.getvalue()


def mutant_of_picture(shown: dict[str, bytes], rng: np.random.Generator) -> tuple[str, bytes]:
    """Suffix and content."""
    if rng.random() < RAW:
        name = list(shown)[rng.integers(len(shown))]
        return name.rpartition(".")[2], scrambled(shown[name], rng)
    makers = {"npy": odd_npy} | ({"tiff": odd_tiff} if find_spec("tifffile") else {})
    makers |= {"dcm": odd_dicom} if find_spec("pydicom") else {}
    suffixes = [*MODES, *makers]
    suffix = suffixes[rng.integers(len(suffixes))]
    content = makers[suffix](rng) if suffix in makers else odd_picture(suffix, rng)
    if suffix == "png" and rng.random() < 0.5:
        content = with_chunks(content, rng)
    elif suffix == "tif" and content[:2] == b"II" and rng.random() < 0.5:
        content = with_tag(content, rng)
    return suffix, content


# ---- descriptions and class lists ------------------------------------------------------------------------------------

DESCRIBED = (
    {"size": [12, 12], "how": "crop", "resize": 14, "order": "RGB", "high": 1.0, "mean": [0.5, 0.4, 0.3], "std": 0.2},
    {"do_resize": True, "size": {"height": 12, "width": 12}, "image_mean": [0.5] * 3, "image_std": [0.2] * 3},
    {"do_center_crop": True, "size": {"shortest_edge": 14}, "crop_size": {"height": 12, "width": 12},
     "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 0.00392156862745098, "resample": 3},
    {"pretrained_cfg": {"input_size": [3, 12, 12], "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5] * 3,
                        "std": [0.5] * 3, "crop_mode": "center"}},
)  # fmt: skip
LISTED = (
    ["a", "b", "c", "d", "e"],
    {"id2label": {"0": "a", "1": "b", "2": "c", "3": "d", "4": "e"}},
    {"names": ["a", "b", "c", "d", "e"]},
    [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}, {"id": 2, "name": "c"}, {"id": 3, "name": "d"},
     {"id": 4, "name": "e"}],
)  # fmt: skip


def mutant_of_json(value, rng: np.random.Generator) -> bytes:
    if rng.random() < RAW:
        return scrambled(json.dumps(value).encode(), rng)
    for _ in range(rng.integers(1, 3)):
        if isinstance(value, dict | list) and any(spots(value)):
            value = changed({"": value}, rng)[""] if rng.random() < 0.95 else ODD[rng.integers(len(ODD))]
    return json.dumps(value).encode()


# ---- reading and using -----------------------------------------------------------------------------------------------


class Broken(Exception):
    """A promise that was not kept."""


class Slow(BaseException):
    """The time is over; no handler of errors stops it."""


def parses(path: Path) -> bool:
    """Whether the reader of the format takes the file, whatever fvlrp makes of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _parse(path)
        except Exception:
            return False
    return True


def _parse(path: Path) -> None:
    if path.suffix in (".fvlrp", ".npz"):
        files.load_arrays(path)
    elif path.suffix == ".onnx":
        from onnx import ModelProto

        if not ModelProto.FromString(path.read_bytes()).graph.node:
            raise ValueError("no graph")
    elif path.suffix == ".json":
        json.loads(path.read_bytes())
    elif path.suffix == ".npy":
        np.load(path, allow_pickle=False)
    elif path.suffix == ".dcm":
        import pydicom

        pydicom.dcmread(path).pixel_array  # noqa: B018
    elif path.suffix == ".tiff":
        import tifffile

        with tifffile.TiffFile(path) as file:
            file.pages[0].asarray()
    else:
        with Image.open(path) as picture:
            picture.load()


def used(function, path: Path) -> tuple[str, float]:
    """ "read" or "refused", and the seconds of processor time; raises Broken for everything else."""
    begin = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            function(path)
        how = "read"
    except (ValueError, TypeError, OSError, MemoryError) as error:
        if path.name not in str(error) and not NAMED_ARGUMENT.search(str(error)):
            raise Broken(f"the error does not name the file: {error!r}") from error
        how = "refused"
    except Slow as error:
        raise Broken(f"takes more than {SECONDS} s") from error
    except Broken:
        raise
    except BaseException as error:
        raise Broken(f"{type(error).__name__}: {error}") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return how, time.process_time() - begin


def explained(model, image) -> None:
    warnings.simplefilter("ignore")  # of overflows, after which scores are refused or finite
    try:
        ex = model.explain(image)
    except ValueError as error:
        if "not finite" in str(error):  # finite weights whose products overflow: known by the scores alone
            raise
        raise Broken(f"loads, and cannot be used: {error!r}") from error
    except Exception as error:
        raise Broken(f"loads, and cannot be used: {error!r}") from error
    if not (np.isfinite(ex.heatmap).all() and np.isfinite(ex.score)):
        raise Broken("loads, and gives a map that is not finite")


class Mutants:
    """Seeds of every kind, and for each number a mutant and what is done with it."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.folder = seed, folder
        self.image = np.random.default_rng(1).random((48, 52)).astype(np.float32)
        self.preprocess = fvlrp.Preprocess(size=(12, 12))
        self.network, self.pictures = small_network(), pictures()
        self.clf = small_model(np.random.default_rng(seed))
        self.onnx = folder / "seed.onnx"
        self.onnx.write_bytes(self.network.SerializeToString())
        self.net = fvlrp.Network.from_onnx(self.onnx, preprocess=self.preprocess)
        self.archives = []
        for model, name in ((self.clf, "c.fvlrp"), (self.net, "n.fvlrp"), (self.clf.explain(self.image), "e.npz")):
            model.save(folder / name)
            self.archives.append((name, *files.load_arrays(folder / name)))

    def of(self, i: int):
        """The path of mutant i, its kind, and the function that uses it."""
        rng = np.random.default_rng([self.seed, i])
        kind = ("model", "network", "picture", "description")[min(i % 10 // 3, 3)]
        if kind == "model":
            name, header, arrays = self.archives[rng.integers(3)]
            content, suffix = mutant_of_archive(header, arrays, rng), Path(name).suffix
            check = self._load if suffix == ".fvlrp" else self._shown
        elif kind == "network":
            content, suffix, check = mutant_of_network(self.network, rng), ".onnx", self._imported
        elif kind == "picture":
            suffix, content = mutant_of_picture(self.pictures, rng)
            suffix, check = f".{suffix}", self._photograph
        else:
            described = rng.random() < 0.5
            content = mutant_of_json((DESCRIBED if described else LISTED)[rng.integers(4)], rng)
            suffix, check = ".json", self._described if described else self._named
        path = self.folder / f"{i}{suffix}"
        path.write_bytes(content)
        return path, kind, check

    def _load(self, path: Path) -> None:
        explained(fvlrp.load(path), self.image)

    def _shown(self, path: Path) -> None:
        ex = fvlrp.Explanation.load(path)
        try:
            ex.to_image()
            ex.ledger.closes()
        except Exception as error:
            raise Broken(f"loads, and cannot be shown: {error!r}") from error

    def _imported(self, path: Path) -> None:
        explained(fvlrp.Network.from_onnx(path, preprocess=self.preprocess), self.image)

    def _photograph(self, path: Path) -> None:
        fvlrp.images.size(path)
        pixels = fvlrp.images.load(path)
        if pixels.dtype == np.uint8 or (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            self.net.explain(path)
            self.clf.explain(path)
            return
        raise Broken("pixels that are not in 0..1")

    def _described(self, path: Path) -> None:
        explained(fvlrp.Network.from_onnx(self.onnx, preprocess=path), self.image)

    def _named(self, path: Path) -> None:
        explained(fvlrp.Network.from_onnx(self.onnx, preprocess=self.preprocess, classes=path), self.image)


def out_of_time(*_: object) -> None:
    raise Slow


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant, to run a part")
    args = parser.parse_args()
    faulthandler.enable()
    signal.signal(signal.SIGPROF, out_of_time)
    counted: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory(prefix="fvlrp-mutants-") as folder:
        mutants = Mutants(args.seed, Path(folder))
        for i in range(args.first, args.first + args.count):
            path, kind, check = mutants.of(i)
            counted[f"{kind} past the parser" if parses(path) else f"{kind} stopped by the parser"] += 1
            faulthandler.dump_traceback_later(60, exit=True)  # a loop in C, which no signal interrupts
            try:
                how, seconds = used(check, path)
                counted[f"{kind} {how}"] += 1
                slowest = max(slowest, seconds)
            except Broken as error:
                kept = Path(tempfile.gettempdir(), f"fvlrp-mutant-{args.seed}-{path.name}")
                kept.write_bytes(path.read_bytes())
                print(f"{kept}: {error}", file=sys.stderr)
                traceback.print_exception(error.__cause__ or error, limit=-4)
                counted["broken"] += 1
            faulthandler.cancel_dump_traceback_later()
            path.unlink()
    for what in ("read", "refused", "past the parser"):
        counted[f"all {what}"] = sum(count for key, count in counted.items() if key.endswith(f" {what}"))
    print("\n".join(f"{count:6} {what}" for what, count in sorted(counted.items())))
    print(f"slowest: {slowest:.2f} s of processor time")
    return 1 if counted["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
