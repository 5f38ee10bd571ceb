"""The class FisherVectorClassifier: trained, applied, explained and saved.

Dense multi-scale SIFT -> PCA -> diagonal GMM -> improved Fisher vector over a spatial pyramid -> linear SVM. The
defaults follow Chatfield et al. (BMVC 2011), as in the paper. Hides how it is trained, and which parameters may change
afterwards. For `fvlrp.models` and the command line; public as `fvlrp.FisherVectorClassifier`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from ..core.classifier import Classifier
from ..core.estimator import Estimator, Parameter, check_fitted
from ..core.target import One
from ..data import files
from ..data.images import ImageLike, Images, batch, reduced
from ..data.labels import parse_labels, weights_of
from ..runtime.arguments import check_choice, is_real, is_whole
from ..runtime.types import Doubles, Json, Parsed, Singles, Untyped, Values
from . import importing, parts, training
from .encoder import PYRAMID
from .flipper import FisherFlipper, Mixture
from .geometry import Geometry, Pyramid, cell_count
from .gmm import GATE, DiagonalGMM
from .layers import NORMALISATIONS, Encode, Fisher, Linear, Normalise, Project, SpatialBins
from .parts import Projection
from .sift import WHOLE, DenseSIFT, read_grey
from .trace import FisherMenu, FisherModel, FisherTrace
from .walk import FisherStack


class FisherVectorClassifier(Classifier, Estimator):
    """Image classifier on improved Fisher vectors of dense SIFT; explains its scores at any depth.

    Images are paths, PIL images or arrays (uint8, uint16, or floats in 0..1), of any sizes.

    After fitting, `set_params` may change `n_jobs`, `verbose`, and also `bin_sizes`, `step`, `max_height` and `gate`
    (fewer descriptors are faster, and their mean is nearly the same). Changing a parameter that defines descriptors or
    the shapes of learned arrays raises an error at the next use. All other parameters only affect `fit`.

    Parameters
    ----------
    bin_sizes, step, magnif, window, window_size, contrast_threshold, quantize, angles
        Dense SIFT; see `DenseSIFT`.
    max_height : int or None, default 480
        Taller photographs are first reduced to this height; heatmaps still have the photograph's size.
    n_pca : int, default 80
        Dimensions of projected descriptors.
    center : bool, default False
        Whether the projection subtracts the mean descriptor. The paper does not.
    n_components : int, default 256
        Components of the mixture.
    weights, variance_floor, max_iter
        See `DiagonalGMM`.
    gate : float, default 1e-6
        Posteriors below it count as 0, in encoding and in relevance.
    pyramid : tuple of (rows, columns), default ((2, 2), (3, 1), (1, 1))
    normalisation : {"intra", "improved"}
        Of the Fisher vector. "intra": signed square root, L2 norm per cell and component over both orders, one L2 norm
        over all. "improved", as in the paper: L2 norm per cell, signed square root, one L2 norm over all.
    C : float or "auto", default 5
        Of the SVM; "auto" cross-validates average precision on the training images.
    class_weight : dict of class to float, "balanced" or None
        Weights of the classes in the SVMs; "balanced" gives a class and the rest the same weight in sum.
    mirror : bool, default False
        Whether to train on mirror images, too.
    n_samples : int, default 1000000
        Number of descriptors from which PCA and mixture are learned: an equal share from each image.
    random_state : int, RandomState or None
    n_jobs : int or None
        Threads, as in scikit-learn. Results do not depend on it.
    memory : str, joblib.Memory or None
        Folder in which `fit` keeps projection, mixture and codes, as scikit-learn's Pipeline keeps its transformers:
        fits that differ in `C` alone then solve the SVMs alone. Images given as paths are known by their names, sizes
        and times of change.
    verbose : bool
        Whether to show progress on stderr.

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

    Examples
    --------
    >>> from skimage import data
    >>> textures = {"brick": data.brick(), "grass": data.grass()}
    >>> images = [texture[y : y + 64, :64] for texture in textures.values() for y in range(0, 448, 64)]
    >>> clf = fvlrp.FisherVectorClassifier(n_components=4, bin_sizes=(4,), step=6, random_state=0)
    >>> clf.fit(images, np.repeat(list(textures), 7)).classes_
    array(['brick', 'grass'], dtype='<U5')
    >>> clf.explain(data.grass()[:100, 100:200], "grass").heatmap.shape
    (100, 100)
    """

    _mixins = ("ClassifierMixin",)
    _by_place = ("images", "labels", "class_names")

    def __init__(
        self,
        *,
        bin_sizes: Sequence[int] | int = (4, 6, 8, 10),
        step: int = 3,
        magnif: float = 6.0,
        window: str = "flat",
        window_size: float = 1.5,
        contrast_threshold: float = 0.005,
        quantize: bool = True,
        angles: str = "vlfeat",
        max_height: int | None = 480,
        n_pca: int = 80,
        center: bool = False,
        n_components: int = 256,
        weights: str = "smoothed",
        variance_floor: float = 0.01,
        max_iter: int = 100,
        gate: float = 1e-6,
        pyramid: Pyramid = PYRAMID,
        normalisation: str = "intra",
        C: float | str = 5.0,
        class_weight: Mapping[object, float] | str | None = None,
        mirror: bool = False,
        n_samples: int = 1_000_000,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        memory: Untyped = None,
        verbose: bool = False,
    ) -> None:
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
        self.normalisation = normalisation
        self.C = C
        self.class_weight = class_weight
        self.mirror = mirror
        self.n_samples = n_samples
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory = memory
        self.verbose = verbose

    def __sklearn_tags__(self) -> Untyped:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.input_tags.two_d_array = False  # images, of any sizes
        return tags

    # ---- training ----

    def fit(
        self,
        images: Images,
        labels: npt.ArrayLike,
        class_names: Sequence[object] | None = None,
        *,
        sample_weight: npt.ArrayLike | None = None,
    ) -> FisherVectorClassifier:
        """Learn projection, mixture and SVMs from images and labels.

        Parameters
        ----------
        images : sequence of paths, PIL images or arrays
        labels : (n,) or (n, n_classes)
            One label per image, or a matrix of 1 / 0 (difficult, ignored) / -1, or an indicator of 0 / 1.
        class_names : sequence, optional
            Names of the sorted labels, or of the matrix's columns. They never swap labels.
        sample_weight : (n,), optional
            Weights of the images in the SVMs; projection and mixture are learned from all alike.

        Raises
        ------
        ValueError
            A parameter out of range, labels that cannot be learned, or an image that is too small; the message names
            it.
        OSError
            An image that cannot be read, or no space for the codes of many images.
        """
        from sklearn.utils import check_random_state

        several = batch(images)
        signs, classes, multilabel = parse_labels(labels, len(several), class_names)
        self._check()
        weights = weights_of(signs, classes, not multilabel, self.class_weight, sample_weight)
        # An image that cannot be read, or an interrupt, leaves what an earlier fit has learned as it was.
        learned = copy.copy(self)
        learned.classes_, learned.multilabel_ = classes, multilabel
        learned._learn(several, signs, weights, check_random_state(self.random_state))
        self.__dict__.update(learned.__dict__)
        return self

    def _learn(
        self,
        images: Sequence[ImageLike],
        signs: npt.NDArray[np.int8],
        weights: Doubles,
        random: np.random.RandomState,
    ) -> None:
        columns = slice(1, None) if self._mirrored else slice(None)
        copies = 1 + self.mirror
        dimensions = cell_count(self.pyramid) * 2 * self.n_components * self.n_pca
        with training.room_for_codes(copies * len(images), dimensions) as room:
            prepare = _prepared if self.memory is None else training.remembered(_prepared, self.memory)
            parameters = {
                name: value for name, value in self.get_params(deep=False).items() if name not in _NOT_LEARNED_FROM
            }
            self.pca_, self.gmm_, codes, state = prepare(
                parameters, images, training.stamps(images), self.random_state, random, self._how(), room
            )
            if self.random_state is not None:  # None is NumPy's global generator, which need not be restored
                random.set_state(state)
            self.coef_, self.intercept_, self.C_ = training.fit_svms(
                codes,
                np.tile(signs[:, columns], (copies, 1)),
                np.tile(weights[:, columns], (copies, 1)),
                self.C,
                random,
                copies,
            )
        self._adopt()

    def pixels_at_once(self, height: int, width: int) -> int:
        """Pixels of an image whose descriptors are in memory at once: all after its reduction, or those of a strip."""
        whole = WHOLE * self.step**2 // np.size(self.bin_sizes)  # a descriptor every `step` pixels along y and x
        return min(prod(reduced(height, width, self.max_height)), whole)

    def _how(self) -> dict[str, Parameter]:
        """Parameters that do not change results."""
        return {"n_jobs": self.n_jobs, "verbose": self.verbose}

    def _write_codes(self, images: Sequence[ImageLike], codes: Singles) -> None:
        """Encode all images and, if `codes` has rows for them, their mirror images."""
        encode, normalise = self._encode(), Normalise(self.normalisation)

        def code(image: ImageLike, mirrored: bool) -> Doubles:
            grey = read_grey(image, encode.bins.sift, self.max_height)
            sums, _ = encode.forward(np.ascontiguousarray(np.asarray(grey)[:, ::-1]) if mirrored else grey, keep=False)
            return normalise.forward(sums)[0]

        training.encode_images(images, codes, code, self.n_jobs, self.verbose)

    def _learn_descriptors(self, images: Sequence[ImageLike], random: np.random.RandomState) -> None:
        """Learn the projection and the mixture."""
        sift = self._sift()
        sample = training.sample_descriptors(
            images, sift, self.max_height, self.n_samples, random, self.n_jobs, self.verbose
        )
        components, mean = training.principal_components(sample, self.n_pca)
        self.pca_ = Projection(components, mean if self.center else np.zeros_like(mean))
        projected = training.project(sample, components, self.pca_.mean_, self.n_jobs)
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
        # Rounded to float32, so that a saved and loaded model equals this one.
        for name in ("weights_", "means_", "covariances_"):
            setattr(self.gmm_, name, getattr(self.gmm_, name).astype(np.float32).astype(np.float64))

    def _check(self) -> None:
        """Raise ValueError, naming the parameter, unless all are in range."""
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
        if not _is_pyramid(self.pyramid):
            raise ValueError(f"pyramid must list (rows, columns) of each level, got {self.pyramid!r}")
        if self.max_height is not None and not (is_whole(self.max_height) and self.max_height >= 1):
            raise ValueError(f"max_height must be a positive whole number of rows or None, got {self.max_height!r}")
        check_choice("normalisation", self.normalisation, NORMALISATIONS)
        self._sift().check()
        side = Geometry.smallest_side(self._sift().sizes)
        if self.max_height is not None and self.max_height < side:
            raise ValueError(
                f"max_height must be at least {side} rows, which one descriptor needs, got {self.max_height}"
            )

    # ---- the fitted parts ----

    # The parameters that scores depend on. Where descriptors are taken and which posteriors count as 0 may change after
    # fitting, since a normalised Fisher vector is a mean over descriptors. What a descriptor is, and which cell,
    # component and dimension a coefficient belongs to, may not: the scores would be meaningless.
    _FREE = ("bin_sizes", "step", "max_height", "gate")
    _FIXED = (
        *("magnif", "window", "window_size", "contrast_threshold", "quantize", "angles"),
        *("n_pca", "n_components", "pyramid", "normalisation"),
    )

    def _sift(self) -> DenseSIFT:
        names = ("bin_sizes", "step", "magnif", "window", "window_size", "contrast_threshold", "quantize", "angles")
        return DenseSIFT(**dict(zip(names, self._values(names), strict=True)))

    def _encode(self) -> Encode:
        gmm = self.gmm_
        project = Project(self.pca_.components_, self.pca_.mean_)
        fisher = Fisher(gmm.weights_, gmm.means_, gmm.covariances_, self.gate, self.pyramid)
        return Encode(SpatialBins(self._sift()), project, fisher)

    def _adopt(self) -> None:
        """Assemble the parts just learned or loaded, and record the parameters that belong to them."""
        self._learned = self._values(self._FIXED)
        self._link()

    def _link(self) -> None:
        """Assemble the fitted parts; called after every change of one."""
        for name, learned, now in zip(self._FIXED, self._learned, self._values(self._FIXED), strict=True):
            if now != learned:
                raise ValueError(
                    f"the model was fitted with {name}={learned!r}, and {name} is now {now!r}: "
                    f"set_params({name}={learned!r}) restores it; or fit again"
                )
        linear = Linear(self.coef_, self.intercept_)
        stack = FisherStack(self._encode(), Normalise(self.normalisation), linear, len(self.classes_))
        self._model = FisherModel(stack, FisherMenu(list(self.classes_)), self.max_height)
        self._linked = self._values(self._FREE + self._FIXED)

    def _fitted(self) -> FisherModel:
        """The model, assembled anew if a parameter has changed."""
        check_fitted(self, "coef_", "call fit, or load a model with fvlrp.load")
        if self._linked != self._values(self._FREE + self._FIXED):
            self._check()
            self._link()
        return self._model

    def _values(self, names: tuple[str, ...]) -> list[Parameter]:
        """Current values of parameters; sequences as tuples, so that lists and arrays compare equal."""
        return [parts.frozen(getattr(self, name)) for name in names]

    @property
    def _mirrored(self) -> bool:
        """Whether two exclusive classes share one hyperplane."""
        return len(self.classes_) == 2 and not self.multilabel_

    def uncenter(self) -> FisherVectorClassifier:
        """Move the projection's mean into the mixture's means: the same scores, and relevance without a mean.

        y = P x - P m under means mu is y = P x under means mu + P m.
        """
        self._fitted()
        self.gmm_.means_ = self.gmm_.means_ + self.pca_.components_ @ self.pca_.mean_
        self.pca_ = Projection(self.pca_.components_, np.zeros_like(self.pca_.mean_))
        self._link()
        return self

    # ---- applying ----

    def decision_function(self, images: Images) -> Doubles:
        """Scores float64 (n, n_classes); with two exclusive classes (n,), positive for ``classes_[1]``."""
        self._fitted()
        scores = self._scores_of(images, self.verbose)
        return scores[:, 1] if self._mirrored else scores

    def scores(self, image: ImageLike) -> Doubles:
        """Scores of one image for every class, float64 (n_classes,): what an explanation of each starts from."""
        return self._fitted().scores(image, self.n_jobs)

    @property
    def menu(self) -> FisherMenu:
        """The valid targets, depths and rules; `menu.check` raises for others before any work."""
        return self._fitted().menu

    def trace(self, image: ImageLike, dtype: npt.DTypeLike = "float32") -> FisherTrace:
        """One forward pass of one image, to explain any number of targets, depths and rules from.

        `dtype` "float32" is fast; "float64" is exact: everything after SIFT in float64, and ledgers close to 1e-9.
        """
        return self._fitted().trace(image, dtype, self.n_jobs)

    def flipper(self, image: ImageLike, target: One | None = None) -> FisherFlipper:
        """f of a target (None: the best class) for `image` and copies of it with other pixels in some regions.

        For `evaluate.pixel_flipping`: a step encodes only the descriptors that see the changed region.
        """
        model = self._fitted()
        best = self.menu.classes[int(np.argmax(model.scores(image)))] if target is None else target
        terms, encode = model.stack.terms([self.menu.target(best)])[0], model.stack.encode
        used, fisher = np.flatnonzero(terms), encode.fisher
        coef = terms[used] @ self.coef_[used] if len(used) > 1 else terms[used[0]] * self.coef_[used[0]]
        return FisherFlipper(
            image,
            self.max_height,
            model.sift,
            Mixture(
                *(encode.project.components, encode.project.mean, fisher.weights, fisher.means, fisher.covariances),
                *(fisher.gate, fisher.pyramid),
            ),
            model.stack.normalise.factors,
            coef,
            float(terms @ self.intercept_),
        )

    # ---- files ----

    def describe(self) -> dict[str, Json]:
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

    def _lasting(self) -> dict[str, Json]:
        """Parameters that belong to the model, not to one use of it, in the types that JSON holds."""
        return {**parts.lasting(self.get_params()), "bin_sizes": self._sift().sizes}  # one number: a sequence of one

    def save(self, path: str | os.PathLike[str], weights: str = "float32") -> None:
        """Write the model to `path`, exactly that name, atomically and byte for byte reproducible.

        Parameters
        ----------
        path : str or path
        weights : {"float32", "int8", "int4"}
            How coef_ is stored; integers with one scale for each run of D values. PCA and mixture are float32.
        """
        header, arrays = self.to_parts(weights)
        files.save_arrays(path, {"kind": files.FISHER, **header}, arrays, compress=weights != "float32")

    def to_parts(self, weights: str = "float32") -> tuple[dict[str, Json], dict[str, Values]]:
        """What a file holds: a header ready for JSON, and arrays by name; `weights` as in `save`."""
        self._fitted()  # raises for parameters that do not belong to what was learned
        learned = parts.Learned(
            self.classes_, self.multilabel_, self.C_, self.pca_, self.gmm_, self.coef_, self.intercept_
        )
        return parts.written(learned, self._lasting(), self.random_state, weights)

    @classmethod
    def from_arrays(
        cls,
        components: npt.ArrayLike,
        weights: npt.ArrayLike,
        means: npt.ArrayLike,
        covariances: npt.ArrayLike,
        coef: npt.ArrayLike,
        intercept: npt.ArrayLike,
        classes: npt.ArrayLike,
        *,
        mean: npt.ArrayLike | None = None,
        order: str = "vlfeat",
        descriptor_scale: float = 1.0,
        multilabel: bool = False,
        **params: Parameter,
    ) -> FisherVectorClassifier:
        """A fitted classifier from parts that were learned elsewhere.

        Parameters
        ----------
        components, mean : (D, 128), (128,)
            The projection y = (x - mean) components^T of SIFT descriptors; `mean` None is zero.
        weights, means, covariances : (K,), (K, D), (K, D)
            The mixture, with variances.
        coef, intercept : (n_classes, cells * 2 K D), (n_classes,)
            Weights for improved Fisher vectors: the L2 norm of each cell, signed square roots, the L2 norm of all. With
            two exclusive classes also one row, for the second.
        classes : (n_classes,)
        order : {"vlfeat", "skimage"}
            Layout of each cell of `coef`: [u_1..u_K, v_1..v_K], each of length D, as VLFeat and cyvlfeat have it; or
            scikit-image's, with K entries before and the v of the other sign, which are repaired.
        descriptor_scale : float
            Scale of the descriptors that the projection was learned from, relative to those here, which are 0..255.
        multilabel : bool
            Whether classes do not exclude each other.
        **params
            Parameters of the classifier, such as `pyramid`, `bin_sizes`, `step`, `window`; `normalisation` is
            "improved" unless given. Those that follow from the arrays are set.

        Raises
        ------
        ValueError
            Arrays that do not fit together, or values that are not finite.

        Examples
        --------
        >>> voc20 = fvlrp.load("voc20")
        >>> pca, gmm = voc20.pca_, voc20.gmm_
        >>> arrays = pca.components_, gmm.weights_, gmm.means_, gmm.covariances_, voc20.coef_, voc20.intercept_
        >>> clf = fvlrp.FisherVectorClassifier.from_arrays(*arrays, voc20.classes_, multilabel=True)
        >>> clf.coef_.shape == voc20.coef_.shape
        True
        """
        mixture, linear, pyramid = (weights, means, covariances), (coef, intercept), params.get("pyramid", PYRAMID)
        arrays = importing.arrays(components, mean, mixture, linear, classes, order, descriptor_scale, pyramid)
        K, D = len(arrays["gmm_weights"]), len(arrays["pca_components"])
        usual = {"gate": min(GATE, 0.5 / K), "normalisation": "improved"}
        clf = cls(**{**usual, **params, "n_components": K, "n_pca": D, "center": mean is not None})
        C = params.get("C")  # unknown unless given, and "auto" is no number
        header = {"weights": "float32", "multilabel": multilabel, "C": C if is_real(C) else 1.0}
        return clf._adopt_parts(header, arrays)

    @classmethod
    def from_sklearn(cls, pca: Untyped, gmm: Untyped, svm: Untyped, **params: Parameter) -> FisherVectorClassifier:
        """A fitted classifier from scikit-learn's parts: PCA, GaussianMixture and LinearSVC, or similar estimators.

        Parameters
        ----------
        pca : PCA or None
            Of SIFT descriptors; whitening is kept. None: descriptors as they are.
        gmm : GaussianMixture(covariance_type="diag"), or anything with weights_, means_ and covariances_
        svm : LinearSVC, LogisticRegression, or anything with coef_, intercept_ and classes_
        **params
            As for `from_arrays`.
        """
        components, mean = importing.projection(pca)
        mixture = gmm.weights_, gmm.means_, gmm.covariances_
        return cls.from_arrays(components, *mixture, svm.coef_, svm.intercept_, svm.classes_, mean=mean, **params)

    @classmethod
    def from_parts(cls, header: Mapping[str, Parsed], arrays: Mapping[str, Values]) -> FisherVectorClassifier:
        """The inverse of `to_parts`.

        Raises
        ------
        KeyError, TypeError, ValueError
            Parts that are missing, do not fit together, or hold values that training cannot produce.
        """
        return cls(**parts.parameters_of(header))._adopt_parts(header, arrays)

    def _adopt_parts(self, header: Mapping[str, Parsed], arrays: Mapping[str, Values]) -> FisherVectorClassifier:
        """Become the fitted classifier whose parts these are; the parameters are set already."""
        self._check()
        learned = parts.read(header, arrays, self.get_params(deep=False))
        self.classes_, self.multilabel_, self.C_, self.pca_, self.gmm_, self.coef_, self.intercept_ = learned
        self._adopt()
        return self


_NOT_LEARNED_FROM = ("C", *parts.FOR_ONE_USE)  # parameters that do not affect projection, mixture and codes


def _prepared(
    parameters: dict[str, Parameter],
    images: Sequence[ImageLike],
    stamps: list[tuple[int, int] | None],
    random_state: int | np.random.RandomState | None,
    random: np.random.RandomState,
    how: dict[str, Parameter],
    room: Singles,
) -> tuple[Projection, DiagonalGMM, Singles, Untyped]:
    """Training up to the SVMs, which `FisherVectorClassifier.memory` caches.

    The key of the cache is `parameters`, `images`, their `stamps` and `random_state`. Codes are written to `room`; the
    last value is the final state of `random`.
    """
    learner = FisherVectorClassifier(**parameters, **how)
    learner._learn_descriptors(images, random)
    learner._write_codes(images, room)
    return learner.pca_, learner.gmm_, room, random.get_state()


def _is_pyramid(value: Untyped) -> bool:
    """Whether `value` lists (rows, columns) of at least one level."""
    levels = list(value) if np.iterable(value) else []
    return bool(levels) and all(
        np.shape(level) == (2,) and all(is_whole(n) and n >= 1 for n in level) for level in levels
    )
