"""Convolutional networks: forward passes of what `importers` reads, photographs prepared, the last layer retrained.

A network is a list of nodes in an order in which each comes after its inputs; a node is a layer with a name. All
arithmetic is NumPy's: no deep-learning framework is needed to classify, explain or retrain.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cache, partial

import numpy as np
from PIL import Image

from . import files, importers, threads
from . import images as pictures
from .graph import INPUT, KINDS, Node, ancestors
from .labels import Decisions, parse_labels
from .layers import Conv, Dense, Flatten, GlobalAveragePool, Layer
from .lrp import ConvMenu, ConvTrace
from .progress import Progress
from .rules import choose, real

_ELEMENTWISE = ("relu", "leakyrelu", "clip")
_USUAL_SIZE = 224  # height and width that a network of free input size gets where nothing says otherwise


# ---- photographs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preprocess:
    """How a photograph becomes a network's input, and how a heatmap finds its way back.

    ``x = (value - mean) / std`` channel by channel, in the order of `order`, after resizing (antialiased bilinear).

    Parameters
    ----------
    size : (int, int)
        Height and width of the network's input.
    how : {"stretch", "crop"}
        The whole photograph, its aspect changed; or its centre, after the shorter side became `resize` pixels.
    resize : int or None
        For "crop"; None is the larger of `size`.
    order : {"RGB", "BGR", "grey"}
        Channels of the input. A grey photograph becomes three equal channels.
    high : {1, 255}
        Value of white before mean and std.
    mean, std : tuple of float
        One for each channel, in the order of `order`; of length 1, the same for all.
    """

    size: tuple[int, int] = (_USUAL_SIZE, _USUAL_SIZE)
    how: str = "stretch"
    resize: int | None = None
    order: str = "RGB"
    high: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self):
        for name in ("size", "mean", "std"):
            object.__setattr__(self, name, tuple(np.ravel(getattr(self, name)).tolist()))
        if len(self.size) != 2 or any(not real(n) or n < 1 or n % 1 for n in self.size):
            raise ValueError(f"size must be height and width in whole pixels, got {self.size!r}")
        object.__setattr__(self, "size", tuple(map(int, self.size)))
        choose("how", self.how, ("stretch", "crop"))
        choose("order", self.order, ("RGB", "BGR", "grey"))
        choose("high", self.high, (1, 255))
        short = self.resize
        if short is not None and (self.how != "crop" or not real(short) or short < max(self.size)):
            raise ValueError(
                f"resize must be at least {max(self.size)}, and of use for how='crop', got {self.resize!r}"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, self.channels) or not all(real(v) and np.isfinite(v) for v in values):
                raise ValueError(f"{name} must hold 1 or {self.channels} finite numbers, got {values!r}")
        if not all(self.std):
            raise ValueError(f"std must not be zero, got {self.std!r}")

    @property
    def channels(self) -> int:
        return 1 if self.order == "grey" else 3

    def prepare(self, image) -> np.ndarray:
        """The network's input, float32 (1, channels, height, width). Raises as `fvlrp.images.load` does."""
        values = pictures.grey(image) if self.order == "grey" else pictures.load(image)
        planes = values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0)
        white = 255 if planes.dtype == np.uint8 else 1
        resized, (top, left) = self._window(planes.shape[1:])
        height, width = self.size
        box = [plane[top : top + height, left : left + width] for plane in (_resized(p, resized) for p in planes)]
        x = np.stack([box[0]] * self.channels if len(box) < self.channels else box)
        if self.order == "BGR":
            x = x[::-1]
        mean, std = (np.reshape(values, (-1, 1, 1)) for values in (self.mean, self.std))
        return ((x * np.float32(self.high / white) - mean) / std).astype(np.float32)[None]

    def undo(self, heatmap: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """A heatmap on the network's input, at the photograph's own size: the same sum, nothing outside a crop.

        Parameters
        ----------
        heatmap : ndarray (h, w), or a stack of them (..., h, w)
        shape : (int, int)
            Height and width of the photograph.

        Returns
        -------
        ndarray float64 (..., *shape)
        """
        heatmap = np.asarray(heatmap, np.float64)
        if heatmap.shape[-2:] != self.size:
            raise ValueError(f"heatmap has shape {heatmap.shape}; expected (..., {self.size[0]}, {self.size[1]})")
        resized, (top, left) = self._window(shape)
        if resized != self.size:
            whole = np.zeros((*heatmap.shape[:-2], *resized))
            whole[..., top : top + self.size[0], left : left + self.size[1]] = heatmap
            heatmap = whole
        return pictures.resample_conserving(heatmap, shape)

    def _window(self, shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Size that a photograph of `shape` is resized to, and where in it the input's first pixel lies."""
        if self.how == "stretch":
            return self.size, (0, 0)
        short = max(self.size) if self.resize is None else self.resize
        resized = tuple(max(short, round(length * short / min(shape))) for length in shape)
        return resized, tuple((long - own) // 2 for long, own in zip(resized, self.size, strict=True))

    def to_dict(self) -> dict:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict) -> Preprocess:
        """From what `to_dict` gives, or from the description beside a model file.

        Such a description has input_size, channel_order ("BGR"), value_range ([0, 255]), mean_rgb, mean_bgr or mean,
        scale (x = (value - mean) * scale) or std, and resize ("shorter side to 256, centre crop 224" or whatever else,
        which means the whole photograph).
        """
        known = {field.name for field in fields(cls)}
        if "input_size" not in values:
            unknown = sorted(set(values) - known)
            if unknown:
                raise ValueError(f"preprocess has no option {unknown[0]!r}; valid ones are {', '.join(sorted(known))}")
            return cls(**values)
        order = values.get("channel_order", "RGB")
        mean = values.get("mean", (0.0,))
        for name, its in (("mean_rgb", "RGB"), ("mean_bgr", "BGR")):
            if name in values:
                mean = values[name] if order == its else values[name][::-1]
        std = values.get("std", 1.0) if "scale" not in values else 1 / np.asarray(values["scale"], float)
        how, resize = _read_resize(values.get("resize", ""))
        high = float(np.max(values.get("value_range", (0, 1))))
        return cls(values["input_size"], how, resize, order, high, mean, std)


def _read_resize(text) -> tuple[str, int | None]:
    """A sentence such as "shorter side to 256, then centre crop 224" as (how, resize)."""
    words = str(text).lower().replace(",", " ").split()
    if words[:2] != ["shorter", "side"]:
        return "stretch", None
    numbers = [int(word) for word in words if word.isdigit()]
    return "crop", numbers[0] if numbers else None


def _resized(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.BILINEAR))


def read_description(path) -> tuple[Preprocess, list[str] | None]:
    """Preprocessing and class names of the JSON file beside a model."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"preprocess must be a Preprocess value or the path of a JSON file, got {path!r}")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no file {os.fspath(path)} that says how to prepare photographs")
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        if not isinstance(values, dict):
            raise ValueError(f"expected an object of names and values, got {type(values).__name__}")
        preprocess = Preprocess.from_dict(
            values if "input_size" in values else {k: v for k, v in values.items() if k not in _CLASS_KEYS}
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{os.fspath(path)} does not describe how to prepare photographs: {error}") from error
    names = next((values[key] for key in _CLASS_KEYS if key in values), None)
    return preprocess, None if names is None else _short_names(names)


_CLASS_KEYS = ("class_names", "classes", "labels", "synsets")


def _short_names(labels: Sequence[str]) -> list[str]:
    """The first synonym of each class, "tench" of "tench, Tinca tinca"; all of them, or numbered, where two agree."""
    labels = [str(label) for label in labels]
    first = [label.split(",")[0].strip() for label in labels]
    names: list[str] = []
    for label, name in zip(labels, first, strict=True):
        unique = name if first.count(name) == 1 else label
        copies = sum(1 for other in names if other == unique or other.startswith(f"{unique} ("))
        names.append(f"{unique} ({copies + 1})" if unique in names else unique)
    return names


# ---- the network -----------------------------------------------------------------------------------------------------


class ConvNet(Decisions):
    """A convolutional image classifier whose decisions can be explained down to any layer, or to the pixels.

    Made by `from_onnx`, `fvlrp.load` or `retrain`. Images are paths, PIL images or arrays (uint8, uint16, or floats in
    0..1), of any sizes.

    Parameters
    ----------
    nodes : sequence of Node
        Each after those it reads; the last one's output holds a score for each class.
    input_shape : (C, H, W)
        H and W may be None: free.
    classes : sequence, optional
        Names or values of the classes; None: 0, 1, ...
    preprocess : Preprocess, optional
        None: RGB (or grey, for one channel) in 0..1, resized to the network's input.
    multilabel : bool
        Whether several classes can be present at a time, each where its score is positive.
    n_jobs : int or None
        Threads, as scikit-learn counts.
    verbose : bool
        Progress on stderr.

    Attributes
    ----------
    nodes : list of Node
    layers : list of str
        Names of the nodes, the depths of an explanation.
    classes_ : array (n_classes,)
    """

    def __init__(
        self, nodes, input_shape, classes=None, preprocess=None, *, multilabel=False, n_jobs=None, verbose=False
    ):
        self.nodes = list(nodes)
        self.input_shape = tuple(input_shape)
        self.preprocess = self._preprocess(preprocess)
        self.shapes = self._shapes((self.input_shape[0], *self.preprocess.size))
        n_classes = self.shapes[-1][0]
        self.classes_ = np.arange(n_classes) if classes is None else np.asarray(classes)
        if self.classes_.shape != (n_classes,):
            raise ValueError(f"classes must name the network's {n_classes} outputs, got {self.classes_.size} names")
        self.multilabel_, self.n_jobs, self.verbose = bool(multilabel), n_jobs, verbose

    def _preprocess(self, preprocess) -> Preprocess:
        channels, height, width = self.input_shape
        if channels not in (1, 3):
            raise ValueError(f"the network must read photographs of 1 or 3 channels, it reads {channels}")
        if preprocess is None:
            size = height or _USUAL_SIZE, width or _USUAL_SIZE
            return Preprocess(size, order="RGB" if channels == 3 else "grey")
        if preprocess.channels != channels:
            raise ValueError(f"preprocess makes {preprocess.channels} channels, the network reads {channels}")
        if any(own not in (None, made) for own, made in zip((height, width), preprocess.size, strict=True)):
            raise ValueError(f"preprocess makes {preprocess.size} pixels, the network reads {(height, width)}")
        return preprocess

    def _shapes(self, input_shape) -> list[tuple]:
        """Shape of every node's output, without the batch axis."""
        if not self.nodes:
            raise ValueError("nodes must hold at least one layer, got none")
        shapes: list[tuple] = []
        for i, node in enumerate(self.nodes):
            if not all(INPUT <= k < i for k in node.inputs):
                raise ValueError(f"layer {node.name!r} must come after those it reads, {node.inputs}")
            try:
                shapes.append(node.layer.out_shape(*(input_shape if k == INPUT else shapes[k] for k in node.inputs)))
            except (ValueError, TypeError, IndexError) as error:
                raise ValueError(f"layer {node.name!r} does not fit what it reads: {error}") from error
        if len(shapes[-1]) != 1:
            raise ValueError(f"the network must end in one score per class, it ends in an array of {shapes[-1]}")
        return shapes

    @classmethod
    def from_onnx(cls, path, preprocess=None, classes=None, **options) -> ConvNet:
        """A network from an ONNX file of opset 7 or later.

        Parameters
        ----------
        path : path
        preprocess : Preprocess or path, optional
            How photographs are prepared, or a JSON file that says so and may name the classes, too. None: RGB in 0..1
            resized to the network's input.
        classes : sequence, optional
            Names of the classes; None: those of the JSON file, or 0, 1, ...
        **options
            multilabel, n_jobs, verbose.

        Raises
        ------
        ImportError
            The package onnx is not installed.
        OSError
            There is no such file.
        ValueError
            It is no ONNX file, or holds an operator that fvlrp cannot explain: the message names it.
        """
        names = None
        if preprocess is not None and not isinstance(preprocess, Preprocess):
            preprocess, names = read_description(preprocess)
        size = None if preprocess is None else preprocess.size
        nodes, input_shape = importers.read(path, size or (_USUAL_SIZE, _USUAL_SIZE))
        return cls(nodes, input_shape, names if classes is None else classes, preprocess, **options)

    @property
    def layers(self) -> list[str]:
        return [node.name for node in self.nodes]

    def get_params(self, deep: bool = True) -> dict:
        return {"n_jobs": self.n_jobs, "verbose": self.verbose}

    def set_params(self, **params) -> ConvNet:
        for name, value in params.items():
            choose("parameter", name, ("n_jobs", "verbose"))
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"<ConvNet: {len(self.nodes)} layers, input {self.input_shape}, {len(self.classes_)} classes>"

    # ---- applying ----

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Scores before any softmax, (n, n_classes), of a prepared batch.

        Parameters
        ----------
        x : float32 or float64 (n, C, H, W)
            The dtype is that of the computation.
        """
        return self._run(self._checked(x), len(self.nodes) - 1)

    def activations(self, x: np.ndarray) -> list[np.ndarray]:
        """Output of every node, in their order, for a prepared batch."""
        x, out = self._checked(x), []
        with blas_threads(self.n_jobs):
            for node in self.nodes:
                out.append(node.layer.forward(*(x if k == INPUT else out[k] for k in node.inputs)))
        return out

    def _checked(self, x) -> np.ndarray:
        x = np.asarray(x)
        if x.ndim != 4 or any(
            own not in (None, given) for own, given in zip(self.input_shape, x.shape[1:], strict=True)
        ):
            wanted = ", ".join("any" if length is None else str(length) for length in self.input_shape)
            raise ValueError(f"x has shape {x.shape}; expected (n, {wanted}): net.prepare(image) makes one")
        return np.ascontiguousarray(x) if x.dtype in (np.float32, np.float64) else x.astype(np.float32)

    def _run(self, x: np.ndarray, last: int) -> np.ndarray:
        """Output of node `last` (or INPUT itself); outputs are dropped after their last use."""
        out, nodes = {INPUT: x}, self.nodes[: last + 1]
        uses = Counter(k for node in nodes for k in node.inputs)
        uses[last] += 1
        with blas_threads(self.n_jobs):
            for i, node in enumerate(nodes):
                if i in out:
                    continue
                inputs = [out[k] for k in node.inputs]
                then = self._fused(i, uses) if i < last else None
                if then is None:
                    out[i] = node.layer.forward(*inputs)
                else:
                    out[then] = node.layer.forward(*inputs, then=self.nodes[then].layer)
                for k in node.inputs:
                    uses[k] -= 1
                    if not uses[k]:
                        del out[k]
        return out[last]

    def _fused(self, i: int, uses: Counter) -> int | None:
        """The elementwise layer right behind convolution `i`, where it alone reads it."""
        following = self.nodes[i + 1]
        alone = self.nodes[i].kind == "conv" and uses[i] == 1 and following.inputs == (i,)
        return i + 1 if alone and following.kind in _ELEMENTWISE else None

    def prepare(self, image) -> np.ndarray:
        """The network's input for one image, float32 (1, C, H, W)."""
        return self.preprocess.prepare(image)

    def scores(self, image) -> np.ndarray:
        """Scores of one image for every class, float64 (n_classes,): what an explanation of each starts from."""
        return self.forward(self.prepare(image))[0].astype(np.float64)

    def decision_function(self, images) -> np.ndarray:
        """Scores float64 (n, n_classes); with two exclusive classes (n,), by how much ``classes_[1]`` is ahead."""
        scores = np.array(self._each(self.scores, images, "image"))
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 and not self.multilabel_ else scores

    def _each(self, function, images, what: str) -> list:
        images = pictures.batch(images)
        progress = Progress(what, len(images), self.verbose)

        def one(i: int):
            result = pictures.naming(images, i, function)
            progress.step()
            return result

        with blas_threads(self.n_jobs if len(images) == 1 else None):
            return threads.run([partial(one, i) for i in range(len(images))], self.n_jobs)

    # ---- explaining ----

    @property
    def menu(self) -> ConvMenu:
        """Classes, depths and rules that an explanation can be asked for; `menu.check` refuses others up front."""
        return ConvMenu(self)

    def trace(self, image, dtype="float32") -> ConvTrace:
        """One forward pass of one image, to explain any number of targets, depths and rules from.

        `dtype` "float32" is fast; "float64" is exact: the ledger closes to 1e-9.
        """
        return ConvTrace(self, image, dtype)

    def explain(self, image, target=None, depth="input", rules=None, dtype="float32"):
        """Why `target` (None: the highest score) has its score: an Explanation, or a list; see `Trace.explain`."""
        return self.trace(image, dtype).explain(target, depth, rules)

    # ---- retraining ----

    def retrain(self, images, labels, class_names=None, *, mirror=True, C=None) -> ConvNet:
        """A new network with other classes: its last layer is learned anew from photographs, all others are kept.

        The features are what the last learned layer reads, averaged over pixels where that layer is a convolution.
        Each class gets a logistic regression against the rest, whose standardised weights are folded into an ordinary
        layer: a dense one, or a 1 x 1 convolution with global average pooling behind it, so that evidence keeps its
        place. Nothing comes after it: scores can be negative.

        Parameters
        ----------
        images : sequence of paths, PIL images or arrays
        labels : (n,) or (n, n_classes)
            One label per image, or a matrix of 1 / 0 (difficult, ignored) / -1, or an indicator of 0 / 1.
        class_names : sequence, optional
            Names of the classes (of the sorted labels, or of the matrix's columns).
        mirror : bool
            Learn from the mirror images, too.
        C : float, optional
            Inverse strength of the L2 penalty on weights of standardised features, against the sum of losses. None: 10
            over the number of rows learned from, so that the balance does not depend on how many there are.

        Returns
        -------
        ConvNet
        """
        images = pictures.batch(images)
        if C is not None and not (real(C) and 0 < C < np.inf):
            raise ValueError(f"C must be a positive number or None, got {C!r}")
        signs, classes, multilabel = parse_labels(labels, len(images), class_names)
        last = self._last_learned()
        features = np.array(
            self._each(partial(self._features, last=last, mirror=mirror), images, "retraining on image")
        )
        signs = np.repeat(signs, features.shape[1], axis=0)
        weight, bias = _logistic(features.reshape(len(signs), -1), signs, C, multilabel)
        return ConvNet(
            self._with_head(last, weight, bias),
            self.input_shape,
            classes,
            self.preprocess,
            multilabel=multilabel,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )

    def _last_learned(self) -> int:
        for i in reversed(range(len(self.nodes))):
            if self.nodes[i].kind in ("conv", "dense"):
                return i
        raise ValueError("the network has no convolution or dense layer to retrain")

    def _features(self, image, last: int, mirror: bool) -> np.ndarray:
        """What the last learned layer reads of an image, and of its mirror image: (1 or 2, d) float64."""
        x = self.prepare(image)
        x = np.concatenate([x, x[..., ::-1]]) if mirror else x
        out = self._run(x, self.nodes[last].inputs[0]).astype(np.float64)
        return out.mean(axis=(2, 3)) if self.nodes[last].kind == "conv" else out.reshape(len(out), -1)

    def _with_head(self, last: int, weight: np.ndarray, bias: np.ndarray) -> list[Node]:
        """The nodes that the layer `last` needs, and a new layer with `weight` and `bias` in its place."""
        old = self.nodes[last]
        needed = sorted(ancestors(self.nodes, last) - {last})
        place = {k: at for at, k in enumerate(needed)} | {INPUT: INPUT}
        nodes = [
            Node(node.name, node.kind, node.layer, tuple(place[k] for k in node.inputs))
            for node in (self.nodes[k] for k in needed)
        ]
        source = place[old.inputs[0]]
        if old.kind == "dense":
            return [*nodes, Node.of(old.name, Dense(weight, bias), (source,))]
        head = [
            (old.name, Conv(weight[:, :, None, None], bias)),
            ("average", GlobalAveragePool()),
            ("scores", Flatten()),
        ]
        taken = {node.name for node in nodes}
        for name, layer in head:
            unique = name
            while unique in taken:
                unique += "_"
            taken.add(unique)
            nodes.append(Node.of(unique, layer, (source,)))
            source = len(nodes) - 1
        return nodes

    # ---- files ----

    def describe(self) -> dict:
        """What the model holds, ready for JSON."""
        return {
            "kind": "convolutional network",
            "classes": [str(name) for name in self.classes_],
            "multilabel": self.multilabel_,
            "input_shape": list(self.input_shape),
            "preprocess": self.preprocess.to_dict(),
            "parameters": int(sum(value.size for node in self.nodes for value in _parameters(node.layer).values())),
            "layers": [
                {"name": node.name, "kind": node.kind, "shape": list(shape)}
                for node, shape in zip(self.nodes, self.shapes, strict=True)
            ],
        }

    def save(self, path) -> None:
        """Write the network to `path`, exactly that name, atomically and byte for byte reproducible."""
        header, arrays = self.to_parts()
        files.save_arrays(path, {"kind": files.CONVNET, **header}, arrays)

    def to_parts(self) -> tuple[dict, dict[str, np.ndarray]]:
        """What a file holds: a header ready for JSON, and arrays by name."""
        header = {
            "input_shape": list(self.input_shape),
            "preprocess": self.preprocess.to_dict(),
            "multilabel": self.multilabel_,
            "nodes": [
                {
                    "name": node.name,
                    "kind": node.kind,
                    "inputs": list(node.inputs),
                    "options": {
                        field.name: getattr(node.layer, field.name)
                        for field in fields(node.layer)
                        if field.name not in _parameters(node.layer)
                    },
                }
                for node in self.nodes
            ],
        }
        arrays = {
            f"{i}.{name}": value for i, node in enumerate(self.nodes) for name, value in _parameters(node.layer).items()
        }
        return header, {"classes": self.classes_, **arrays}

    @classmethod
    def from_parts(cls, header: dict, arrays: dict[str, np.ndarray]) -> ConvNet:
        """The inverse of `to_parts`."""
        nodes = []
        for i, entry in enumerate(header["nodes"]):
            choose("kind of layer", entry["kind"], tuple(KINDS))
            kind = KINDS[entry["kind"]]
            options = {name: tuple(v) if isinstance(v, list) else v for name, v in entry["options"].items()}
            parameters = {f.name: arrays[f"{i}.{f.name}"] for f in fields(kind) if f"{i}.{f.name}" in arrays}
            nodes.append(Node(entry["name"], entry["kind"], kind(**parameters, **options), tuple(entry["inputs"])))
        preprocess = Preprocess.from_dict(header["preprocess"])
        return cls(nodes, header["input_shape"], arrays["classes"], preprocess, multilabel=header["multilabel"])


def _parameters(layer: Layer) -> dict[str, np.ndarray]:
    values = {field.name: getattr(layer, field.name) for field in fields(layer)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def _logistic(
    features: np.ndarray, signs: np.ndarray, C: float | None, multilabel: bool
) -> tuple[np.ndarray, np.ndarray]:
    """One-vs-rest logistic regressions on standardised features: weight (n_classes, d) and bias float32, unscaled."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread == 0] = np.inf  # a feature that never changes gets no weight
    standard = (features - mean) / spread
    C = 10 / len(features) if C is None else C
    two = signs.shape[1] == 2 and not multilabel
    rows = []
    for column in signs.T[1:] if two else signs.T:
        used = column != 0
        model = LogisticRegression(C=C, max_iter=1000).fit(standard[used], column[used])
        rows.append(np.append(model.coef_[0], model.intercept_[0]))
    # Two exclusive classes share one regression, which is by how much the second is ahead.
    rows = np.array([-rows[0] / 2, rows[0] / 2] if two else rows)
    weight = rows[:, :-1] / spread
    return weight.astype(np.float32), (rows[:, -1] - weight @ mean).astype(np.float32)


# ---- threads of the matrix products ----------------------------------------------------------------------------------

_blas_lock = threading.Lock()
_blas_depth = 0
_blas_limit = None


@contextmanager
def blas_threads(n_jobs: int | None):
    """Keep matrix products to as many threads as `n_jobs` asks for; the outermost of nested calls decides.

    The limit belongs to the process: it is set by the first to enter and lifted by the last to leave, so that passes in
    several threads cannot restore each other's.
    """
    global _blas_depth, _blas_limit
    with _blas_lock:
        if not _blas_depth:
            _blas_limit = _controller().limit(limits=threads.count(n_jobs), user_api="blas")
        _blas_depth += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_depth -= 1
            if not _blas_depth:
                _blas_limit.restore_original_limits()


@cache
def _controller():
    """The BLAS libraries of this process, looked for once: it takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
