"""The stages of training: descriptors, projection, codes and SVMs. (The mixture's EM is in `gmm`.)

Hides how training stays fast and within memory: descriptors are sampled evenly, codes may be stored in a temporary
file, and SVMs are solved on a Gram matrix that is computed block by block. For the classifier.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from ..data.images import ImageLike, Photograph, naming_one
from ..evaluate import average_precision
from ..runtime import cluster, threads
from ..runtime.progress import Progress
from ..runtime.types import Doubles, Singles, Span, Untyped
from .encoder import PackedModels
from .sift import DenseSIFT, Described, read_grey

T = TypeVar("T")
P = ParamSpec("P")

CODES_IN_MEMORY = 4 << 30  # bytes; larger arrays of codes are stored in a temporary file
TILE = 4096  # rows of codes whose inner products with as many others are one task
CANDIDATES = np.arange(1.6, 7.9, 0.2)  # values of C to choose from, those of the enceval toolkit


def sample_descriptors(
    images: Sequence[ImageLike],
    sift: DenseSIFT,
    max_height: int | None,
    count: int,
    random: np.random.RandomState,
    n_jobs: int | None,
    verbose: bool,
) -> Described:
    """An equal share of each image's descriptors, at most `count` in all: uint8 or float32 (n, 128)."""
    share = max(1, count // len(images))
    seeds = random.randint(np.iinfo(np.int32).max, size=len(images))
    progress = Progress("descriptors of image", len(images), verbose)

    found, pool = [], cluster.workers(n_jobs)
    for values in pool.each(_sample, ((sift, max_height, share, i, images[i], seed) for i, seed in enumerate(seeds))):
        found.append(values)
        progress.step()
    return np.concatenate(found)


def _sample(sift: DenseSIFT, max_height: int | None, share: int, i: int, image: ImageLike, seed: int) -> Described:
    """At most `share` descriptors of the image of number i, in their order."""
    values: Described = naming_one(
        i, image, lambda own: sift.extract_grey(np.asarray(read_grey(own, sift, max_height))).values
    )
    if len(values) <= share:
        return values
    chosen = np.random.default_rng(seed).choice(len(values), share, replace=False, shuffle=False)
    return values[np.sort(chosen)]


def principal_components(sample: Described, count: int) -> tuple[Doubles, Doubles]:
    """Leading principal directions (count, 128) of rows (n, 128), and their mean (128,), in float32's precision.

    The largest element of every direction is positive.
    """
    mean = sample.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((sample.shape[1],) * 2)
    single = mean.astype(np.float32)
    for at in range(0, len(sample), 2048):  # rows whose float32 products stay in cache, and exact to 1e-6
        block = sample[at : at + 2048] - single
        covariance += block.T @ block
    _, vectors = np.linalg.eigh(covariance)
    components = vectors.T[::-1][:count]
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    return _single(components * np.sign(largest)), _single(mean)


def _single(values: Doubles) -> Doubles:
    """float64 values rounded to float32, so that saving a model does not change it."""
    return values.astype(np.float32).astype(np.float64)


def project(sample: Described, components: Doubles, mean: Doubles, n_jobs: int | None) -> Singles:
    """Rows (n, 128) projected: float32 (n, D)."""
    model = PackedModels(components, mean).of(np.float32)
    out = np.empty((len(sample), len(components)), np.float32)

    def block(at: int) -> None:
        out[at : at + 4096] = model.project(sample[at : at + 4096])[:, : len(components)]

    threads.run([partial(block, at) for at in range(0, len(sample), 4096)], n_jobs)
    return out


def remembered(function: Callable[P, T], memory: Untyped) -> Callable[P, T]:
    """`function`, whose results a folder or joblib.Memory keeps: the generator, the threads and the room do not count.

    Raises
    ------
    ValueError
        `memory` is neither.
    """
    from sklearn.utils.validation import check_memory

    kept: Callable[P, T] = check_memory(memory).cache(function, ignore=["random", "how", "room"])
    return kept


def stamps(images: Sequence[ImageLike]) -> list[tuple[int, int] | None]:
    """Size and modification time of an image's file; None for images that are not files."""
    found: list[tuple[int, int] | None] = []
    for image in images:
        path = image.path if isinstance(image, Photograph) else image
        status = None
        if isinstance(path, str | os.PathLike):
            with suppress(OSError):  # whoever reads it says so
                status = os.stat(path)
        found.append(None if status is None else (status.st_size, status.st_mtime_ns))
    return found


@contextmanager
def room_for_codes(n: int, d: int) -> Iterator[Singles]:
    """An array float32 (n, d): in memory, or in a temporary file beyond CODES_IN_MEMORY bytes and for a cluster.

    Raises
    ------
    OSError
        The temporary folder has too little space. All of it is reserved at once, since writing to a mapped file on a
        full disk kills the process.
    """
    if 4 * n * d <= CODES_IN_MEMORY and not cluster.workers(None).remote:
        yield np.empty((n, d), np.float32)
        return
    with tempfile.TemporaryDirectory(prefix="fvlrp-") as folder:
        path = os.path.join(folder, "codes")
        _reserve(path, 4 * n * d)
        codes = np.memmap(path, np.float32, "r+", shape=(n, d))
        try:
            yield codes
        finally:
            del codes


def _reserve(path: str, size: int) -> None:
    """Create a file of `size` bytes with its disk space reserved."""
    folder = os.path.dirname(os.path.dirname(path))
    free = shutil.disk_usage(folder).free
    if size > free:
        raise _no_space(size, free, folder)
    with open(path, "wb") as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                raise _no_space(size, shutil.disk_usage(folder).free, folder) from error


def _no_space(size: int, free: int, folder: str) -> OSError:
    return OSError(
        f"training needs {size} bytes for the images' codes, and the temporary folder {folder} has {free} free: "
        "set TMPDIR to a folder with more space, or train on fewer images"
    )


def encode_images(
    images: Sequence[ImageLike],
    codes: Singles,
    encode: Callable[[ImageLike, bool], Doubles],
    n_jobs: int | None,
    verbose: bool,
) -> None:
    """Write the codes (n, d) of all images, by `encode(image, mirrored)`; with 2 n rows, also of mirror images."""
    progress, pool = Progress("encoded image", len(codes), verbose), cluster.workers(n_jobs)
    kept = pool.keep(encode)
    calls = ((kept, images[i % len(images)], i >= len(images)) for i in range(len(codes)))
    for i, code in enumerate(pool.each(_encoded, calls)):
        codes[i] = code
        progress.step()


def _encoded(encode: Callable[[ImageLike, bool], Doubles], image: ImageLike, mirrored: bool) -> Doubles:
    return encode(image, mirrored)


def fit_svms(
    codes: Singles,
    signs: npt.NDArray[np.int8],
    weights: Doubles,
    C: float | str,
    random: np.random.RandomState,
    copies: int,
) -> tuple[Singles, Doubles, float]:
    """One-vs-rest SVMs for columns of signs (n, n_scores): their weights float32, intercepts and C.

    `weights` (n, n_scores) are those of the images' losses.

    Solved on a Gram matrix made block by block; then w = sum_i a_i y_i x_i. Images of sign 0 are left out. `copies` is
    how many runs of the same images the codes hold.
    """
    from sklearn.svm import SVC

    gram = gram_matrix(codes)
    chosen = choose_c(gram, signs, random, copies, weights=weights) if isinstance(C, str) else float(C)
    duals, intercepts = np.zeros((signs.shape[1], len(codes))), np.zeros(signs.shape[1])
    for row, (column, weight) in enumerate(zip(signs.T, weights.T, strict=True)):
        used = np.flatnonzero(column * weight)
        svm = SVC(C=chosen, kernel="precomputed").fit(gram[np.ix_(used, used)], column[used], weight[used])
        duals[row, used[svm.support_]] = svm.dual_coef_[0]
        intercepts[row] = svm.intercept_[0]
    coef = np.empty((len(duals), codes.shape[1]), np.float32)
    for at in range(0, codes.shape[1], 1 << 10):  # codes become float64: as many as stay in cache
        coef[:, at : at + (1 << 10)] = duals @ codes[:, at : at + (1 << 10)]
    return coef, intercepts, chosen


def gram_matrix(codes: Singles) -> Doubles:
    """Inner products of all rows of codes (n, d), tile by tile of TILE rows: float64 (n, n).

    On a cluster, codes that lie in a file are read from it by the workers, who must see it under the same name.
    """
    pool = cluster.workers(None)
    where: Singles | Mapped = codes
    if isinstance(codes, np.memmap) and pool.remote:
        codes.flush()
        where = Mapped(str(codes.filename), codes.shape, codes.offset)
    gram, kept = np.empty((len(codes),) * 2), pool.keep(where)
    edges = [slice(at, at + TILE) for at in range(0, len(codes), TILE)]
    tiles = [(rows, cols) for i, rows in enumerate(edges) for cols in edges[: i + 1]]
    calls = ((kept, *tile) for tile in tiles)
    for (rows, cols), tile in zip(tiles, pool.each(_gram_tile, calls), strict=True):
        gram[rows, cols], gram[cols, rows] = tile, tile.T
    return gram


class Mapped(NamedTuple):
    """Codes in a file, which pickled would become an array."""

    path: str
    shape: tuple[int, ...]
    offset: int


def _gram_tile(codes: Singles | Mapped, rows: Span, cols: Span) -> Doubles:
    """Inner products of some rows with others. Dimensions are added in float64, a block of them at a time."""
    if isinstance(codes, Mapped):
        codes = np.memmap(codes.path, np.float32, "r", codes.offset, codes.shape)
    one, other = codes[rows], codes[cols]
    total = np.zeros((len(one), len(other)))
    for at in range(0, codes.shape[1], 1 << 12):
        block = one[:, at : at + (1 << 12)]
        total += block @ (block if rows == cols else other[:, at : at + (1 << 12)]).T
    return total


def choose_c(
    gram: Doubles,
    signs: npt.NDArray[np.int8],
    random: np.random.RandomState,
    copies: int = 1,
    folds: int = 5,
    weights: Doubles | None = None,
) -> float:
    """The C among 1.6, 1.8, ..., 7.8 with the best mean average precision in cross-validation on the Gram matrix.

    The rows are `copies` repetitions of the images; all copies of an image are in the same fold.
    """
    from sklearn.svm import SVC

    fold = np.tile(random.permutation(len(gram) // copies) % folds, copies)
    precision = np.zeros(len(CANDIDATES))
    weights = np.ones(signs.shape) if weights is None else weights
    for i, c in enumerate(CANDIDATES):
        scores = np.zeros(signs.shape)
        for f in range(folds):
            out = np.flatnonzero(fold == f)
            if not len(out):  # fewer images than folds
                continue
            for column in range(signs.shape[1]):
                used = np.flatnonzero((fold != f) & (signs[:, column] * weights[:, column] != 0))
                if len(np.unique(signs[used, column])) < 2:
                    continue
                svm = SVC(C=c, kernel="precomputed")
                svm.fit(gram[np.ix_(used, used)], signs[used, column], weights[used, column])
                scores[out, column] = svm.decision_function(gram[np.ix_(out, used)])
        precision[i] = np.nanmean(average_precision(signs, scores))
    return float(round(CANDIDATES[precision.argmax()], 1))
