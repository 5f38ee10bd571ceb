"""Training, beside the same on cyvlfeat's SIFT and NumPy, phase by phase."""

import sys
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from time import perf_counter
from unittest.mock import patch

import numpy as np
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from bench import peers
from fvlrp import FisherVectorClassifier
from fvlrp.cli.bench import relative
from fvlrp.data import datasets, images
from fvlrp.fisher import training as stages
from fvlrp.fisher.encoder import layout_of
from fvlrp.fisher.geometry import Geometry
from fvlrp.fisher.gmm import SEEDS, DiagonalGMM, nearest_seeds
from fvlrp.runtime import threads

PHOTOGRAPHS = 528  # of the built-in model's training set
PHASES = ("descriptors", "PCA", "mixture", "codes", "SVMs")
STAGES = {
    "sample_descriptors": "descriptors",
    "principal_components": "PCA",
    "project": "PCA",
    "encode_images": "codes",
    "fit_svms": "SVMs",
}
GATES = {"Fisher vectors under one mixture": 5e-3, "log-likelihood": 1e-3}  # relative


@contextmanager
def timed():
    """Seconds of each phase but the mixture's, of fits in the body: a dict that fills as they run."""
    seconds: dict[str, float] = {}

    def counted(stage, phase: str):
        def call(*args):
            start = perf_counter()
            result = stage(*args)
            seconds[phase] = seconds.get(phase, 0.0) + perf_counter() - start
            return result

        return call

    with ExitStack() as stack:
        for name, phase in STAGES.items():
            stack.enter_context(patch.object(stages, name, counted(getattr(stages, name), phase)))
        yield seconds


def compare(folder: str, count: int, jobs: int = 1, say=sys.stdout) -> int:
    """Seconds of `fit` on some photographs with their share of a million descriptors, `jobs` threads on either side."""
    data = datasets.open_dataset(folder, "train")
    chosen = np.linspace(0, len(data) - 1, count).astype(int)
    paths, labels = [data.paths[i] for i in chosen], data.matrix[chosen]
    both = ((labels == 1).any(axis=0)) & ((labels == -1).any(axis=0))
    labels, names = labels[:, both], np.array(data.class_names)[both]
    samples = 1_000_000 * count // PHOTOGRAPHS
    clf = FisherVectorClassifier(n_samples=samples, random_state=0, n_jobs=jobs)
    rows, expect = [], DiagonalGMM._expect
    with (
        threadpool_limits(jobs),
        timed() as ours,
        patch.object(
            DiagonalGMM, "_expect", lambda gmm, of, *how: rows.append(sum(map(len, of))) or expect(gmm, of, *how)
        ),
    ):
        start = perf_counter()
        clf.fit(paths, labels, names)
    ours["mixture"] = perf_counter() - start - sum(ours.values())
    peer = Peer(clf, rows, jobs)
    peer.fit(paths, labels, samples)
    theirs = peer.seconds
    print(
        f"\ntraining on {count} photographs, {samples} descriptors, {len(rows)} iterations of EM "
        f"({sum(rows) / rows[-1]:.1f} times all rows), {jobs} thread{'s' * (jobs > 1)}\n\n"
        "| seconds | cyvlfeat and NumPy | fvlrp | ratio |\n|---|---:|---:|---:|",
        file=say,
    )
    totals = {"all": (sum(theirs.values()), sum(ours.values()))}
    for phase, (a, b) in ({name: (theirs[name], ours[name]) for name in PHASES} | totals).items():
        print(f"| {phase} | {a:.2f} | {b:.2f} | {a / b:.2f} |", file=say)
    found = dict(zip(GATES, (disagreement(clf, paths[:4]), peer.shortfall(clf)), strict=True))
    print(file=say)
    for what, value in found.items():
        verdict = "passed" if value <= GATES[what] else "VOID"
        print(f"gate: {what} {value:.1e} <= {GATES[what]:.0e}: {verdict}  ", file=say)
    return 0 if all(value <= GATES[what] for what, value in found.items()) else 1


def disagreement(clf, paths) -> float:
    """Largest relative difference of the improved Fisher vectors of both sides under one projection and mixture."""
    gmm = clf.gmm_
    mixture = (gmm.weights_, gmm.means_, gmm.covariances_)
    encoder = Encoder(clf.pca_.components_, mixture, clf.pyramid, clf.max_height)
    return max(relative(encoder.code(path), clf._model.vector(path)) for path in paths)


def descriptors(path, max_height) -> tuple[np.ndarray, Geometry]:
    grey = images.grey(path, max_height)
    geometry = Geometry(*grey.shape)
    return peers.vlfeat_sift(grey, geometry, quantize=True), geometry


def some(max_height, share: int, path, seed: int) -> np.ndarray:
    """At most `share` of a photograph's descriptors."""
    values, _ = descriptors(path, max_height)
    chosen = np.random.default_rng(seed).choice(len(values), min(share, len(values)), replace=False, shuffle=False)
    return values[chosen]


class Peer:
    """The same training with cyvlfeat and NumPy, as well as we can write it.

    Photographs are read and described twice, as fvlrp does: what `PHOTOGRAPHS` of them hold takes 5 GB. Descriptors
    are bytes, and zeroed ones are done once. Threads run photographs and blocks of rows, with one BLAS thread each;
    cyvlfeat holds the interpreter's lock meanwhile, so its SIFT gains nothing from a second. EM starts from seeds
    chosen by the same rule and runs as often over as many rows as fvlrp's.

    Parameters
    ----------
    clf : FisherVectorClassifier
        Fitted: its parameters count.
    rows : list of int
        Rows of every iteration of EM.
    jobs : int
    """

    def __init__(self, clf, rows: list[int], jobs: int):
        self.clf, self.rows, self.jobs, self.seconds = clf, rows, jobs, {}

    def fit(self, paths, labels, samples: int) -> None:
        share, height = samples // len(paths), self.clf.max_height
        start = perf_counter()

        def lap(phase: str) -> None:
            self.seconds[phase] = perf_counter() - start - sum(self.seconds.values())

        with threadpool_limits(1):
            items = [partial(some, height, share, path, seed) for seed, path in enumerate(paths)]
            sample = np.concatenate(threads.run(items, self.jobs))
        lap("descriptors")
        with threadpool_limits(self.jobs):
            basis = principal(sample, self.clf.n_pca)
            self.y = np.concatenate([sample[at : at + 4096] @ basis.T for at in range(0, len(sample), 4096)])
        lap("PCA")
        with threadpool_limits(1):
            self.mixture = expectation_maximisation(self.y, self.clf.n_components, self.rows, self.jobs)
        lap("mixture")
        encoder = Encoder(basis, self.mixture, self.clf.pyramid, height)
        with threadpool_limits(1):
            codes = np.array(threads.run([partial(encoder.code, path) for path in paths], self.jobs))
        lap("codes")
        with threadpool_limits(self.jobs):
            gram = codes @ codes.T
            for column in labels.T:
                used = np.flatnonzero(column)
                svm = SVC(C=self.clf.C_, kernel="precomputed").fit(gram[np.ix_(used, used)], column[used])
                svm.dual_coef_.astype(np.float32) @ codes[used[svm.support_]]
        lap("SVMs")

    def shortfall(self, clf) -> float:
        """By how much fvlrp's mixture explains its rows worse than this one its own, as a share."""
        mixture = DiagonalGMM(clf.n_components)
        mixture.weights_, mixture.means_, mixture.covariances_ = self.mixture
        mixture.n_features_in_ = self.y.shape[1]
        own = mixture.score(self.y)
        return (own - clf.gmm_.lower_bound_) / abs(own)


def principal(sample: np.ndarray, dims: int) -> np.ndarray:
    """Leading principal directions of rows uint8 (n, 128): float32 (dims, 128)."""
    mean, scatter = sample.mean(axis=0, dtype=np.float64).astype(np.float32), np.zeros((sample.shape[1],) * 2)
    for at in range(0, len(sample), 2048):
        block = sample[at : at + 2048] - mean
        scatter += block.T @ block
    return np.ascontiguousarray(np.linalg.eigh(scatter)[1][:, ::-1][:, :dims].T, np.float32)


class Posteriors:
    """Weighted moments of blocks of rows under a mixture: two products, and an exponential in between.

    The log posteriors of a block are [y^2, y, 1] A; what divides a row of posteriors goes into the narrower factor of
    the second product. Buffers are allocated once for each thread.
    """

    BLOCK = 1024  # rows; a block of posteriors is 1 MB
    FLOOR = np.float32(-80)  # of log posteriors: products of denormal numbers would cost 40 times as much

    def __init__(self, weights, means, variances):
        constant = np.log(weights) - 0.5 * (np.log(variances) + means**2 / variances).sum(axis=1)
        logits = np.concatenate([-0.5 / variances, means / variances, constant[:, None]], axis=1)
        # Float products are exact enough only about the mean quadratic, which softmax does not see.
        self.logits = np.ascontiguousarray((logits - logits.mean(axis=0)).T, np.float32)
        self.ones = np.ones((len(means), 1), np.float32)
        self._local = threading.local()

    def moments(self, y: np.ndarray, weight: np.ndarray | float = 1.0) -> np.ndarray:
        """Sums of gamma [y^2, y, 1] over at most BLOCK rows: float32 (K, 2 D + 1)."""
        n, dims = y.shape
        if not hasattr(self._local, "room"):
            self._local.room = [np.empty((self.BLOCK, width), np.float32) for width in (2 * dims + 1, len(self.ones))]
        z, gamma = (room[:n] for room in self._local.room)
        np.multiply(y, y, out=z[:, :dims])
        z[:, dims : 2 * dims] = y
        z[:, 2 * dims] = 1
        np.matmul(z, self.logits, out=gamma)
        gamma -= gamma.max(axis=1, keepdims=True)
        np.exp(np.maximum(gamma, self.FLOOR, out=gamma), out=gamma)
        z *= weight / (gamma @ self.ones)
        return gamma.T @ z


def expectation_maximisation(y: np.ndarray, components: int, schedule: list[int], jobs: int) -> tuple[np.ndarray, ...]:
    """A diagonal mixture: weights, means, variances in float64. `schedule` lists the rows of every iteration."""
    random = np.random.RandomState(0)
    order, spread, dims = random.permutation(len(y)), y.var(axis=0, dtype=np.float64), y.shape[1]
    few = y[np.sort(order[: min(SEEDS * components, schedule[0])])]
    labels = nearest_seeds(few, components, random)
    members = np.eye(components, dtype=np.float32)[labels]
    s0 = np.maximum(members.sum(axis=0, dtype=np.float64), 1)[:, None]
    means = members.T @ few / s0
    variances = np.maximum(members.T @ (few * few) / s0 - means**2, 0.01 * spread)
    weights, seen = np.full(components, 1 / components), 0
    for count in schedule:
        if count != seen:
            rows = y if count == len(y) else y[np.sort(order[:count])]
            blank = rows[:, 0] == 0
            blank[blank] = ~rows[blank].any(axis=1)
            rows, zeros, seen = rows[~blank], np.count_nonzero(blank), count
        model = Posteriors(weights, means, variances)
        edges = np.linspace(0, len(rows), jobs + 1).astype(int)

        def segment(i: int, model=model, rows=rows, edges=edges) -> np.ndarray:
            total = np.zeros((components, 2 * dims + 1))
            for at in range(edges[i], edges[i + 1], model.BLOCK):
                total += model.moments(rows[at : min(at + model.BLOCK, edges[i + 1])])
            return total

        moments = sum(threads.run([partial(segment, i) for i in range(jobs)], jobs))
        moments += zeros * model.moments(np.zeros((1, dims), np.float32))
        s0 = np.maximum(moments[:, -1:], 1e-9)
        means = moments[:, dims : 2 * dims] / s0
        variances = np.maximum(moments[:, :dims] / s0 - means**2, 0.01 * spread)
        weights = ((s0 + 100 * count / components) / (s0.sum() + 100 * count))[:, 0]
    return weights, means, variances


class Encoder:
    """Improved Fisher vectors of photographs. Every descriptor is encoded once, into its finest pyramid cell."""

    def __init__(self, basis: np.ndarray, mixture: tuple, pyramid, max_height):
        self.basis_t = np.ascontiguousarray(basis.T, np.float32)
        self.weights, self.means, variances = mixture
        self.deviations = np.sqrt(variances)
        self.model = Posteriors(self.weights, self.means, variances)
        self.pyramid, self.max_height = tuple(map(tuple, pyramid)), max_height

    def code(self, path) -> np.ndarray:
        """float32 (cells * 2 K D,)."""
        values, geometry = descriptors(path, self.max_height)
        layout = layout_of(geometry, self.pyramid)
        zeroed = ~values.any(axis=1)
        dims, block = self.means.shape[1], self.model.BLOCK
        blank = self.model.moments(np.zeros((1, dims), np.float32))
        moments = np.zeros((len(layout.rows), len(self.means), 2 * dims + 1))
        for cell, rows in enumerate(layout.rows):
            empty = zeroed[rows]
            moments[cell] = np.count_nonzero(empty) * blank
            rows = rows[~empty]
            for at in range(0, len(rows), block):
                x = values[rows[at : at + block]].astype(np.float32)
                moments[cell] += self.model.moments(x @ self.basis_t)
        moments = np.tensordot(layout.member.T.astype(np.float64), moments, 1)
        squares, ys, s0 = moments[..., :dims], moments[..., dims : 2 * dims], moments[..., 2 * dims :]
        s1 = (ys - s0 * self.means) / self.deviations
        s2 = (squares - 2 * self.means * ys + self.means**2 * s0) / self.deviations**2
        by_u = 1 / np.sqrt(self.weights)[:, None]
        sums = np.stack([s1 * by_u, (s2 - s0) * (by_u / np.sqrt(2))], axis=1).reshape(len(moments), -1)
        flat = sums.astype(np.float32)
        flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
        x = np.copysign(np.sqrt(np.abs(flat)), flat).ravel()
        return x / np.linalg.norm(x)
