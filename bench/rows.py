"""What is compared: a row is a function from a photograph to what it is compared with, fvlrp's own call, and a gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from cyvlfeat.sift import phow
from skimage.feature import fisher_vector
from threadpoolctl import ThreadpoolController

from bench import peers
from bench.chain import RULES, Chain, shares_of
from bench.photographs import photograph
from fvlrp import DenseSIFT, FisherEncoder, _kernels
from fvlrp.cli.bench import relative
from fvlrp.fisher import relevance as eqs
from fvlrp.fisher.geometry import BINS
from fvlrp.fisher.layers import Encode, Fisher, Normalise
from fvlrp.fisher.sift import read_grey
from fvlrp.fisher.supports import spread
from fvlrp.fisher.walk import DEPTHS
from fvlrp.runtime.memory import Memory

TARGET = "person"
BLAS_LIMITS = ThreadpoolController()
Check = tuple[str, float, float]  # what was measured, its value, the greatest that passes


@dataclass
class Trial:
    """Two calls to time in turn, and what must hold for the times to count."""

    peer: Callable
    ours: Callable
    gate: Callable[[], list[Check]]


@dataclass
class Row:
    """One line of the table.

    Attributes
    ----------
    title, peer : str
        What is computed, and with what it is compared.
    make : Case -> Trial
    threads : int
        Of fvlrp, of BLAS and of OpenMP alike.
    pairs : int
        Least number of pairs; slow comparisons take no more.
    """

    title: str
    peer: str
    make: Callable[[Case], Trial]
    threads: int = 1
    pairs: int = 15
    photographs: tuple[str, ...] | None = None


@dataclass
class Case:
    """One photograph with the model: what several rows share, made when first asked for."""

    name: str
    clf: object
    threads: int = 1
    known: dict = field(default_factory=dict)  # results of the gates by photograph, kept between rows

    @cached_property
    def image(self) -> np.ndarray:
        return photograph(self.name)

    @cached_property
    def trace(self):
        return self.clf.set_params(n_jobs=self.threads).trace(self.image)

    @property
    def stack(self):
        return self.trace.stack

    @property
    def descriptors(self):
        return self.trace.descriptors

    @cached_property
    def zero_rows(self) -> float:
        return float(self.descriptors.zeroed.mean())

    @cached_property
    def x(self) -> np.ndarray:
        """Descriptors, float32 (n, 128)."""
        return self.descriptors.values.astype(np.float32)

    @cached_property
    def y(self) -> np.ndarray:
        """Projected descriptors, float32 (n, D)."""
        return self.x @ self.clf.pca_.components_.T.astype(np.float32)

    @cached_property
    def position(self) -> int:
        return self.trace.classes.index(TARGET)

    @cached_property
    def saved(self):
        return self.stack.encode.pooled(self.descriptors, np.float32, self.threads)

    @cached_property
    def shares(self) -> np.ndarray:
        """R / (S + epsilon sgn S) of the target, float64 (1, cells, 2, K, D)."""
        return shares_of(self.trace, self.saved, self.position)

    @cached_property
    def exact(self):
        return self.clf.trace(self.image, "float64")

    def chain(self, **options) -> Chain:
        return Chain(self.clf, self.descriptors.geometry, **options)

    def one_region(self) -> Encode:
        """The layers of the whole image as one cell."""
        bins, project, fisher = self.stack.encode.parts
        return Encode(bins, project, Fisher(fisher.weights, fisher.means, fisher.covariances, fisher.gate, ((1, 1),)))

    def heatmaps(self) -> list[Check]:
        """The float32 heatmaps against exact mode, at every depth, for two stabilisers."""
        if self.name not in self.known:
            checks = []
            for epsilon, limit in ((100, 5e-4), (1, 5e-3)):
                rules = {"epsilon_pool": epsilon, "epsilon_pca": epsilon}
                pairs = zip(*(trace.explain(TARGET, DEPTHS, rules) for trace in (self.trace, self.exact)), strict=True)
                checks += [
                    (f"heatmap at depth {fast.depth}, epsilon {epsilon}", relative(fast.heatmap, true.heatmap), limit)
                    for fast, true in pairs
                ]
            self.known[self.name] = checks
        return self.known[self.name]


# ---- dense SIFT ------------------------------------------------------------------------------------------------------


def sift(case: Case, window: str = "flat") -> Trial:
    """Float descriptors of four scales into a new array, against cyvlfeat."""
    grey, fast = case.trace.grey, window == "flat"
    ours = DenseSIFT(window=window, quantize=False, n_jobs=case.threads)

    def gate() -> list[Check]:
        got = ours.extract_grey(grey)
        expected = peers.vlfeat_sift(grey, got.geometry, fast, threshold=0)
        expected[got.zeroed] = 0
        # Both must have zeroed the same; contrasts within rounding of the threshold may fall on either side.
        theirs = peers.vlfeat_sift(grey, got.geometry, fast)
        undecided = float(np.mean(got.zeroed != ~theirs.any(axis=1)))
        return [
            ("value, of 255", float(np.abs(got.values - expected).max()), 0.05),
            ("share of rows zeroed by one side alone", undecided, 1e-4),
        ]

    return Trial(partial(phow, grey, step=3, fast=fast, float_descriptors=True), partial(ours.extract_grey, grey), gate)


# ---- posteriors and Fisher vector ------------------------------------------------------------------------------------


def _assignment(case: Case):
    """fvlrp's posteriors of the projected rows that are not zero, and of one that is."""
    zeroed = case.descriptors.zeroed
    y = np.concatenate([case.y[~zeroed], case.y[zeroed][:1]])
    model = case.stack.encode.models.of(np.float32)
    padded = model.pad(y)

    def gate() -> list[Check]:
        encoded = model.posteriors(padded)[0]
        dense = np.zeros((len(y), model.components))
        dense[np.repeat(np.arange(len(y)), np.diff(encoded.indptr)), encoded.index] = encoded.gamma
        truth = peers.scikit_mixture(case.clf.gmm_).predict_proba(y.astype(np.float64))
        return [("posterior, to scikit-learn's in float64", float(np.abs(dense - truth).max()), 5e-4)]

    return partial(model.posteriors, padded), gate


def posteriors(case: Case) -> Trial:
    """Posteriors of all projected rows: one product per block, and the exponential."""
    chain = case.chain(n_jobs=case.threads)
    chain.y[:] = case.y[chain.order]
    ours, gate = _assignment(case)

    def gates() -> list[Check]:
        chain.posteriors()
        rows = np.linspace(0, len(chain.y) - 1, 5000).astype(int)
        truth = peers.scikit_mixture(case.clf.gmm_).predict_proba(chain.y[rows].astype(np.float64))
        error = float(np.abs(chain.gamma[rows] * chain.inverse[rows] - truth).max())
        return [*gate(), ("the peer's posterior", error, 5e-4)]

    return Trial(chain.posteriors, ours, gates)


def posteriors_scikit(case: Case) -> Trial:
    mixture, y = peers.scikit_mixture(case.clf.gmm_), case.y.astype(np.float64)
    return Trial(partial(mixture.predict_proba, y), *_assignment(case))


def _true_sums(case: Case) -> np.ndarray:
    """Sums of Eqs. 3-4 over the whole image, float64 (2 K D,), by scikit-image, whose second block is negative."""
    y, mixture = case.y.astype(np.float64), peers.scikit_mixture(case.clf.gmm_)
    components, dims = mixture.means_.shape
    parts = fisher_vector(y, mixture)[components:] * len(y)
    return np.concatenate([parts[: components * dims], -parts[components * dims :]])


def _improved(sums: np.ndarray) -> np.ndarray:
    root = np.sign(sums) * np.sqrt(np.abs(sums))
    return root / np.linalg.norm(root)


def _one_region(case: Case) -> tuple[Callable, Callable]:
    """Descriptors to the improved Fisher vector of one region, and its gate."""
    encode, normalise = case.one_region(), Normalise("intra")

    def ours() -> np.ndarray:
        return normalise.forward(encode.pooled(case.descriptors, np.float32, case.threads).sums)[0]

    return ours, lambda: [
        ("Fisher vector, to scikit-image's in float64", relative(ours(), _improved(_true_sums(case))), 2e-4)
    ]


def fisher_vlfeat(case: Case) -> Trial:
    mixture, basis = peers.single(case.clf.gmm_), case.clf.pca_.components_.T.astype(np.float32)
    ours, gate = _one_region(case)

    def gates() -> list[Check]:
        exact = peers.vlfeat_fisher(case.y, mixture, fast=False)  # its fast form takes the largest posterior for 1
        return [*gate(), ("the same, to VLFeat's", relative(ours(), exact), 2e-4)]

    return Trial(lambda: peers.vlfeat_fisher(case.x @ basis, mixture), ours, gates)


def fisher_skimage(case: Case) -> Trial:
    mixture, basis = peers.scikit_mixture(case.clf.gmm_), case.clf.pca_.components_.T.astype(np.float32)
    ours, gate = _one_region(case)
    return Trial(lambda: fisher_vector(case.x @ basis, mixture, improved=True), ours, gate)


def encoder(case: Case) -> Trial:
    """The public encoder on projected rows, zeroed ones like all others: no projection on either side."""
    mixture, transformer = peers.single(case.clf.gmm_), FisherEncoder(case.clf.gmm_, n_jobs=case.threads)

    def ours() -> np.ndarray:
        return _improved(transformer.transform([case.y])[0])

    def gate() -> list[Check]:
        return [("Fisher vector, to scikit-image's in float64", relative(ours(), _improved(_true_sums(case))), 2e-4)]

    return Trial(partial(peers.vlfeat_fisher, case.y, mixture), ours, gate)


# ---- relevance -------------------------------------------------------------------------------------------------------


def _relevance(case: Case) -> tuple[Callable, Callable[[], np.ndarray]]:
    """fvlrp's Eqs. 5-6 for all rows, and their value in exact mode from the same shares, float64 (n, D)."""

    def of(saved) -> np.ndarray:
        memory = Memory(saved.dtype)
        return eqs.back(eqs.tables(case.shares, saved, memory), saved, ("pca",), memory).pca[0]

    def truth() -> np.ndarray:
        return of(case.stack.encode.pooled(case.descriptors, np.float64))

    def ours() -> np.ndarray:
        return of(case.saved)

    return ours, truth


def relevance(case: Case) -> Trial:
    chain = case.chain(n_jobs=case.threads)
    chain.encode(case.x)
    ours, truth = _relevance(case)

    def gate() -> list[Check]:
        true = truth()
        chain.relevance(case.shares[0])
        return [
            ("relevance, to exact mode", relative(ours(), true), 2e-4),
            ("the peer's relevance", relative(chain.r2, true[chain.order]), 2e-4),
        ]

    return Trial(partial(chain.relevance, case.shares[0]), ours, gate)


def relevance_loop(case: Case) -> Trial:
    layout = case.saved.layout
    ours, truth = _relevance(case)
    gamma = peers.scikit_mixture(case.clf.gmm_).predict_proba(case.y).astype(np.float32)
    member = layout.member.astype(np.float64)
    peer = partial(peers.loop_over_components, case.y, gamma, layout.rows, case.shares[0], member, case.clf.gmm_)

    def gate() -> list[Check]:
        true = truth()
        return [
            ("relevance, to exact mode", relative(ours(), true), 2e-4),
            ("the peer's relevance", relative(peer(), true), 2e-4),
        ]

    return Trial(peer, ours, gate)


def back(case: Case) -> Trial:
    """From relevance of the projected values to pixels: projection, 16 bins, splat.

    fvlrp has no such call on its own: a mixture of which one component holds all of a row makes Eqs. 5-6 a single
    multiply-add each, which counts as fvlrp's time.
    """
    encode, part, zeroed = case.stack.encode, case.descriptors.geometry.whole, case.descriptors.zeroed
    model, basis = encode.models.of(np.float32), encode.project.components
    values, n = case.descriptors.values, len(case.x)
    rows, zero_rows = np.flatnonzero(~zeroed), np.flatnonzero(zeroed)
    y = model.project(values, rows)
    one = _kernels.Encoded(y, np.arange(len(rows) + 1), np.zeros(len(rows), np.uint16), np.ones(len(rows), np.float32))
    tables = np.zeros((1, model.components, 3, model.stride), np.float32)
    tables[0, 0, :, : model.dims] = np.random.default_rng(0).standard_normal((3, model.dims)) * [[1], [1e-2], [1e-4]]

    def splat(bins: np.ndarray) -> np.ndarray:
        pixels = np.zeros((1, *case.trace.grey.shape))
        spread(bins, BINS, part, RULES, pixels)
        return pixels[0]

    def ours() -> np.ndarray:
        total, bins = np.empty((1, n)), np.empty((1, n, 16), np.float32)
        model.relevance(values, rows, one, tables, RULES.epsilon_pca, total=total, bins=bins, absorbed=np.zeros(1))
        bins[0, zero_rows] = 0
        return splat(bins)

    chain = case.chain(n_jobs=case.threads)
    chain.project(case.x)
    c0, c1, c2 = tables[0, 0, :, : model.dims]
    chain.r2[:] = c0 + chain.y * (c1 + chain.y * c2)
    peer = partial(chain.back, case.x, RULES.epsilon_pca)

    def gate() -> list[Check]:
        z = case.x.astype(np.float64) @ basis.T
        q = (c0 + z * (c1 + z * c2)) / (z + RULES.epsilon_pca * np.where(z >= 0, 1, -1))
        true = splat((case.x * (q @ basis)).reshape(1, n, 16, 8).sum(axis=3))
        return [
            ("pixels, in float64", relative(ours(), true), 1e-5),
            ("the peer's pixels", relative(peer(), true), 1e-5),
        ]

    return Trial(peer, ours, gate)


# ---- whole images ----------------------------------------------------------------------------------------------------


def image(case: Case, once: bool = False) -> Trial:
    """A photograph in, 20 scores and one heatmap at depth "bin" out; `once` lets the peer skip zeroed rows, too."""
    clf, geometry = case.clf.set_params(n_jobs=case.threads), case.descriptors.geometry
    chain = case.chain(n_jobs=case.threads, zeroed=case.descriptors.zeroed if once else None)

    def peer() -> tuple[np.ndarray, np.ndarray]:
        with BLAS_LIMITS.limit(limits=1, user_api="blas"):  # the chain's own threads are the better use of processors
            grey = read_grey(case.image, case.trace.model.sift, clf.max_height)
            return chain.explain(peers.vlfeat_sift(grey, geometry), case.position)

    def gate() -> list[Check]:
        # The peer keeps VLFeat's floats; on fvlrp's integers it must arrive at the same map.
        scores, heatmap = chain.explain(case.x, case.position)
        true = case.exact.explain(TARGET, "bin").heatmap
        return [
            *case.heatmaps(),
            ("the peer's heatmap", relative(heatmap, true), 5e-4),
            ("the peer's scores", float(np.abs(scores - case.exact.scores).max()), 1e-4),
        ]

    return Trial(peer, partial(clf.explain, case.image, TARGET, "bin"), gate)


def share(case: Case, depth: str) -> Trial:
    """The walk back beside the forward pass."""
    clf = case.clf.set_params(n_jobs=case.threads)
    return Trial(partial(clf.trace, case.image), partial(case.trace.explain, TARGET, depth), case.heatmaps)


def targets(case: Case) -> Trial:
    """Forward pass and heatmaps of all 20 classes, against as many calls for one class."""
    clf = case.clf.set_params(n_jobs=case.threads)

    def gate() -> list[Check]:
        together = clf.trace(case.image).explain(case.trace.classes, "bin")
        alone = [clf.explain(case.image, name, "bin").heatmap for name in case.trace.classes]
        error = max(relative(a.heatmap, b) for a, b in zip(together, alone, strict=True))
        return [*case.heatmaps(), ("heatmap, together and alone", error, 1e-5)]

    def each() -> None:
        for name in case.trace.classes:
            clf.explain(case.image, name, "bin")

    return Trial(each, lambda: clf.trace(case.image).explain(case.trace.classes, "bin"), gate)


BLAS = "NumPy float32, OpenBLAS"
ROWS = {
    "sift": Row("dense SIFT, 4 scales, float32", "cyvlfeat phow, fast", sift),
    "sift2": Row("dense SIFT, 2 threads", "cyvlfeat phow, fast (it has no threads)", sift, threads=2),
    "gaussian": Row(
        "dense SIFT, Gaussian window", "cyvlfeat phow, fast=False", partial(sift, window="gaussian"), pairs=5
    ),
    "posteriors": Row("posteriors", BLAS, posteriors),
    "posteriors-sklearn": Row("posteriors", "scikit-learn predict_proba, float64", posteriors_scikit, pairs=5),
    "fisher": Row("descriptors to Fisher vector", "NumPy projection, cyvlfeat fisher, fast", fisher_vlfeat, pairs=5),
    "fisher2": Row("descriptors to Fisher vector, 2 threads", "the same, 2 threads", fisher_vlfeat, threads=2, pairs=5),
    "encoder": Row("FisherEncoder, every row", "cyvlfeat fisher, fast", encoder, pairs=5),
    "fisher-skimage": Row(
        "descriptors to Fisher vector", "NumPy projection, scikit-image fisher_vector", fisher_skimage, pairs=5
    ),
    "relevance": Row("relevance, Eqs. 5-6", BLAS, relevance),
    "relevance-loop": Row("relevance, Eqs. 5-6", "NumPy float32, loop over components", relevance_loop, pairs=1),
    "back": Row("back-projection, bins, splat", BLAS, back),
    "image": Row("photograph to scores and heatmap", "cyvlfeat dsift, then NumPy float32, OpenBLAS", image, pairs=7),
    "image2": Row("the same, 2 threads", "the same, 2 threads", image, threads=2, pairs=7),
    "image-once": Row(
        "photograph to scores and heatmap",
        "the same, its zeroed rows done once, too",
        partial(image, once=True),
        pairs=7,
    ),
    "image2-once": Row("the same, 2 threads", "the same, 2 threads", partial(image, once=True), threads=2, pairs=7),
    "share-bin": Row("explanation at depth bin", "its forward pass", partial(share, depth="bin")),
    "share-gradient": Row("explanation at depth gradient", "its forward pass", partial(share, depth="gradient")),
    "targets": Row("20 classes in one pass", "20 calls for one class each", targets, pairs=5),
}
