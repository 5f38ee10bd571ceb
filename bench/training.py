"""Training, beside the same on cyvlfeat's SIFT and NumPy."""

import sys
from functools import lru_cache, partial
from time import perf_counter

import numpy as np
from sklearn.cluster import kmeans_plusplus
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from bench import peers
from fvlrp import FisherVectorClassifier, datasets, images
from fvlrp.benchmark import Chain
from fvlrp.geometry import Geometry

ITERATIONS = 20  # of EM on both sides
PHOTOGRAPHS = 528  # of the built-in model's training set


def compare(folder: str, count: int, say=sys.stdout) -> int:
    """Seconds of `fit` on some photographs with their share of a million descriptors, one thread on either side."""
    data = datasets.open_dataset(folder, "train")
    chosen = np.linspace(0, len(data) - 1, count).astype(int)
    paths, labels = [data.paths[i] for i in chosen], data.labels[chosen]
    both = ((labels == 1).any(axis=0)) & ((labels == -1).any(axis=0))
    labels, names = labels[:, both], np.array(data.class_names)[both]
    samples = 1_000_000 * count // PHOTOGRAPHS
    clf = FisherVectorClassifier(n_samples=samples, max_iter=ITERATIONS, random_state=0, n_jobs=1)
    with threadpool_limits(1):
        start = perf_counter()
        clf.fit(paths, labels, names)
        ours = perf_counter() - start
        theirs, steps = peer(clf, paths, labels, samples)
    print(
        f"\ntraining on {count} photographs, {samples} descriptors, {clf.gmm_.n_iter_} iterations of EM, one thread: "
        f"fvlrp {ours:.1f} s, cyvlfeat and NumPy {theirs:.1f} s ({steps}), {theirs / ours:.2f} times as long; "
        f"{PHOTOGRAPHS} photographs would take about {PHOTOGRAPHS / count:.0f} times as long on either side",
        file=say,
    )
    return 0


def peer(clf, paths, labels, samples: int) -> tuple[float, str]:
    """The same model from cyvlfeat's descriptors: seconds in all, and by step."""
    times, start = {}, perf_counter()

    def lap(name: str) -> None:
        times[name] = perf_counter() - start - sum(times.values())

    def descriptors(path) -> tuple[np.ndarray, Geometry]:
        grey = images.grey(path, clf.max_height)
        geometry = Geometry(*grey.shape)
        return peers.vlfeat_sift(grey, geometry), geometry

    random, parts = np.random.default_rng(0), []
    for path in paths:
        values, _ = descriptors(path)
        parts.append(values[random.choice(len(values), min(samples // len(paths), len(values)), replace=False)])
    sample = np.concatenate(parts)
    lap("descriptors")
    centred = sample - sample.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    basis = np.ascontiguousarray(vectors[:, ::-1][:, : clf.n_pca].T)
    mixture = expectation_maximisation(sample @ basis.T, clf.n_components, clf.gmm_.n_iter_)
    lap("PCA and EM")
    codes = np.empty((len(paths), clf.coef_.shape[1]), np.float32)
    model = FisherVectorClassifier()
    model.pca_ = type(clf.pca_)(basis, np.zeros(128))
    model.gmm_ = type("Mixture", (), dict(zip(("weights_", "means_", "covariances_"), mixture, strict=True)))
    model.coef_, model.intercept_ = np.zeros((1, codes.shape[1]), np.float32), np.zeros(1)
    made = lru_cache(maxsize=2)(partial(Chain, model))  # buffers of a size serve all photographs of that size
    for i, path in enumerate(paths):
        values, geometry = descriptors(path)
        chain = made(geometry)
        codes[i] = chain.scores(chain.encode(values))[0]
    lap("codes")
    gram = codes @ codes.T
    for column in labels.T:
        used = np.flatnonzero(column)
        svm = SVC(C=clf.C_, kernel="precomputed").fit(gram[np.ix_(used, used)], column[used])
        svm.dual_coef_ @ codes[used[svm.support_]]
    lap("SVMs")
    return sum(times.values()), ", ".join(f"{name} {seconds:.1f} s" for name, seconds in times.items())


def expectation_maximisation(y: np.ndarray, components: int, iterations: int) -> tuple[np.ndarray, ...]:
    """A diagonal mixture by EM in float32 products: weights, means, variances in float64."""
    sample = y[np.random.default_rng(0).choice(len(y), min(50_000, len(y)), replace=False)]
    means = kmeans_plusplus(sample, components, random_state=0)[0].astype(np.float64)
    spread = y.var(axis=0, dtype=np.float64)
    variances, weights = np.tile(spread, (components, 1)), np.full(components, 1 / components)
    z = np.concatenate([y * y, y, np.ones((len(y), 1), np.float32)], axis=1)
    dims = y.shape[1]
    for _ in range(iterations):
        constant = np.log(weights) - 0.5 * (np.log(variances) + means**2 / variances).sum(axis=1)
        logits = np.concatenate([-0.5 / variances, means / variances, constant[:, None]], axis=1)
        logits = np.ascontiguousarray((logits - logits.mean(axis=0)).T, np.float32)
        moments = np.zeros((components, 2 * dims + 1))
        for at in range(0, len(y), Chain.BLOCK):
            block = z[at : at + Chain.BLOCK]
            gamma = block @ logits
            gamma -= gamma.max(axis=1, keepdims=True)
            np.exp(np.maximum(gamma, Chain.FLOOR, out=gamma), out=gamma)
            moments += gamma.T @ (block / gamma.sum(axis=1, keepdims=True))
        s0 = np.maximum(moments[:, -1:], 1e-9)
        means = moments[:, dims : 2 * dims] / s0
        variances = np.maximum(moments[:, :dims] / s0 - means**2, 0.01 * spread)
        weights = ((s0 + 100 * len(y) / components) / (s0.sum() + 100 * len(y)))[:, 0]
    return weights, means, variances
