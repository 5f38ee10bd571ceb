"""The Fisher-vector image classifier: trained, applied, explained and kept as one file.

Dense multi-scale SIFT -> PCA -> diagonal GMM -> improved Fisher vector over a spatial pyramid -> linear SVM. The
defaults are the set-up of Chatfield et al. (BMVC 2011), which the paper explains.
"""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state

from ..core.classifier import Classifier
from ..data import files
from ..data.images import ImageLike, batch, naming
from ..data.labels import parse_labels
from ..runtime import threads
from ..runtime.arguments import check_choice, is_real, is_whole
from ..runtime.progress import Progress
from . import weights as coefficients
from .flipper import FisherFlipper, Mixture
from .gmm import DiagonalGMM
from .pooling import PYRAMID, Fisher
from .sift import DenseSIFT
from .stack import FisherMenu, FisherStack, FisherTrace, Linear

CODES_IN_MEMORY = 4 << 30  # bytes of training codes beyond which they go to a temporary file


@dataclass(frozen=True)
class Projection:
    """Rows of a PCA basis: y = (x - mean_) components_^T."""

    components_: np.ndarray  # float64 (D, 128), orthonormal rows
    mean_: np.ndarray  # float64 (128,), zero unless the classifier was told to centre


class FisherVectorClassifier(Classifier, ClassifierMixin, BaseEstimator):
    """Image classifier on improved Fisher vectors of dense SIFT, whose decisions can be explained at any depth.

    Images are paths, PIL images or arrays (uint8, uint16, or floats in 0..1), of any sizes.

    After fitting, `bin_sizes`, `step`, `max_height` and `gate` may be changed by `set_params` (fewer descriptors are
    faster, and their mean is nearly the same), and `n_jobs` and `verbose`. Parameters that say what a descriptor is, or
    that the learned arrays have the shape of, may not: the next use refuses. All others count when `fit` is called.

    Parameters
    ----------
    bin_sizes, step, magnif, window, window_size, contrast_threshold, quantize, angles
        Dense SIFT; see `DenseSIFT`.
    max_height : int or None, default 480
        Taller photographs are reduced to this height first; heatmaps still have the photograph's size.
    n_pca : int, default 80
        Dimensions that descriptors are projected to.
    center : bool, default False
        Whether projecting subtracts the mean descriptor. The paper's set-up does not.
    n_components : int, default 256
        Components of the mixture.
    weights, variance_floor, max_iter
        See `DiagonalGMM`.
    gate : float, default 1e-6
        Posteriors below it count as 0, in encoding and in relevance alike.
    pyramid : tuple of (rows, columns), default ((2, 2), (3, 1), (1, 1))
    C : float or "auto", default 5
        Of the SVM; "auto" chooses by cross-validated average precision among the training images.
    mirror : bool, default False
        Train on the mirror images, too.
    n_samples : int, default 1000000
        Descriptors that PCA and mixture are learned from, an equal share of each image's.
    random_state : int, RandomState or None
    n_jobs : int or None
        Threads, as scikit-learn counts. Results do not depend on it.
    verbose : bool
        Progress on stderr.

    Attributes
    ----------
    classes_ : array (n_classes,)
    pca_ : Projection, with components_ float64 (D, 128) and mean_ (128,)
    gmm_ : DiagonalGMM
    coef_ : float32 (n_classes, cells * 2 K D), or (1, ...) for two classes
        Layout: cell, then [u_1..u_K, v_1..v_K], each of length D.
    intercept_ : float64 (n_classes,) or (1,)
    multilabel_ : bool
    C_ : float
    """

    def __init__(
        self,
        *,
        bin_sizes=(4, 6, 8, 10),
        step=3,
        magnif=6.0,
        window="flat",
        window_size=1.5,
        contrast_threshold=0.005,
        quantize=True,
        angles="vlfeat",
        max_height=480,
        n_pca=80,
        center=False,
        n_components=256,
        weights="smoothed",
        variance_floor=0.01,
        max_iter=100,
        gate=1e-6,
        pyramid=PYRAMID,
        C=5.0,
        mirror=False,
        n_samples=1_000_000,
        random_state=None,
        n_jobs=None,
        verbose=False,
    ):
        self.bin_sizes = bin_sizes
        self.step = step
        self.magnif = magnif
        self.window = window
        self.window_size = window_size
        self.contrast_threshold = contrast_threshold
        self.quantize = quantize
        self.angles = angles
        self.max_height = max_height
        self.n_pca = n_pca
        self.center = center
        self.n_components = n_components
        self.weights = weights
        self.variance_floor = variance_floor
        self.max_iter = max_iter
        self.gate = gate
        self.pyramid = pyramid
        self.C = C
        self.mirror = mirror
        self.n_samples = n_samples
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    # ---- training ----

    def fit(self, images, labels, class_names=None):
        """Learn projection, mixture and SVMs from images and labels.

        Parameters
        ----------
        images : sequence of paths, PIL images or arrays
        labels : (n,) or (n, n_classes)
            One label per image, or a matrix of 1 / 0 (difficult, ignored) / -1, or an indicator of 0 / 1.
        class_names : sequence, optional
            Names of the classes (of the sorted labels, or of the matrix's columns).
        """
        images = batch(images)
        signs, classes, multilabel = parse_labels(labels, len(images), class_names)
        self._check()
        # An image that cannot be read, or an interrupt, leaves what an earlier fit has learned as it was.
        learned = copy.copy(self)
        learned.classes_, learned.multilabel_ = classes, multilabel
        learned._learn(images, signs, check_random_state(self.random_state))
        vars(self).update(vars(learned))
        return self

    def _learn(self, images, signs: np.ndarray, random) -> None:
        sift = self._sift()
        sample = self._sample(images, sift, random)
        self.pca_ = self._fit_pca(sample)
        projected = self._project(sample)
        del sample
        self.gmm_ = DiagonalGMM(
            self.n_components,
            weights=self.weights,
            variance_floor=self.variance_floor,
            max_iter=self.max_iter,
            random_state=random.randint(np.iinfo(np.int32).max),
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        ).fit(projected)
        del projected
        # Kept in float32's precision, so that a saved model is the very same model.
        for name in ("weights_", "means_", "covariances_"):
            setattr(self.gmm_, name, getattr(self.gmm_, name).astype(np.float32).astype(np.float64))
        self._stack = FisherStack(sift, self._fisher(), None, self.classes_, self.max_height)
        with tempfile.TemporaryDirectory(prefix="fvlrp-") as folder:
            codes = self._encode(images, folder)
            self._fit_svm(codes, np.concatenate([signs, signs]) if self.mirror else signs, random)
            del codes
        self._adopt()

    def _check(self) -> None:
        if isinstance(self.C, str):
            check_choice("C", self.C, ("auto",))
        elif not (is_real(self.C) and 0 < self.C < np.inf):
            raise ValueError(f"C must be a positive number or 'auto', got {self.C!r}")
        if not (is_whole(self.n_pca) and 1 <= self.n_pca <= 128):
            raise ValueError(f"n_pca must be a whole number in 1..128, got {self.n_pca!r}")
        for name in ("center", "mirror", "quantize"):
            check_choice(name, getattr(self, name), (True, False))
        for name in ("n_components", "n_samples"):
            value = getattr(self, name)
            if not (is_whole(value) and value >= 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not (is_real(self.gate) and 0 <= self.gate < 1 / self.n_components):
            raise ValueError(f"gate must lie in [0, 1 / n_components = {1 / self.n_components:.3g}), got {self.gate!r}")
        levels = list(self.pyramid) if np.iterable(self.pyramid) else []
        if not levels or any(
            np.shape(level) != (2,) or not all(is_whole(n) and n >= 1 for n in level) for level in levels
        ):
            raise ValueError(f"pyramid must list (rows, columns) of each level, got {self.pyramid!r}")
        if self.max_height is not None and not (is_whole(self.max_height) and self.max_height >= 1):
            raise ValueError(f"max_height must be a positive whole number of rows or None, got {self.max_height!r}")

    def _sift(self) -> DenseSIFT:
        names = ("bin_sizes", "step", "magnif", "window", "window_size", "contrast_threshold", "quantize", "angles")
        # In Python's types, as a loaded model has them: a float32 would set the precision of what is computed from it.
        return DenseSIFT(**dict(zip(names, self._values(names), strict=True)))

    def _fisher(self) -> Fisher:
        return Fisher(
            self.pca_.components_,
            self.pca_.mean_,
            self.gmm_.weights_,
            self.gmm_.means_,
            self.gmm_.covariances_,
            self.gate,
            self.pyramid,
        )

    def _sample(self, images, sift: DenseSIFT, random) -> np.ndarray:
        """An equal share of each image's descriptors, (<= n_samples, 128)."""
        share = max(1, self.n_samples // len(images))
        seeds = random.randint(np.iinfo(np.int32).max, size=len(images))
        stack = FisherStack(sift, None, None, (), self.max_height)
        progress = Progress("descriptors of image", len(images), self.verbose)

        def one(i: int, seed: int) -> np.ndarray:
            values = naming(images, i, lambda image: sift.extract_grey(stack.grey(image)).values)
            if len(values) > share:
                chosen = np.random.default_rng(seed).choice(len(values), share, replace=False, shuffle=False)
                values = values[np.sort(chosen)]
            progress.step()
            return values

        return np.concatenate(threads.run([partial(one, *pair) for pair in enumerate(seeds)], self.n_jobs))

    def _fit_pca(self, sample: np.ndarray) -> Projection:
        mean = sample.mean(axis=0, dtype=np.float64)
        covariance = np.zeros((sample.shape[1],) * 2)
        single = mean.astype(np.float32)
        for at in range(0, len(sample), 2048):  # rows whose float products stay in cache, and exact to 1e-6
            block = sample[at : at + 2048] - single
            covariance += block.T @ block
        _, vectors = np.linalg.eigh(covariance)
        components = vectors.T[::-1][: self.n_pca]
        largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
        components = (components * np.sign(largest)).astype(np.float32).astype(np.float64)
        mean = mean.astype(np.float32).astype(np.float64) if self.center else np.zeros_like(mean)
        return Projection(components, mean)

    def _project(self, sample: np.ndarray) -> np.ndarray:
        from .._kernels import Model

        model = Model(self.pca_.components_, self.pca_.mean_, None, None, None)
        out = np.empty((len(sample), self.n_pca), np.float32)

        def block(at: int) -> None:
            out[at : at + 4096] = model.project(sample[at : at + 4096])[:, : self.n_pca]

        threads.run([partial(block, at) for at in range(0, len(sample), 4096)], self.n_jobs)
        return out

    def _encode(self, images, folder: str) -> np.ndarray:
        """Improved Fisher vectors of all images, then of their mirror images: float32 (n, d)."""
        fisher = self._stack.fisher
        n, d = len(images) * (1 + self.mirror), fisher.n_cells * 2 * fisher.means.size
        if n * d * 4 > CODES_IN_MEMORY:
            codes = np.memmap(f"{folder}/codes", np.float32, "w+", shape=(n, d))
        else:
            codes = np.empty((n, d), np.float32)
        progress = Progress("encoded image", n, self.verbose)

        def one(i: int) -> None:
            codes[i] = self._stack.encode(images[i % len(images)], mirror=i >= len(images))
            progress.step()

        threads.run([partial(one, i) for i in range(n)], self.n_jobs)
        return codes

    def _fit_svm(self, codes: np.ndarray, signs: np.ndarray, random) -> None:
        """One-vs-rest SVMs on a Gram matrix made block by block; then their weights, w = sum_i a_i y_i x_i."""
        from sklearn.svm import SVC

        gram = np.zeros((len(codes),) * 2)
        for at in range(0, codes.shape[1], 1 << 12):
            block = codes[:, at : at + (1 << 12)]
            gram += block @ block.T
        columns = [1] if len(self.classes_) == 2 and not self.multilabel_ else range(len(self.classes_))
        self.C_ = (
            float(self.C)
            if self.C != "auto"
            else choose_c(gram, signs[:, list(columns)], random, copies=1 + self.mirror)
        )
        duals = np.zeros((len(columns), len(codes)))
        self.intercept_ = np.zeros(len(columns))
        for row, column in enumerate(columns):
            used = np.flatnonzero(signs[:, column])
            svm = SVC(C=self.C_, kernel="precomputed").fit(gram[np.ix_(used, used)], signs[used, column])
            duals[row, used[svm.support_]] = svm.dual_coef_[0]
            self.intercept_[row] = svm.intercept_[0]
        self.coef_ = np.empty((len(columns), codes.shape[1]), np.float32)
        for at in range(0, codes.shape[1], 1 << 10):  # codes become double: as many as stay in cache
            self.coef_[:, at : at + (1 << 10)] = duals @ codes[:, at : at + (1 << 10)]

    # What applying a model depends on. Where descriptors are taken, and what counts as no posterior, may change after
    # fitting: a Fisher vector is a mean over descriptors. What a descriptor is, and which cell, component and dimension
    # a coefficient belongs to, may not: the scores would be those of no model.
    _FREE = ("bin_sizes", "step", "max_height", "gate")
    _FIXED = (
        *("magnif", "window", "window_size", "contrast_threshold", "quantize", "angles"),
        *("n_pca", "n_components", "pyramid"),
    )

    def _adopt(self) -> None:
        """Put what was just learned or loaded together, and keep the parameters that belong to it."""
        self._learned = self._values(self._FIXED)
        self._link()

    def _link(self) -> None:
        """Put the fitted parts together; called by whatever changes them."""
        for name, learned, now in zip(self._FIXED, self._learned, self._values(self._FIXED), strict=True):
            if now != learned:
                raise ValueError(
                    f"the model was fitted with {name}={learned!r}, and {name} is now {now!r}: "
                    f"set_params({name}={learned!r}) goes back, or fit again"
                )
        linear = Linear(self.coef_, self.intercept_)
        self._stack = FisherStack(self._sift(), self._fisher(), linear, self.classes_, self.max_height)
        self._linked = self._values(self._FREE + self._FIXED)

    def uncenter(self):
        """Move the projection's mean into the mixture's means: the same scores, and relevance without a mean.

        y = P x - P m under means mu is y = P x under means mu + P m. Returns self.
        """
        self._fitted()
        self.gmm_.means_ = self.gmm_.means_ + self.pca_.components_ @ self.pca_.mean_
        self.pca_ = Projection(self.pca_.components_, np.zeros_like(self.pca_.mean_))
        self._link()
        return self

    # ---- applying ----

    def _fitted(self) -> FisherStack:
        if not hasattr(self, "coef_"):
            raise NotFittedError("this FisherVectorClassifier is not fitted; call fit, or load a model with fvlrp.load")
        if self._linked != self._values(self._FREE + self._FIXED):
            self._check()
            self._link()
        return self._stack

    def _values(self, names: tuple[str, ...]) -> list:
        """Present values of parameters; sequences as tuples, which are equal whatever they were given as."""
        return [_frozen(getattr(self, name)) for name in names]

    def decision_function(self, images) -> np.ndarray:
        """Scores float64 (n, n_classes); with two classes (n,), positive for ``classes_[1]``."""
        stack = self._fitted()
        images = batch(images)
        progress = Progress("image", len(images), self.verbose)

        def one(i: int) -> np.ndarray:
            n_jobs = self.n_jobs if len(images) == 1 else None
            scores = naming(images, i, partial(stack.scores, n_jobs=n_jobs))
            progress.step()
            return scores

        scores = np.array(threads.run([partial(one, i) for i in range(len(images))], self.n_jobs))
        return scores[:, 1] if len(self.classes_) == 2 and not self.multilabel_ else scores

    def scores(self, image) -> np.ndarray:
        """Scores of one image for every class, float64 (n_classes,): what an explanation of each starts from."""
        return self._fitted().scores(image)

    @property
    def menu(self) -> FisherMenu:
        """Classes, depths and rules that an explanation can be asked for; `menu.check` refuses others up front."""
        return self._fitted().menu

    def trace(self, image, dtype="float32") -> FisherTrace:
        """One forward pass of one image, to explain any number of targets, depths and rules from.

        `dtype` "float32" is fast; "float64" is exact: everything after SIFT in double, and the ledger closes to 1e-9.
        """
        return FisherTrace(self._fitted(), image, dtype, self.n_jobs)

    def flipper(self, image: ImageLike, target: Any = None) -> FisherFlipper:
        """f of a target (None: the best class) for `image` and copies of it with other pixels in some regions.

        What `evaluate.pixel_flipping` walks with: a step encodes again what sees the changed region alone.
        """
        stack = self._fitted()
        found = self.menu.target(stack.classes[int(np.argmax(stack.scores(image)))] if target is None else target)
        terms, fisher = stack.hyperplanes(found), stack.fisher
        used = np.flatnonzero(terms)
        coef = terms[used] @ self.coef_[used] if len(used) > 1 else terms[used[0]] * self.coef_[used[0]]
        return FisherFlipper(
            image,
            self.max_height,
            stack.sift,
            Mixture(
                *(fisher.components, fisher.mean, fisher.weights, fisher.means, fisher.covariances),
                *(fisher.gate, fisher.pyramid),
            ),
            lambda sums: stack.normalise.forward(sums)[0],
            coef,
            float(terms @ self.intercept_),
        )

    # ---- files ----

    def describe(self) -> dict:
        """What the model holds, ready for JSON."""
        self._fitted()
        return {
            "kind": "Fisher-vector classifier",
            "classes": [str(name) for name in self.classes_],
            "multilabel": bool(self.multilabel_),
            "dimensions": int(self.coef_.shape[1]),
            "C": self.C_,
            "parameters": self._lasting(),
        }

    def _lasting(self) -> dict:
        """Parameters that belong to the model, not to one use of it, in the types that JSON holds."""
        values = {k: _frozen(v) for k, v in self.get_params().items() if k not in ("n_jobs", "verbose", "random_state")}
        return {**values, "bin_sizes": self._sift().bin_sizes}  # one number stands for a sequence of one

    def save(self, path, weights: str = "float32") -> None:
        """Write the model to `path`, exactly that name, atomically and byte for byte reproducible.

        Parameters
        ----------
        path : str or path
        weights : {"float32", "int8", "int4"}
            How coef_ is stored; integers with one scale for each run of D values. PCA and mixture are float32.
        """
        header, arrays = self.to_parts(weights)
        files.save_arrays(path, {"kind": files.FISHER, **header}, arrays, compress=weights != "float32")

    def to_parts(self, weights: str = "float32") -> tuple[dict, dict[str, np.ndarray]]:
        """What a file holds: a header ready for JSON, and arrays by name; `weights` as in `save`."""
        check_choice("weights", weights, tuple(coefficients.WEIGHTS))
        self._fitted()  # refuses parameters that what was learned does not have
        header = {
            "parameters": self._lasting(),
            "random_state": int(self.random_state) if is_whole(self.random_state) else None,
            "weights": weights,
            "multilabel": bool(self.multilabel_),
            "C": self.C_,
        }
        arrays = {
            "classes": np.asarray(self.classes_),
            "pca_components": self.pca_.components_.astype(np.float32),
            "pca_mean": self.pca_.mean_.astype(np.float32),
            "gmm_weights": self.gmm_.weights_,
            "gmm_means": self.gmm_.means_,
            "gmm_covariances": self.gmm_.covariances_,
            "intercept": self.intercept_,
        }
        for name in ("gmm_weights", "gmm_means", "gmm_covariances"):
            if np.array_equal(arrays[name], arrays[name].astype(np.float32)):
                arrays[name] = arrays[name].astype(np.float32)
        return header, arrays | coefficients.stored(self.coef_, weights, self.gmm_.means_.shape[1])

    @classmethod
    def from_parts(cls, header: dict, arrays: dict[str, np.ndarray]) -> FisherVectorClassifier:
        """The inverse of `to_parts`; KeyError, TypeError or ValueError where the parts do not fit together."""
        parameters = dict(header["parameters"])
        for name in ("bin_sizes", "pyramid"):
            parameters[name] = tuple(tuple(v) if isinstance(v, list) else v for v in parameters[name])
        clf = cls(**parameters, random_state=header["random_state"])
        clf._check()
        clf.classes_, clf.multilabel_, clf.C_ = arrays["classes"], bool(header["multilabel"]), float(header["C"])
        components, mean = (arrays[f"pca_{name}"].astype(np.float64) for name in ("components", "mean"))
        clf.pca_ = Projection(components, mean)
        gmm = DiagonalGMM(clf.n_components, weights=clf.weights, variance_floor=clf.variance_floor)
        for name in ("weights", "means", "covariances"):
            setattr(gmm, f"{name}_", arrays[f"gmm_{name}"].astype(np.float64))
        gmm.n_features_in_ = clf.n_pca
        clf.gmm_ = gmm
        shapes = [components.shape, mean.shape, gmm.weights_.shape, gmm.means_.shape, gmm.covariances_.shape]
        K, D = clf.n_components, clf.n_pca
        if shapes != [(D, 128), (128,), (K,), (K, D), (K, D)]:
            raise ValueError("its arrays do not have the shapes of its parameters")
        clf.intercept_ = arrays["intercept"]
        rows = 1 if len(clf.classes_) == 2 and not clf.multilabel_ else len(clf.classes_)
        if clf.classes_.ndim != 1 or clf.intercept_.shape != (rows,):
            raise ValueError("its intercepts are not those of its classes")
        cells = sum(rows * cols for rows, cols in clf.pyramid)
        shape = (len(clf.intercept_), cells * 2 * K * D)
        clf.coef_ = coefficients.restored(arrays, header["weights"], shape, D)
        clf._adopt()
        return clf


def _frozen(value):
    if isinstance(value, np.generic):
        return value.item()
    return tuple(map(_frozen, value)) if np.iterable(value) and not isinstance(value, str) else value


def choose_c(gram: np.ndarray, signs: np.ndarray, random, copies: int = 1, folds: int = 5) -> float:
    """The C of 1.6, 1.8, ..., 7.8 with the best mean average precision in cross-validation on the Gram matrix.

    Rows are `copies` runs of the same images; all copies of an image lie in one fold.
    """
    from sklearn.svm import SVC

    from ..evaluate import average_precision

    fold = np.tile(random.permutation(len(gram) // copies) % folds, copies)
    candidates = np.arange(1.6, 7.9, 0.2)
    precision = np.zeros(len(candidates))
    for i, c in enumerate(candidates):
        scores = np.zeros(signs.shape)
        for f in range(folds):
            out = np.flatnonzero(fold == f)
            if not len(out):  # fewer images than folds
                continue
            for column in range(signs.shape[1]):
                used = np.flatnonzero((fold != f) & (signs[:, column] != 0))
                if len(np.unique(signs[used, column])) < 2:
                    continue
                svm = SVC(C=c, kernel="precomputed").fit(gram[np.ix_(used, used)], signs[used, column])
                scores[out, column] = svm.decision_function(gram[np.ix_(out, used)])
        precision[i] = np.nanmean(average_precision(signs, scores))
    return float(round(candidates[precision.argmax()], 1))
