"""The Fisher-vector classifier as a stack that can be traced: normalisation, linear scores, and the way to pixels.

Between pixels and the normalised vector lie dense SIFT and pooling, which have files of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from .. import _kernels
from ..core.menu import Menu
from ..core.target import Target
from ..core.trace import EXACT, Descent, Trace
from ..data import images
from ..runtime import threads
from ..runtime.memory import Memory, empty, zeros
from .geometry import BINS, Geometry
from .pooling import DescriptorRelevance, Fisher, Pooled
from .rules import FisherRules
from .sift import DenseSIFT
from .supports import Supports

DEPTHS = ("vector", "descriptor", "bin", "gradient")  # coarse to fine
VALUES = {"bin": ("bin", BINS * BINS), "gradient": ("sift", 128)}  # what a depth needs: name, values a descriptor
PASS = 64 << 20  # bytes of such values, for one scale, that the targets of one pass may fill
TOGETHER = 8  # targets of one pass: their tables of one cell fill the kernel's part of the second cache
PART = 24 << 20  # bytes up to which scales are walked together
STEADY = 10.0  # stabilisers from which float denominators do; at 100 heatmaps agree with double to 9e-5


# ---- normalisation and linear scores ---------------------------------------------------------------------------------


class Normalise:
    """Per-cell L2, then the signed square root, then one global L2: the improved Fisher vector.

    Elementwise and sign-preserving but for constants per cell, it passes relevance on unchanged.
    """

    name = "normalise"

    def forward(self, sums: np.ndarray) -> tuple[np.ndarray, None]:
        """Sums (cells, 2, K, D) -> vector float64 (cells * 2 K D,). 1 / N cancels in the first norm."""
        return _kernels.normalise(sums.reshape(len(sums), -1)), None

    def relevance(self, r: np.ndarray, saved: None, rules: FisherRules) -> np.ndarray:
        return r


class Linear:
    """Scores w . x + b of a linear classifier.

    Parameters
    ----------
    coef : float32 (n_scores, d)
    intercept : float64 (n_scores,)
    """

    name = "linear"

    def __init__(self, coef: np.ndarray, intercept: np.ndarray):
        self.coef, self.intercept = coef, intercept

    def forward(self, x: np.ndarray, exact: bool = False, n_jobs=None) -> tuple[np.ndarray, np.ndarray]:
        """x float64 (d,) -> scores float64 (n_scores,); saves x."""
        if exact or self.coef.dtype != np.float32:
            return np.concatenate([row[None].astype(np.float64) @ x for row in self.coef]) + self.intercept, x
        scores, narrow = np.empty(len(self.coef)), x.astype(np.float32)
        groups = np.array_split(np.arange(len(scores)), min(threads.count(n_jobs), len(scores)))
        threads.run(
            [
                partial(_kernels.scores, self.coef[rows[0] : rows[-1] + 1], narrow, scores[rows[0] : rows[-1] + 1])
                for rows in groups
            ],
            n_jobs,
        )
        return scores + self.intercept, x

    def relevance(self, terms: np.ndarray, saved: np.ndarray, rules: FisherRules, sums: np.ndarray, out=None):
        """R of each dimension, float64 (d,), w_d x_d and its part of the intercept; and what "ignore" leaves out.

        `terms` (n_scores,) are the coefficients of the explained sum of scores; `sums` (d,) tell which dimensions hold
        anything (S != 0); `out` may be an array for the result.
        """
        used = np.flatnonzero(terms)
        bias = float(terms[used] @ self.intercept[used])
        r = np.multiply(self.coef[used[0]], saved, out=out, dtype=np.float64)
        if terms[used[0]] != 1:
            r *= terms[used[0]]
        for row in used[1:]:
            r += terms[row] * np.multiply(self.coef[row], saved, dtype=np.float64)
        if rules.bias == "distribute":
            r += bias / len(r)
            return r, 0.0
        if rules.bias == "active" and sums.any():
            active = sums != 0
            r[active] += bias / np.count_nonzero(active)
            return r, 0.0
        return r, bias


# ---- one image: trace and explanations -------------------------------------------------------------------------------


class FisherStack:
    """pixels -> dense SIFT -> Fisher sums -> normalised vector -> linear scores, as one value that can be traced."""

    def __init__(self, sift: DenseSIFT, fisher: Fisher, linear: Linear | None, classes: Sequence, max_height):
        self.sift, self.fisher, self.linear, self.menu = sift, fisher, linear, FisherMenu(classes)
        self.classes = self.menu.classes
        self.normalise = Normalise()
        self.max_height = max_height

    def grey(self, image) -> np.ndarray:
        """Image in, grey float32 of working size out; it may be smaller than the input (see `max_height`)."""
        grey = images.grey(image, self.max_height)
        if grey.shape[0] == self.max_height and not self.sift.geometry(*grey.shape).n:
            height, width = images.load(image).shape[:2]
            if height > self.max_height:  # else what is computed from it says that it is too small
                sizes = self.sift.bin_sizes
                side = Geometry.smallest_side(sizes)
                raise ValueError(
                    f"image of {height} x {width} pixels is too small once max_height={self.max_height} makes it "
                    f"{grey.shape[0]} x {grey.shape[1]}: bin_sizes={sizes} need at least {side} x {side}; "
                    "raise max_height or choose smaller bin_sizes"
                )
        return grey

    def encode(self, image, dtype=np.float32, mirror: bool = False, n_jobs=None) -> np.ndarray:
        """The improved Fisher vector of an image, float64 (cells * 2 K D,)."""
        grey = self.grey(image)
        if mirror:
            grey = np.ascontiguousarray(grey[:, ::-1])
        sums, _ = self.fisher.forward(self.sift.extract_grey(grey, n_jobs), dtype, n_jobs, keep=False)
        return self.normalise.forward(sums)[0]

    def scores(self, image, dtype=np.float32, n_jobs=None) -> np.ndarray:
        """Scores of every class, float64 (n_classes,)."""
        x = self.encode(image, dtype, n_jobs=n_jobs)
        return self.per_class(self.linear.forward(x, np.dtype(dtype) == EXACT, n_jobs)[0])

    def hyperplanes(self, target: Target) -> np.ndarray:
        """Coefficients of a target over the hyperplanes; two classes with one hyperplane have -f and f."""
        terms = target.coefficients(len(self.classes))
        two = len(self.linear.coef) == 1 and len(self.classes) == 2
        return terms[1:] - terms[:1] if two else terms

    def trace(self, image, dtype="float32") -> FisherTrace:
        """One forward pass of one image."""
        return FisherTrace(self, image, dtype)

    def per_class(self, scores: np.ndarray) -> np.ndarray:
        """One score per class: of two classes with one hyperplane, positive speaks for the second."""
        two = len(scores) == 1 and len(self.classes) == 2
        return np.array([-scores[0], scores[0]]) if two else scores


class FisherMenu(Menu):
    """What a Fisher-vector classifier's explanations can be asked for."""

    def __init__(self, classes: Sequence):
        super().__init__(
            classes,
            DEPTHS,
            "bin",
            representations=("vector", "descriptor", "pca", "sift", "bin"),
            figure_depths=("bin", "descriptor"),
            report_depths=DEPTHS,
        )

    def rules(self, rules) -> FisherRules:
        return FisherRules.of(rules)


def _bytes_of(depths: list[str], dtype) -> int:
    """Bytes a descriptor and target of what the depths need, at most."""
    return 8 + np.dtype(dtype).itemsize * sum(VALUES[depth][1] for depth in depths if depth in VALUES)


def _parts(scales: list, size: int) -> list[list]:
    """Consecutive scales in groups of at most PART bytes, `size` each descriptor; at least one scale a group."""
    parts: list[list] = []
    for scale in scales:
        if parts and size * (scale.slice.stop - parts[-1][0].start) <= PART:
            parts[-1].append(scale)
        else:
            parts.append([scale])
    return parts


class FisherTrace(Trace):
    """The forward pass of one image through a Fisher-vector classifier.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    grey : float32 (h, w), what was explained: `image`, perhaps reduced
    descriptors : Descriptors
    vector : float64 (cells * 2 K D,), the normalised Fisher vector
    scores, classes : as in Trace
    """

    kind = "Fisher vector"

    def __init__(self, stack: FisherStack, image, dtype=np.float32, n_jobs=None):
        super().__init__(stack, image, dtype, stack.menu)
        dtype = self.dtype
        self.stack, self.n_jobs = stack, n_jobs
        self.grey = stack.grey(self.source)
        self.descriptors = stack.sift.extract_grey(self.grey, n_jobs)
        self._forward: dict[np.dtype, Pooled] = {}
        self._settled: tuple[tuple, Pooled] | None = None  # stabilisers, and the pass settled for them
        self.vector, _ = stack.normalise.forward(self._pooled(dtype).sums)
        scores, self._saved = stack.linear.forward(self.vector, dtype == EXACT, n_jobs)
        self.scores = stack.per_class(scores)
        self._known = {dtype: (self._saved, self.scores)}

    def _pooled(self, dtype) -> Pooled:
        if dtype not in self._forward:
            self._forward[dtype] = self.stack.fisher.forward(self.descriptors, dtype, self.n_jobs)[1]
        return self._forward[dtype]

    def _walked(self, rules: FisherRules) -> Pooled:
        """The pass that relevance walks back through.

        With a small stabiliser, float denominators are noise near 0: at epsilon 1 heatmaps of smooth photographs were
        off by up to 1 %. And a rule that counts nonzero sums must not hang on a float posterior that slips past the
        gate, which makes a component's sums nonzero. Both walk in double. Of other passes the sums are settled; a sum
        near 0 has little relevance where the intercept is left out.
        """
        counts = rules.bias == "active" or rules.eps_mode == "relative"
        steady = not counts and min(rules.epsilon_pool, rules.epsilon_pca) >= STEADY
        pooled = self._pooled(self.dtype if steady else EXACT)
        if pooled.zero.y.dtype == EXACT or rules.bias == "ignore":
            return pooled
        epsilon = self._stabilisers(pooled, rules)
        key, last = tuple(epsilon), self._settled  # replaced as a whole: threads may walk together
        if last is None or last[0] != key:
            settled = self.stack.fisher.settled(pooled, epsilon, lambda: self._pooled(EXACT).sums, self.n_jobs)
            self._settled = last = key, settled
        return last[1]

    def _scored(self, pooled: Pooled) -> tuple[np.ndarray, np.ndarray]:
        """Vector and scores of a pass: shares divide by its sums, so that what they share must be its own.

        Not of settled sums: these differ next to 0 alone, and scores stay those that the trace shows.
        """
        dtype = pooled.zero.y.dtype
        if dtype not in self._known:
            x, _ = self.stack.normalise.forward(pooled.sums)
            self._known[dtype] = (x, self.stack.per_class(self.stack.linear.forward(x, exact=True)[0]))
        return self._known[dtype]

    def _start(self, target: Target, pooled: Pooled, rules: FisherRules, out=None) -> tuple[np.ndarray, float]:
        """Relevance of the vector's dimensions for a target, in the sums' shape, and the intercept left out.

        `out` may be an array for the result.
        """
        sums = pooled.sums
        x, _ = self._scored(pooled)
        flat = None if out is None else out.reshape(-1)
        terms = self.stack.hyperplanes(target)
        r, bias = self.stack.linear.relevance(terms, x, rules, sums.reshape(-1), flat)
        return self.stack.normalise.relevance(r, None, rules).reshape(sums.shape), bias

    def _stabilisers(self, pooled: Pooled, rules: FisherRules) -> np.ndarray:
        """Epsilon of each cell's sums, float64 (cells,)."""
        if rules.eps_mode == "relative":  # in units of the median |S| of each cell
            medians = [np.median(np.abs(s[s != 0])) if s.any() else 0.0 for s in pooled.sums]
            return np.array(medians) * rules.epsilon_pool
        # S / N and Psi / N stabilised by epsilon are S and Psi stabilised by N epsilon.
        return rules.epsilon_pool * (pooled.counts if rules.pool_scale == "mean" else np.ones(len(pooled.counts)))

    def _shares(self, r, pooled: Pooled, rules: FisherRules, out=None) -> tuple[np.ndarray, dict[str, float]]:
        """R / (S + epsilon sgn S) of every dimension, and where the rest stays: absorbed, empty cells, zero sums.

        `out` may be an array for the shares, `r` itself among them.
        """
        sums, counts, epsilon = pooled.sums, pooled.counts, self._stabilisers(pooled, rules)
        # With no stabiliser, a sum that rounding cannot tell from 0 is 0: dividing by it would amplify noise.
        spread = None if rules.epsilon_pool else self.stack.fisher.spread(pooled).reshape(len(sums), -1)
        flat = (len(sums), -1)
        out = np.empty_like(sums) if out is None else out
        shares, left = _kernels.shares(r.reshape(flat), sums.reshape(flat), counts, epsilon, spread, out.reshape(flat))
        return shares.reshape(sums.shape), dict(zip(("absorbed_pool", "empty_cell", "zero_sum"), left, strict=True))

    def _descend(self, targets: Sequence[Target], depths: Sequence[str], rules: FisherRules) -> list[Descent]:
        pooled = self._walked(rules)
        self._scored(pooled)
        together = min(self._targets_in_one_pass(depths), len(targets))
        starts = empty((together, *pooled.sums.shape), np.float64)
        memory = Memory(pooled.zero.y.dtype)
        descents = []
        for at in range(0, len(targets), together):
            descents += self._descend_together(targets[at : at + together], depths, rules, pooled, starts, memory)
        return descents

    def _descend_together(self, targets, depths, rules, pooled: Pooled, starts: np.ndarray, memory: Memory) -> list:
        """Descents of a few targets; `starts`, the sums' shape for each of as many, and `memory` are to work in."""
        below = [depth for depth in depths if depth != "vector"]

        def begin(target: Target, room: np.ndarray) -> tuple:
            """A target's relevance of each cell and the bias left out, its shares and what they leave behind."""
            r, bias = self._start(target, pooled, rules, room)
            cells = r.reshape(len(r), -1).sum(axis=1) if "vector" in depths else None
            return cells, bias, *(self._shares(r, pooled, rules, room) if below else (None, {}))

        tasks = [partial(begin, *pair) for pair in zip(targets, starts, strict=False)]
        cells, biases, shares, losses = zip(*threads.run(tasks, self.n_jobs), strict=True)
        found = self.descend(shares, pooled, below, rules, memory) if below else {}
        descents = []
        for t, target in enumerate(targets):
            for depth in depths:
                entries = {} if rules.bias == "distribute" else {"bias": biases[t]}
                if depth == "vector":
                    supports = Supports(self.descriptors.geometry, self.stack.fisher.pyramid)
                    pixels, lost = supports.vector(cells[t])
                    entries |= {"empty_cell": lost}
                else:
                    pixels, rest = found[t, depth]
                    entries |= losses[t] | rest
                heatmap = images.resample_conserving(pixels, self.image.shape[:2])
                descents.append(Descent(heatmap, target.score(self._scored(pooled)[1]), entries))
        return descents

    def _targets_in_one_pass(self, depths: list[str]) -> int:
        """Targets whose values of one scale fit into PASS bytes, TOGETHER at most; at least one."""
        most = max(scale.count for scale in self.descriptors.geometry.scales)
        return max(1, min(TOGETHER, PASS // (most * _bytes_of(depths, self.dtype))))

    def descend(
        self, shares: Sequence[np.ndarray], pooled: Pooled, depths: list[str], rules: FisherRules, memory: Memory
    ) -> dict:
        """From shares of the sums, one (cells, 2, K, D) for each target, to pixels at depths below the vector.

        Scale by scale, so that what lies between is never there for the whole image; scales that are small go
        together, for the threads to have enough to do. `memory`, of the walk's type, is to work in.

        Returns
        -------
        dict of (target's number, depth) to (pixels float64 (h, w), entries of the ledger)
        """
        fisher, dtype = self.stack.fisher, pooled.zero.y.dtype
        scales = [scale for scale in self.descriptors.geometry.scales if scale.count]
        parts = _parts(scales, len(shares) * _bytes_of(depths, dtype))
        want = frozenset(VALUES[depth][0] if depth in VALUES else "total" for depth in depths)
        tables = fisher.tables(shares, pooled, self.n_jobs, memory)
        supports = Supports(self.descriptors.geometry, fisher.pyramid)
        keys = [(t, depth) for t in range(len(shares)) for depth in depths]
        pixels = {key: zeros(self.grey.shape) for key in keys}
        clipped, zero_bin = dict.fromkeys(keys, 0.0), dict.fromkeys(keys, 0.0)
        absorbed, past, dropped = np.zeros((3, len(shares)))
        for part in parts:
            begin, end = part[0].start, part[-1].slice.stop
            below = fisher.relevance(tables, pooled, rules, want, self.n_jobs, (begin, end), memory)
            absorbed += below.absorbed
            past += below.mean
            dropped += below.zero_desc
            for key, lost in self._spread(part, below, supports, rules, pixels):
                (zero_bin if key[1] == "gradient" else clipped)[key] += lost
        found = {}
        for t, depth in keys:
            entries = {}
            if depth != "descriptor":
                entries = {"absorbed_pca": absorbed[t], "zero_desc": dropped[t]}
                if fisher.mean_treatment(rules) == "bias":
                    entries["pca_mean"] = past[t]
            lost = {"zero_bin": zero_bin[t, depth]} if depth == "gradient" else {"clipped": clipped[t, depth]}
            found[t, depth] = pixels[t, depth], entries | lost
        return found

    def _spread(self, part, below: DescriptorRelevance, supports: Supports, rules: FisherRules, pixels: dict) -> list:
        """ADD relevance of consecutive scales to the pixels of each (target, depth); (key, what is lost) in order.

        Where there are fewer maps than workers, each is cut into bands of rows or, at gradient depth, one of its own is
        filled for each scale.
        """
        tasks_a_map = -(-threads.count(self.n_jobs) // len(pixels))
        edges = np.linspace(0, len(self.grey), min(tasks_a_map, len(self.grey)) + 1).astype(int).tolist()

        def rows(scale) -> slice:
            return slice(scale.start - part[0].start, scale.slice.stop - part[0].start)

        def flat(key, band) -> list[float]:
            lost = []
            for scale in part:
                t, depth = key
                bins, values = (BINS, below.bins) if depth == "bin" else (1, below.total)
                values = values[t, rows(scale)]
                supports.spread(scale, values, bins, rules, pixels[key], band)
                lost += [supports.clipped(scale, values, bins, rules)] if band[0] == 0 else []
            return lost

        def exact(key, scales, to) -> list[float]:
            return [self.stack.sift.spread(self.grey, s, below.sift[key[0], rows(s)], to) for s in scales]

        tasks, own = [], []
        for key, whole in pixels.items():
            if key[1] != "gradient":
                tasks += [(key, partial(flat, key, band)) for band in pairwise(edges)]
            elif tasks_a_map == 1 or len(part) == 1:
                tasks.append((key, partial(exact, key, part, whole)))
            else:
                maps = [zeros(whole.shape) for _ in part]
                own += [(whole, one) for one in maps]
                tasks += [(key, partial(exact, key, [scale], to)) for scale, to in zip(part, maps, strict=True)]
        done = threads.run([task for _, task in tasks], self.n_jobs)
        for whole, one in own:
            whole += one
        return [(key, lost) for (key, _), losses in zip(tasks, done, strict=True) for lost in losses]

    def relevance(self, target: Target, depth: str, rules: FisherRules, name: str) -> np.ndarray:
        pooled = self._walked(rules)
        r, _ = self._start(target, pooled, rules)
        if name == "vector":
            return r.ravel()
        shares, _ = self._shares(r, pooled, rules)
        fisher, want = self.stack.fisher, "total" if name == "descriptor" else name
        found = fisher.relevance(fisher.tables([shares], pooled), pooled, rules, frozenset({want}), self.n_jobs)
        return {"total": found.total, "pca": found.pca, "sift": found.sift, "bin": found.bins}[want][0]
