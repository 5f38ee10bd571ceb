"""Convolutional networks as classifiers: applied, explained, retrained for other classes and kept as one file.

A network is a list of nodes in an order in which each comes after its inputs; a node is a layer with a name. All
arithmetic is NumPy's: no deep-learning framework is needed to classify, explain or retrain.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.classifier import Classifier
from ..data import files
from ..data import images as pictures
from ..data.labels import parse_labels
from ..runtime import threads
from ..runtime.arguments import check_choice, is_real
from ..runtime.progress import Progress
from ..runtime.threads import blas_threads
from . import caffe
from .description import description_beside, of_metadata, read_classes, read_description
from .graph import INPUT, KINDS, Node, ancestors
from .layers import Conv, Dense, Flatten, GlobalAveragePool, NetworkLayer, Saved
from .onnx import Account, Imported, read_network
from .preprocess import USUAL_SIZE, Preprocess
from .tokens import Layout
from .trace import NetworkMenu, NetworkTrace, coarse_depth

PathLike = str | os.PathLike[str]


class Network(Classifier):
    """An image classifier made of layers whose decisions can be explained down to any layer, or to the pixels.

    Made by `from_onnx`, `from_caffe`, `fvlrp.load` or `retrain`. Images are paths, PIL images or arrays (uint8, uint16,
    or floats in 0..1), of any sizes.

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
    account : Account or None
        What became of the nodes of the ONNX file that the network was read from; None where it was not.
    binary : bool
        Whether the network has one score for two classes: f speaks for ``classes_[1]``, -f for ``classes_[0]``.

    Examples
    --------
    >>> from fvlrp.network.graph import Node
    >>> from fvlrp.network.layers import Conv, GlobalAveragePool, Flatten, ReLU
    >>> conv = Conv(np.random.default_rng(0).standard_normal((5, 3, 3, 3), np.float32), np.zeros(5, np.float32))
    >>> layers = [("conv", conv), ("relu", ReLU()), ("mean", GlobalAveragePool()), ("scores", Flatten())]
    >>> net = fvlrp.Network([Node.of(name, layer, (i - 1,)) for i, (name, layer) in enumerate(layers)], (3, 32, 32))
    >>> net.explain(np.zeros((48, 64, 3), np.uint8) + 200, target=2, depth="conv").heatmap.shape
    (48, 64)
    """

    def __init__(
        self, nodes, input_shape, classes=None, preprocess=None, *, multilabel=False, n_jobs=None, verbose=False
    ):
        self.nodes = list(nodes)
        self.account: Account | None = None
        self.input_shape = tuple(input_shape)
        self.preprocess = self._preprocess(preprocess)
        self.shapes = self._shapes((self.input_shape[0], *self.preprocess.size))
        self.multilabel_, self.n_jobs, self.verbose = bool(multilabel), n_jobs, verbose
        n_classes = self.shapes[-1][0]
        self.binary = n_classes == 1 and not self.multilabel_
        if self.binary:  # one score for two classes
            n_classes = 2
        self.classes_ = np.arange(n_classes) if classes is None else np.asarray(classes)
        if self.classes_.dtype == object:  # what pandas holds strings in; a model file takes none
            self.classes_ = np.array(self.classes_.tolist())
        if self.classes_.shape != (n_classes,):
            outputs = "two classes, of which the one output is the score" if self.binary else f"{n_classes} outputs"
            raise ValueError(f"classes must name the network's {outputs}, got {self.classes_.size} names")

    def _preprocess(self, preprocess) -> Preprocess:
        channels, height, width = self.input_shape
        if channels not in (1, 3):
            raise ValueError(f"the network must read photographs of 1 or 3 channels, it reads {channels}")
        if preprocess is None:
            size = height or USUAL_SIZE, width or USUAL_SIZE
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
        taken = {"input"}  # the depth of the pixels
        for name in self.layers:
            if not isinstance(name, str) or name in taken:  # a depth would be the first of those of its name
                raise ValueError(f"layers must have names of their own, strings other than 'input', got {name!r}")
            taken.add(name)
        shapes: list[tuple] = []
        for i, node in enumerate(self.nodes):
            if not all(INPUT <= k < i for k in node.inputs):
                raise ValueError(f"layer {node.name!r} must come after those it reads, {node.inputs}")
            try:
                shapes.append(node.layer.out_shape(*(input_shape if k == INPUT else shapes[k] for k in node.inputs)))
            except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:  # the last of a stride of 0
                raise ValueError(f"layer {node.name!r} does not fit what it reads: {error}") from error
        if len(shapes[-1]) != 1:
            raise ValueError(f"the network must end in one score per class, it ends in an array of {shapes[-1]}")
        return shapes

    @classmethod
    def from_onnx(
        cls,
        path: PathLike,
        preprocess: Preprocess | PathLike | None = None,
        classes: Sequence[Any] | PathLike | None = None,
        output: str | None = None,
        **options: Any,
    ) -> Network:
        """A network from an ONNX file of opset 7 or later, of whatever exporter.

        Parameters
        ----------
        path : path
        preprocess : Preprocess or path, optional
            How photographs are prepared, or a JSON file that says so and may name the classes, too: our own, Hugging
            Face's preprocessor_config.json, or a configuration of timm. None: what the JSON file of the same name
            beside the network says, or the file's metadata; where neither says anything, RGB in 0..1 (0..255 for a
            network that scales its input itself) resized to the network's input, with a warning.
        classes : sequence or path, optional
            Names of the classes, or a file that lists them. None: those of the JSON file or the metadata (repeated
            ones numbered), or 0, 1, ...
        output : str, optional
            Which output holds the scores. None: the only one that can.
        **options
            multilabel (None: whether the network ends in a sigmoid), n_jobs, verbose.

        Returns
        -------
        Network
            Its `account` says what became of the file's nodes.

        Raises
        ------
        ImportError
            The package onnx is not installed.
        OSError
            There is no such file.
        ValueError
            It is no ONNX file, or holds an operator that fvlrp cannot explain: the message names it.
        """
        names = read_classes(classes) if isinstance(classes, str | os.PathLike) else classes
        described, named = _described(path) if preprocess is None else _given(preprocess)
        names = named if names is None else names
        size = None if described is None else described.size
        count = None if names is None else len(names)
        read = read_network(path, size or (USUAL_SIZE, USUAL_SIZE), output, count)
        if described is None:
            described, named = _stated(read)
            names = named if names is None else names
        _check_range(os.fspath(path), described, read)
        if options.get("multilabel") is None:
            options["multilabel"] = read.multilabel
        net = cls(read.nodes, read.input_shape, names, described or _assumed(os.fspath(path), read), **options)
        net.account = read.account
        return net

    @classmethod
    def from_caffe(
        cls,
        prototxt: PathLike,
        caffemodel: PathLike,
        preprocess: Preprocess | PathLike | None = None,
        classes: Sequence[Any] | PathLike | None = None,
        **options: Any,
    ) -> Network:
        """A network from Caffe's files, without Caffe.

        Parameters
        ----------
        prototxt : path
            The layers, as the network is deployed or tested.
        caffemodel : path
            The weights.
        preprocess : Preprocess or path, optional
            As for `from_onnx`. None: BGR in 0..255 resized to the network's input, less the mean that the prototxt
            states; where it states none, a warning says so.
        classes : sequence, optional
            Names of the classes; None: those of the JSON file, or 0, 1, ...
        **options
            multilabel (by default whether the scores end in a sigmoid), n_jobs, verbose.

        Raises
        ------
        OSError
            One of the files cannot be read.
        ValueError
            One of them is damaged, they do not belong together, or hold a layer that fvlrp does not know.
        """
        names = read_classes(classes) if isinstance(classes, str | os.PathLike) else classes
        described, named = (None, None) if preprocess is None else _given(preprocess)
        read = caffe.read_network(prototxt, caffemodel)
        if described is None and not read.states_mean:
            warnings.warn(
                f"{os.fspath(prototxt)} does not state the mean that is subtracted from photographs: none is; "
                "pass preprocess=fvlrp.Preprocess(..., order='BGR', high=255, mean=(...)) if the network had one",
                stacklevel=2,
            )
        if options.get("multilabel") is None:
            options["multilabel"] = read.multilabel
        names = named if names is None else names
        return cls(read.nodes, read.input_shape, names, described or read.preprocess, **options)

    @cached_property
    def layout(self) -> Layout:
        """Blocks and tokens of the network: names such as "blocks.6", which are depths too."""
        return Layout.of(self.nodes, self.shapes, (self.input_shape[0], *self.preprocess.size))

    @cached_property
    def coarse_depth(self) -> str:
        """The depth of low resolution, which figures and reports show beside the pixels."""
        return coarse_depth(self)

    @property
    def layers(self) -> list[str]:
        return [node.name for node in self.nodes]

    def get_params(self, deep: bool = True) -> dict:
        return {"n_jobs": self.n_jobs, "verbose": self.verbose}

    def set_params(self, **params) -> Network:
        for name, value in params.items():
            check_choice("parameter", name, ("n_jobs", "verbose"))
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"<Network: {len(self.nodes)} layers, input {self.input_shape}, {len(self.classes_)} classes>"

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
        return [saved.y for saved in self.passed(x)]

    def passed(self, x: np.ndarray) -> list[Saved]:
        """A forward pass of a prepared batch: what it leaves of every node, in their order."""
        x, out = self._checked(x), []
        with blas_threads(self.n_jobs):
            for node in self.nodes:
                _, saved = node.layer.forward(*(x if k == INPUT else out[k].y for k in node.inputs))
                out.append(saved)
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
                    out[i] = node.layer.apply(*inputs)
                else:
                    out[then] = node.layer.apply(*inputs, then=self.nodes[then].layer)
                for k in node.inputs:
                    uses[k] -= 1
                    if not uses[k]:
                        del out[k]
        return out[last]

    def _fused(self, i: int, uses: Counter) -> int | None:
        """The elementwise layer right behind convolution `i`, where it alone reads it."""
        following = self.nodes[i + 1]
        alone = self.nodes[i].kind == "conv" and uses[i] == 1 and following.inputs == (i,)
        return i + 1 if alone and following.layer.elementwise else None

    def prepare(self, image) -> np.ndarray:
        """The network's input for one image, float32 (1, C, H, W)."""
        return self.preprocess.prepare(image)

    def scores(self, image) -> np.ndarray:
        """Scores of one image for every class, float64 (n_classes,): what an explanation of each starts from."""
        return self.per_class(self.forward(self.prepare(image))[0].astype(np.float64))

    def per_class(self, outputs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The score of every class (n_classes,), from the network's outputs (n_outputs,)."""
        return np.concatenate([-outputs, outputs]) if self.binary else outputs

    def decision_function(self, images) -> np.ndarray:
        """Scores float64 (n, n_classes); with two exclusive classes (n,), by how much ``classes_[1]`` is ahead."""
        scores = np.array(self._each(self.scores, images, "image"))
        if self.binary:
            return scores[:, 1]
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
    def menu(self) -> NetworkMenu:
        """Classes, depths and rules that an explanation can be asked for; `menu.check` refuses others up front."""
        return NetworkMenu(self)

    def trace(self, image, dtype="float32") -> NetworkTrace:
        """One forward pass of one image, to explain any number of targets, depths and rules from.

        `dtype` "float32" is fast; "float64" is exact: the ledger closes to 1e-9.
        """
        return NetworkTrace(self, image, dtype)

    # ---- retraining ----

    def retrain(self, images, labels, class_names=None, *, mirror=True, C=None) -> Network:
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
        Network
        """
        images = pictures.batch(images)
        if C is not None and not (is_real(C) and 0 < C < np.inf):
            raise ValueError(f"C must be a positive number or None, got {C!r}")
        signs, classes, multilabel = parse_labels(labels, len(images), class_names)
        last = self._last_learned()
        features = np.array(
            self._each(partial(self._features, last=last, mirror=mirror), images, "retraining on image")
        )
        signs = np.repeat(signs, features.shape[1], axis=0)
        weight, bias = _logistic(features.reshape(len(signs), -1), signs, C, multilabel)
        return Network(
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
    def from_parts(cls, header: dict, arrays: dict[str, np.ndarray]) -> Network:
        """The inverse of `to_parts`."""
        nodes = []
        for i, entry in enumerate(header["nodes"]):
            check_choice("kind of layer", entry["kind"], tuple(KINDS))
            kind = KINDS[entry["kind"]]
            options = {name: tuple(v) if isinstance(v, list) else v for name, v in entry["options"].items()}
            parameters = {f.name: arrays[f"{i}.{f.name}"] for f in fields(kind) if f"{i}.{f.name}" in arrays}
            nodes.append(Node(entry["name"], entry["kind"], kind(**parameters, **options), tuple(entry["inputs"])))
        preprocess = Preprocess.from_dict(header["preprocess"])
        return cls(nodes, header["input_shape"], arrays["classes"], preprocess, multilabel=header["multilabel"])


ConvNet = Network  # its former name


def _given(preprocess: Preprocess | PathLike) -> tuple[Preprocess | None, list[str] | None]:
    """Preprocessing, and the class names that come with it."""
    return (preprocess, None) if isinstance(preprocess, Preprocess) else read_description(preprocess)


def _described(path: PathLike) -> tuple[Preprocess | None, list[str] | None]:
    """What the JSON file beside a network says; nothing where there is none, or it says something else."""
    beside = description_beside(path)
    if beside is None:
        return None, None
    try:
        return read_description(beside)
    except ValueError as error:
        warnings.warn(f"ignored the file beside {os.fspath(path)}: {error}", stacklevel=3)
        return None, None


def _stated(read: Imported) -> tuple[Preprocess | None, list[str] | None]:
    """What a file's metadata say of photographs and classes."""
    _, height, width = read.input_shape
    return of_metadata(read.metadata, (height or USUAL_SIZE, width or USUAL_SIZE))


def _assumed(path: str, read: Imported) -> Preprocess:
    """How photographs are prepared where nothing says so, with a warning."""
    channels, height, width = read.input_shape
    high, order = read.high or 1.0, "grey" if channels == 1 else "RGB"
    preprocess = Preprocess((height or USUAL_SIZE, width or USUAL_SIZE), order=order, high=high)
    why = ", since the network scales its input itself" if high == 255 else ""
    warnings.warn(
        f"{path} does not say how photographs are prepared: assumed {order} in 0..{high:.0f}{why}, resized to "
        f"{preprocess.size[0]} x {preprocess.size[1]}; give preprocess= if that is wrong",
        stacklevel=3,
    )
    return preprocess


def _check_range(path: str, preprocess: Preprocess | None, read: Imported) -> None:
    """Warn where a network scales its input itself, and the preparation does so, too, or gives another range."""
    if preprocess is None or not read.high:
        return
    largest = float(np.max((preprocess.high - np.asarray(preprocess.mean)) / np.asarray(preprocess.std)))
    if read.high == 255 and largest < 10:
        warnings.warn(
            f"{path} scales its input itself as of 0..255, and photographs are prepared to at most {largest:.3g}: "
            "give preprocess=Preprocess(..., high=255) unless that is meant",
            stacklevel=3,
        )
    elif read.high == 1 and largest > 20:
        warnings.warn(
            f"{path} normalises its input itself as of 0..1, and photographs are prepared to up to {largest:.3g}: "
            "give preprocess=Preprocess(..., high=1) unless that is meant",
            stacklevel=3,
        )


def _parameters(layer: NetworkLayer) -> dict[str, np.ndarray]:
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
