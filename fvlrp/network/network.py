"""The class Network: an image classifier made of layers that is applied, explained, retrained and saved.

For users (as `fvlrp.Network`), `fvlrp.models` and the command line. Needs no deep-learning framework. Each verb is
carried out by a module of its own: `importing` (files of other programs), `forward`, `trace` (explanations),
`retraining` and `storage` (our own files).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import cached_property, partial
from typing import TypedDict, TypeVar, Unpack

import numpy as np
import numpy.typing as npt

from ..core.classifier import Classifier
from ..core.layer import Array
from ..core.target import Label
from ..data import files
from ..data import images as pictures
from ..data.images import ImageLike, Images
from ..data.labels import parse_labels, weights_of
from ..runtime import threads
from ..runtime.arguments import check_choice, is_real
from ..runtime.caller import stack_level
from ..runtime.progress import Progress
from ..runtime.threads import blas_threads
from ..runtime.types import Classes, Json, Parsed, Values
from . import forward
from .description import PathLike
from .graph import Node, first_layers, output_shapes
from .importing import Opened, open_caffe, open_onnx
from .layers import Saved
from .onnx import Account
from .preprocess import BANDS, Preprocess
from .retraining import classifier, features, logistic, with_head
from .storage import arrays_of, check_weights, entries_of, nodes_of
from .tokens import Layout
from .trace import NetworkMenu, NetworkTrace, attends, coarse_depth

T = TypeVar("T")
FAR = 10  # widths of the range of photographs beyond which a batch is said to be scaled in another way


class Options(TypedDict, total=False):
    """How a network that is read from a file behaves."""

    multilabel: bool | None
    n_jobs: int | None
    verbose: bool


class Network(Classifier):
    """A neural network that classifies images and explains its scores down to any layer, or to the pixels.

    Create one by `from_onnx`, `from_caffe`, `fvlrp.load` or `retrain`. Images are paths, PIL images or arrays (uint8,
    uint16, or floats in 0..1), of any sizes.

    Parameters
    ----------
    nodes : sequence of Node
        In topological order. The output of the last node has one score per class.
    input_shape : (C, H, W)
        H and W may be None, if the network accepts any size.
    classes : sequence, optional
        Names or values of the classes; None: 0, 1, ...
    preprocess : Preprocess, optional
        None: RGB (or grey, for one channel) in 0..1, resized to the network's input.
    multilabel : bool
        Whether an image can have several classes: those with positive scores.
    n_jobs : int or None
        Threads, as in scikit-learn.
    verbose : bool
        Whether to show progress on stderr.

    Attributes
    ----------
    nodes : list of Node
    layers : list of str
        Names of the nodes: the valid depths of an explanation, beside "input".
    classes_ : array (n_classes,)
    file : str
        Where the network was read from, for messages; "" if it was not.
    account : Account or None
        How the nodes of the ONNX file were converted; None if the network was not read from one.
    binary : bool
        Whether the network has a single score f for two classes: f for ``classes_[1]``, -f for ``classes_[0]``.

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
        self,
        nodes: Iterable[Node],
        input_shape: Sequence[int | None],
        classes: npt.ArrayLike | None = None,
        preprocess: Preprocess | None = None,
        *,
        multilabel: bool = False,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.nodes = list(nodes)
        self.account: Account | None = None
        self.file = ""
        self._warned_of_range = False
        channels, height, width = input_shape
        if channels is None:
            raise ValueError("input_shape must state the number of channels; only height and width may be None")
        self.input_shape = channels, height, width
        self.preprocess = _checked(preprocess, self.input_shape)
        self.shapes = output_shapes(self.nodes, (channels, *self.preprocess.size))
        check_weights(self.nodes)
        if len(self.shapes[-1]) != 1:
            raise ValueError(
                f"the network must end in one score per class, it ends in an array of shape {self.shapes[-1]}"
            )
        self.multilabel_, self.n_jobs, self.verbose = bool(multilabel), n_jobs, verbose
        n_outputs = self.shapes[-1][0]
        self.binary = n_outputs == 1 and not self.multilabel_
        self.classes_ = _class_array(classes, n_outputs, self.binary)

    @classmethod
    def from_onnx(
        cls,
        path: PathLike,
        preprocess: Preprocess | PathLike | None = None,
        classes: Sequence[Label] | PathLike | None = None,
        output: str | None = None,
        **options: Unpack[Options],
    ) -> Network:
        """Read a network from an ONNX file (opset 7 or later).

        Parameters
        ----------
        path : path
        preprocess : Preprocess or path, optional
            How photographs are prepared, or a JSON file that describes it and may also name the classes: our own
            format, Hugging Face's preprocessor_config.json, or a timm configuration. None: the JSON file of the same
            name beside the network, or else the metadata of the ONNX file. If neither describes it, RGB in 0..1
            (0..255 for a network that scales its input itself) resized to the network's input, with a warning.
        classes : sequence or path, optional
            Names of the classes, or a file that lists them. None: those of the JSON file or the metadata (numbered if
            they repeat), or else 0, 1, ...
        output : str, optional
            The output that holds the scores, or any tensor inside the graph. None: the only output that can.
        **options
            multilabel (default: whether the network ends in a sigmoid), n_jobs, verbose.

        Returns
        -------
        Network
            Its `account` lists how the nodes of the file were converted.

        Raises
        ------
        ImportError
            The package onnx is not installed.
        OSError
            The file cannot be read.
        ValueError
            The file is not ONNX, or has an operator that fvlrp does not support; the message names it.
        """
        opened = open_onnx(path, preprocess, classes, output)
        try:
            return cls._of(opened, options, path)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error

    @classmethod
    def from_caffe(
        cls,
        prototxt: PathLike,
        caffemodel: PathLike,
        preprocess: Preprocess | PathLike | None = None,
        classes: Sequence[Label] | PathLike | None = None,
        **options: Unpack[Options],
    ) -> Network:
        """Read a network from Caffe's files; Caffe is not needed.

        Parameters
        ----------
        prototxt : path
            The layers, for deployment or testing.
        caffemodel : path
            The weights.
        preprocess : Preprocess or path, optional
            As for `from_onnx`. None: BGR in 0..255 resized to the network's input, minus the mean that the prototxt
            states; if it states none, a warning is issued.
        classes : sequence, optional
            Names of the classes; None: those of the JSON file, or 0, 1, ...
        **options
            multilabel (default: whether the network ends in a sigmoid), n_jobs, verbose.

        Raises
        ------
        OSError
            One of the files cannot be read.
        ValueError
            A file is damaged, the files do not belong together, or a layer is not supported.
        """
        opened = open_caffe(prototxt, caffemodel, preprocess, classes)
        try:
            return cls._of(opened, options, prototxt)
        except ValueError as error:
            raise ValueError(f"{os.fspath(prototxt)}: {error}") from error

    @classmethod
    def _of(cls, opened: Opened, options: Options, path: PathLike) -> Network:
        own = options.get("multilabel")
        net = cls(
            opened.nodes,
            opened.input_shape,
            opened.classes,
            opened.preprocess,
            multilabel=opened.multilabel if own is None else own,
            n_jobs=options.get("n_jobs"),
            verbose=options.get("verbose", False),
        )
        net.account, net.file = opened.account, os.fspath(path)
        return net

    @cached_property
    def layout(self) -> Layout:
        """Blocks and tokens of the network: names such as "blocks.6", which are depths too."""
        return Layout.of(self.nodes, self.shapes, (self.input_shape[0], *self.preprocess.size))

    @cached_property
    def coarse_depth(self) -> str:
        """The low-resolution depth that figures and reports show beside the pixels."""
        return coarse_depth(self)

    @property
    def layers(self) -> list[str]:
        return [node.name for node in self.nodes]

    def get_params(self, deep: bool = True) -> dict[str, int | None]:
        return {"n_jobs": self.n_jobs, "verbose": self.verbose}

    def set_params(self, **params: int | None) -> Network:
        for name, value in params.items():
            check_choice("parameter", name, ("n_jobs", "verbose"))
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"<Network: {len(self.nodes)} layers, input {self.input_shape}, {len(self.classes_)} classes>"

    # ---- applying ----

    def forward(self, x: npt.ArrayLike) -> Array:
        """Scores before any softmax, (n, n_classes), of a prepared batch.

        Parameters
        ----------
        x : float32 or float64 (n, C, H, W)
            The computation runs in the same dtype; other numbers are converted to float32.

        Raises
        ------
        ValueError
            The batch is empty, has another shape, or holds values that are not finite numbers.

        Warns
        -----
        UserWarning
            Values lie far outside what `prepare` makes; once for a network.
        """
        return self._output(self._batch(x), len(self.nodes) - 1)

    def activations(self, x: npt.ArrayLike) -> list[Array]:
        """Outputs of all nodes, in order, for a prepared batch."""
        return [saved.y for saved in self.passed(x)]

    def passed(self, x: npt.ArrayLike) -> list[Saved]:
        """What every node saves in a forward pass of a prepared batch, in the order of the nodes."""
        with blas_threads(self.n_jobs):
            return forward.passed(self.nodes, self._batch(x))

    def _output(self, x: Array, last: int) -> Array:
        with blas_threads(self.n_jobs):
            return forward.output(self.nodes, x, last)

    def _batch(self, x: npt.ArrayLike) -> Array:
        """A prepared batch as contiguous float32 or float64, or a ValueError that says what is wrong with it."""
        x = np.asarray(x)
        if (
            x.ndim != 4
            or not x.size
            or any(own not in (None, given) for own, given in zip(self.input_shape, x.shape[1:], strict=True))
        ):
            wanted = ", ".join("any" if length is None else str(length) for length in self.input_shape)
            raise ValueError(
                f"x has shape {x.shape}; expected (n, {wanted}), n at least 1: net.prepare(image) makes one"
            )
        if x.dtype.kind not in "biuf":
            raise ValueError(
                f"x has dtype {x.dtype}; expected float32 or float64: net.prepare(image) makes such a batch"
            )
        x = np.ascontiguousarray(x) if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
        if not (finite := np.isfinite(x)).all():
            place = tuple(int(i) for i in np.argwhere(~finite)[0])
            raise ValueError(
                f"x holds {x[place]} at {place}; expected finite numbers: check how the batch was scaled, "
                "or let net.prepare(image) make it"
            )
        if not self._warned_of_range:
            self._warn_of_range(x)
        return x

    def _warn_of_range(self, x: Array) -> None:
        """Warn once of a batch that was not scaled as photographs are, such as one of uint8 values."""
        if self.preprocess.order == BANDS:  # arrays may have any range
            return
        low, high = self.preprocess.span()
        margin = FAR * (high - low)
        least, largest = float(x.min()), float(x.max())
        if low - margin <= least and largest <= high + margin:
            return
        self._warned_of_range = True
        warnings.warn(
            f"x holds values in {least:.4g}..{largest:.4g}; photographs are prepared to {low:.3g}..{high:.3g}: check "
            "how the batch was scaled, or let net.prepare(image) make it",
            stacklevel=stack_level(),
        )

    def prepare(self, image: ImageLike) -> npt.NDArray[np.float32]:
        """The network's input for one image, float32 (1, C, H, W)."""
        return self.preprocess.prepare(image)

    def scores(self, image: ImageLike) -> npt.NDArray[np.float64]:
        """Scores of one image, float64 (n_classes,): the relevance from which explanations start.

        Raises
        ------
        ValueError
            The scores are not finite.
        """
        return self.per_class(self.forward(self.prepare(image))[0].astype(np.float64), image)

    def per_class(self, outputs: npt.NDArray[np.float64], image: ImageLike) -> npt.NDArray[np.float64]:
        """The score of every class (n_classes,), from the network's outputs (n_outputs,) for an image.

        ValueError, with the names of both files, if they are not finite.
        """
        if not np.isfinite(outputs).all():
            photograph = str(image) if isinstance(image, str | os.PathLike | pictures.Photograph) else ""
            names = "".join(f"{name}: " for name in (self.file, photograph) if name)
            raise ValueError(
                f"{names}the network's scores of the image are not finite ({outputs[~np.isfinite(outputs)][0]}): its "
                f"arithmetic overflows; check its weights, and that preprocess scales photographs as it expects"
            )
        return np.concatenate([-outputs, outputs]) if self.binary else outputs

    def decision_function(self, images: Images) -> npt.NDArray[np.float64]:
        """Scores float64 (n, n_classes); with two exclusive classes (n,), score of ``classes_[1]`` minus the other."""
        images = pictures.batch(images)
        with blas_threads(self.n_jobs if len(images) == 1 else None):
            scores = self._scores_of(images, self.verbose)
        if self.binary:
            return scores[:, 1]
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 and not self.multilabel_ else scores

    def predict_proba(self, images: Sequence[ImageLike]) -> npt.NDArray[np.float64]:
        """Probabilities float64 (n, n_classes): the softmax of the scores, or their sigmoid.

        The sigmoid is taken where the network has a single score, or several classes an image; it does not matter
        whether the file ended in either. Networks of `retrain` learn each class against the rest: their softmax ranks
        classes, but is not calibrated.
        """
        images = pictures.batch(images)
        with blas_threads(self.n_jobs if len(images) == 1 else None):
            scores = self._scores_of(images, self.verbose)
        # A single score f comes as -f and f, whose sigmoids sum to 1.
        return _sigmoid(scores) if self.binary or self.multilabel_ else _softmax(scores)

    def _each(self, function: Callable[[ImageLike], T], images: Sequence[ImageLike], what: str) -> list[T]:
        images = pictures.batch(images)
        progress = Progress(what, len(images), self.verbose)

        def one(i: int) -> T:
            result = pictures.naming(images, i, function)
            progress.step()
            return result

        with blas_threads(self.n_jobs if len(images) == 1 else None):
            return threads.run([partial(one, i) for i in range(len(images))], self.n_jobs)

    # ---- explaining ----

    @property
    def menu(self) -> NetworkMenu:
        """The valid targets, depths and rules; `menu.check` rejects others before any computation."""
        return NetworkMenu(self)

    def trace(self, image: ImageLike, dtype: npt.DTypeLike = "float32") -> NetworkTrace:
        """One forward pass of one image, which can explain any number of targets, depths and rules.

        `dtype` "float32" is fast, "float64" exact: the ledger closes to 1e-9.
        """
        return NetworkTrace(self, image, dtype)

    # ---- retraining ----

    def retrain(
        self,
        images: Images,
        labels: npt.ArrayLike,
        class_names: Sequence[object] | None = None,
        *,
        mirror: bool = True,
        C: float | None = None,
        class_weight: Mapping[object, float] | str | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> Network:
        """A new network for other classes: the last layer is learned from photographs, all other layers are kept.

        The features are the inputs of the layer that computes the scores, averaged over pixels if that layer is a
        convolution. A network that ends in features (a class token, a pooled map) keeps all its layers, and a dense
        layer is added.

        Each class gets a logistic regression against the rest on standardised features. Their weights are folded into
        an ordinary layer: a dense layer, or a 1 x 1 convolution followed by global average pooling, so that evidence
        keeps its position. The new layer is the last one; scores can be negative.

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
            Inverse strength of the L2 penalty on the weights of standardised features, relative to the sum of losses.
            None: 10 / number of training rows, so that the balance does not depend on their number.
        class_weight : dict of class to float, "balanced" or None
            Weights of the classes; "balanced" gives a class and the rest the same weight in sum.
        sample_weight : (n,), optional
            Weights of the images.

        Returns
        -------
        Network
        """
        several = pictures.batch(images)
        if C is not None and not (is_real(C) and 0 < C < np.inf):
            raise ValueError(f"C must be a positive number or None, got {C!r}")
        signs, classes, multilabel = parse_labels(labels, len(several), class_names)
        weights = weights_of(signs, classes, not multilabel, class_weight, sample_weight)
        last = classifier(self.nodes)

        def read(image: ImageLike) -> npt.NDArray[np.float64]:
            x = self.prepare(image)
            return features(self.nodes, np.concatenate([x, x[..., ::-1]]) if mirror else x, last)

        rows = np.concatenate(self._each(read, several, "retraining on image"))
        copies = len(rows) // len(signs)
        signs, weights = np.repeat(signs, copies, axis=0), np.repeat(weights, copies, axis=0)
        weight, bias = logistic(rows, signs, weights, C, multilabel)
        return Network(
            with_head(self.nodes, last, weight, bias),
            self.input_shape,
            classes,
            self.preprocess,
            multilabel=multilabel,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )

    # ---- files ----

    def _kind(self) -> str:
        """What the network is, by its layers."""
        if attends(self.nodes):
            return "transformer"
        convolves = any("conv" in node.kind for node in self.nodes)
        return "convolutional network" if convolves else "dense network"

    def _normalises(self) -> bool:
        """Whether the network scales or shifts the pixels before any layer with weights."""
        return any(self.nodes[i].kind in ("affine", "scale", "constant") for i in first_layers(self.nodes))

    def describe(self) -> dict[str, Json]:
        """A summary of the model as plain values for JSON."""
        return {
            "kind": self._kind(),
            "classes": [str(name) for name in self.classes_],
            "multilabel": self.multilabel_,
            "input_shape": list(self.input_shape),
            "preprocess": self.preprocess.to_dict(),
            "normalises its input": self._normalises(),
            "parameters": sum(value.size for value in arrays_of(self.nodes).values()),
            "layers": [
                {"name": node.name, "kind": node.kind, "shape": list(shape)}
                for node, shape in zip(self.nodes, self.shapes, strict=True)
            ],
        }

    def save(self, path: PathLike) -> None:
        """Write the network to `path` (exactly that name), atomically and reproducibly to the byte."""
        header, arrays = self.to_parts()
        files.save_arrays(path, {"kind": files.CONVNET, **header}, arrays)

    def to_parts(self) -> tuple[dict[str, Json], dict[str, Values]]:
        """The parts of a model file: a header of plain values for JSON, and arrays by name."""
        header: dict[str, Json] = {
            "input_shape": list(self.input_shape),
            "preprocess": self.preprocess.to_dict(),
            "multilabel": self.multilabel_,
            "nodes": entries_of(self.nodes),
        }
        return header, {"classes": self.classes_, **arrays_of(self.nodes)}

    @classmethod
    def from_parts(cls, header: Mapping[str, Parsed], arrays: Mapping[str, Values]) -> Network:
        """The inverse of `to_parts`."""
        nodes, preprocess = nodes_of(header["nodes"], arrays), Preprocess.from_dict(header["preprocess"])
        return cls(nodes, header["input_shape"], arrays["classes"], preprocess, multilabel=header["multilabel"])


ConvNet = Network  # its former name


def _checked(preprocess: Preprocess | None, input_shape: tuple[int, int | None, int | None]) -> Preprocess:
    """Preprocessing that fits the network's input; None is RGB or grey in 0..1."""
    channels, height, width = input_shape
    if preprocess is None:
        return Preprocess.usual(channels, (height, width))
    if preprocess.channels != channels:
        raise ValueError(f"preprocess makes {preprocess.channels} channels, the network reads {channels}")
    if any(own not in (None, made) for own, made in zip((height, width), preprocess.size, strict=True)):
        raise ValueError(f"preprocess makes {preprocess.size} pixels, the network reads {(height, width)}")
    return preprocess


def _class_array(classes: object, n_outputs: int, binary: bool) -> Classes:
    """The classes, one for each output; two for the one output of a binary network."""
    n_classes = 2 if binary else n_outputs
    if isinstance(classes, Set | Mapping):
        kind = type(classes).__name__
        raise ValueError(f"classes must be a sequence of names in the order of the outputs, got a {kind}")
    listed = list(classes) if isinstance(classes, list | tuple) else []
    numbers = [name for name in listed if not isinstance(name, str)]
    if 0 < len(numbers) < len(listed):  # NumPy would make names of all
        raise ValueError(f"classes must be all names or all numbers, got {numbers[0]!r} among names")
    found = np.arange(n_classes) if classes is None else np.asarray(classes)
    if found.dtype == object:  # as pandas holds strings; model files hold no objects
        found = np.array(found.tolist())
    if found.dtype.kind not in "biufU" or (found.dtype.kind == "f" and not np.isfinite(found).all()):
        raise ValueError(f"classes must be names or finite numbers, got {found.tolist()[:5]}")
    if found.shape != (n_classes,):
        if binary:
            raise ValueError(
                "classes must give two names for a network with one output, the second is the class that the output "
                f"stands for; got {found.size}: {found.ravel()[:5].tolist()}"
            )
        raise ValueError(f"classes must name the network's {n_outputs} outputs, got {found.size} names")
    return found


def _sigmoid(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 / (1 + exp(-scores)), without overflow."""
    return np.asarray((1 + np.tanh(scores / 2)) / 2)


def _softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """exp(scores) over their sum in each row, without overflow."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
