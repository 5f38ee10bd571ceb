"""Comparison of depths and rules: models x rules x depths over photographs, resumable.

For `fvlrp study` and users. A model is any object with `menu`, `trace`, `flipper` and `multilabel_`. Hides the order of
the work and how it is stored in a journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..data.images import ImageLike, grey, load
from ..data.labelled import Boxed, Dataset
from ..runtime import threads
from ..runtime.progress import Progress
from ..runtime.types import Json, Pixels, Untyped
from .evidence import BLIND, NO_RULE, DepthStudy, Row
from .flipping import PixelFlipping, Score, gap, pixel_flipping
from .journal import Journal, key_of
from .localisation import centred_gaussian, localisation
from .maps import gini, resolution, share_held

Measures: TypeAlias = "dict[str, float | None]"  # None means NaN, which JSON does not have
Found: TypeAlias = "dict[str, Measures]"  # by depth

DEFAULT = "default"  # the default rule of a model


class Chosen(Protocol):
    """A target among a model's classes."""

    @property
    def label(self) -> object: ...
    def score(self, scores: npt.NDArray[np.float64], /) -> float: ...


class Choices(Protocol):
    """The valid arguments of a model."""

    @property
    def report_depths(self) -> Sequence[str]: ...
    def depth(self, depth: object, /) -> str: ...
    def rules(self, rules: object, /) -> object: ...
    def target(self, target: object, /) -> Chosen: ...


class Passed(Protocol):
    """A forward pass."""

    @property
    def scores(self) -> npt.NDArray[np.float64]: ...
    @property
    def top(self) -> object: ...
    def explain_all(self, targets: list[Untyped], depths: list[str], rules: object, /) -> Sequence[Mapped]: ...


class Mapped(Protocol):
    """An explanation."""

    @property
    def heatmap(self) -> npt.NDArray[np.float64]: ...


class Model(Protocol):
    """The methods of a classifier that a study calls."""

    @property
    def multilabel_(self) -> bool: ...
    @property
    def menu(self) -> Choices: ...
    def trace(self, image: ImageLike, /) -> Passed: ...
    def flipper(self, image: ImageLike, target: Untyped, /) -> Score: ...


@dataclass(frozen=True, eq=False)
class Case:
    """A photograph and the target to explain.

    Attributes
    ----------
    name : str
        Unique in a study.
    image : path, PIL image or array
    target : class
    boxes : array (m, 4)
        ymin, xmin, ymax, xmax of the objects of that class; none where they are not known.

    Examples
    --------
    >>> from skimage import data
    >>> case = fvlrp.evaluate.Case("chelsea", data.chelsea(), "cat", np.array([[0, 60, 300, 390]]))
    """

    name: str
    image: ImageLike
    target: str | int | float
    boxes: npt.NDArray[np.int64]


def cases(data: Dataset, count: int | None = None, random_state: int = 0) -> list[Case]:
    """Photographs of a data set with one target each; for VOC, the class whose objects cover most of the photograph.

    `count` photographs are drawn at random; None: all. Photographs with only difficult objects are left out.

    Examples
    --------
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> for name in ("cat", "dog"):
    ...     Path("photographs", name).mkdir(parents=True)
    ...     Image.new("RGB", (64, 48)).save(f"photographs/{name}/1.png")
    >>> from fvlrp import datasets
    >>> data = datasets.open_dataset("photographs")
    >>> sorted(case.target for case in fvlrp.evaluate.cases(data))
    ['cat', 'dog']
    """
    found = []
    for i in np.random.default_rng(random_state).permutation(len(data)).tolist():
        case = _case(data, i)
        if case is not None:
            found.append(case)
        if len(found) == count:
            break
    return found


def _case(data: Dataset, i: int) -> Case | None:
    path = data.paths[i]
    if not isinstance(data, Boxed):
        present = [data.class_names[j] for j in np.flatnonzero(data.matrix[i] == 1)]
        return Case(str(path), path, present[0], np.empty((0, 4), np.int64)) if present else None
    boxes = {name: data.boxes(i, name, difficult=False) for name in data.class_names}
    areas = {name: ((own[:, 2] - own[:, 0]) * (own[:, 3] - own[:, 1])).sum() for name, own in boxes.items()}
    target = max(areas, key=lambda name: areas[name])
    return Case(path.stem, path, target, data.boxes(i, target)) if areas[target] else None


def depth_study(
    models: Mapping[str, Model],
    photographs: Sequence[Case],
    *,
    depths: Mapping[str, Sequence[str]] | None = None,
    rules: Mapping[str, Mapping[str, object]] | None = None,
    versions: Mapping[str, str] | None = None,
    region: int = 9,
    steps: int = 100,
    every: int = 5,
    replacement: str = "blur",
    draws: int = 1,
    random_state: int = 0,
    journal: Journal | None = None,
    n_jobs: int | None = None,
    verbose: bool = False,
) -> DepthStudy:
    """Measure the maps of every model, rule and depth, and of model-independent baselines, on the same photographs.

    Choose rules and depths on training or validation photographs, then run the study once on test photographs.

    Parameters
    ----------
    models : mapping of str to classifier
        Models by the names that the table shows.
    photographs : sequence of Case
        Photographs whose target a model does not have are skipped for that model.
    depths : mapping of str to sequence of str, optional
        Depths of each model, coarse to fine; by default ``menu.report_depths``.
    rules : mapping of str to mapping of str to rules, optional
        Rules of each model by the names that the table shows; by default the model's default rules.
    versions : mapping of str to str, optional
        Version of each model, by which the journal distinguishes models of the same name.
    region, steps, every, replacement, draws, random_state
        As for `pixel_flipping`.
    journal : Journal, optional
        Stores finished work, photograph by photograph and rule by rule; a study with more rules or photographs
        continues from it. It identifies models by name and version, and photographs by name.
    n_jobs : int or None
        Photographs in parallel, as in scikit-learn. Results do not depend on it.
    verbose : bool
        Whether to show progress on stderr.

    Returns
    -------
    DepthStudy

    Raises
    ------
    ValueError
        Before any work: an unknown depth or rule, a name that is not in `models`, two photographs of the same name.

    Examples
    --------
    >>> from skimage import data
    >>> cat = fvlrp.evaluate.Case("chelsea", data.chelsea()[::2, ::2], "cat", np.array([[0, 30, 150, 195]]))
    >>> study = fvlrp.evaluate.depth_study({"voc20": fvlrp.load("voc20")}, [cat], steps=10)
    >>> len(study.values("voc20", "default", "bin", "gap"))
    1
    """
    if len({case.name for case in photographs}) < len(photographs):
        raise ValueError("photographs have names that are not unique")
    for name, given in (("depths", depths), ("rules", rules)):
        unknown = set(given or {}) - set(models)
        if unknown:
            raise ValueError(f"{name} names {sorted(unknown)}, none of the models {', '.join(models)}")
    flips: dict[str, Untyped] = {
        "region": region,
        "steps": steps,
        "every": every,
        "replacement": replacement,
        "draws": draws,
    }
    plan = [
        _Model(
            label,
            (versions or {}).get(label, ""),
            model,
            (depths or {}).get(label),
            (rules or {}).get(label),
            flips,
            random_state,
        )
        for label, model in models.items()
    ]
    known = Journal() if journal is None else journal
    pairs = [(model, case) for case in photographs for model in plan if model.knows(case)]
    progress = Progress("studied photograph and model", len(pairs), verbose)
    failed: list[dict[str, str]] = []

    def one(model: _Model, case: Case) -> None:
        try:
            model.study(case, known)
        except Exception as error:  # one photograph must not end hours of work
            failed.append({"photo": case.name, "model": model.label, "error": str(error)})
        progress.step()

    for _ in threads.stream((partial(one, *pair) for pair in pairs), n_jobs):
        pass
    rows = [row for model in plan for row in model.rows(photographs, known)]
    settings: dict[str, Json] = {**flips, "random_state": random_state}
    return DepthStudy(rows, [case.name for case in photographs], settings, failed)


class _Model:
    """One model of a study: its depths and rules, and the measurement of a photograph."""

    def __init__(
        self,
        label: str,
        version: str,
        model: Model,
        depths: Sequence[str] | None,
        rules: Mapping[str, object] | None,
        flips: Mapping[str, Untyped],
        random_state: int,
    ) -> None:
        self.label, self._version, self._model, self._flips, self._seed = label, version, model, flips, random_state
        menu = model.menu
        self._depths = [menu.depth(depth) for depth in (menu.report_depths if depths is None else depths)]
        self._rules = {name: menu.rules(value) for name, value in ({DEFAULT: None} if rules is None else rules).items()}

    def knows(self, case: Case) -> bool:
        """Whether the model has the class."""
        try:
            self._model.menu.target(case.target)
        except ValueError:
            return False
        return True

    def study(self, case: Case, journal: Journal) -> None:
        """Measure what the journal does not have yet."""
        missing = {name: self._key(case, name) for name in (NO_RULE, *self._rules)}
        missing = {name: key for name, key in missing.items() if key not in journal}
        if not missing:
            return
        trace, pixels = self._model.trace(case.image), load(case.image)
        target = self._model.menu.target(case.target)
        score = float(target.score(trace.scores))
        hit = score > 0 if self._model.multilabel_ else trace.top == target.label
        flipper = self._model.flipper(case.image, case.target)
        for name, key in missing.items():
            if name == NO_RULE:
                maps = _blind_maps(pixels, np.random.default_rng([self._seed, *case.name.encode()]))
            else:
                explanations = trace.explain_all([case.target], self._depths, self._rules[name])
                maps = dict(zip(self._depths, [ex.heatmap for ex in explanations], strict=True))
            flipped = pixel_flipping(
                flipper,
                pixels,
                list(maps.values()),
                order=("morf", "lerf"),
                random_state=self._seed,
                n_jobs=1,
                **self._flips,
            )
            pairs = zip(maps.items(), flipped[::2], flipped[1::2], strict=True)
            found = {depth: _measured(own, case, score, hit, *flips) for (depth, own), *flips in pairs}
            journal.put(key, found)

    def rows(self, photographs: Sequence[Case], journal: Journal) -> list[Row]:
        """The journal's results for this model: rules and depths, then the blind maps."""
        rows = []
        for rule, depths in (*((name, self._depths) for name in self._rules), (NO_RULE, BLIND)):
            keys = [self._key(case, rule) for case in photographs]
            found: list[Found] = [journal.get(key, {}) for key in keys]
            for depth in depths:
                measured = [one.get(depth, {}) for one in found]
                values = {name: _array([one.get(name) for one in measured]) for name in MEASURES}
                rows.append(Row(self.label, rule, depth, values))
        return rows

    def _key(self, case: Case, rule: str) -> str:
        """What a result depends on, apart from the model and the pixels."""
        spelled = "" if rule == NO_RULE else f"{self._rules[rule]!r} {self._depths}"
        work = f"{case.target!r} {self._flips!r} {self._seed} {spelled}"
        return key_of(self.label, self._version, case.name, np.asarray(case.boxes), work)


MEASURES = ("morf", "lerf", "gap", "context", "mass", "pointing", "gini", "resolution", "share")


def _measured(
    heatmap: npt.NDArray[np.float64], case: Case, score: float, hit: bool, most: PixelFlipping, least: PixelFlipping
) -> Measures:
    own, _ = localisation(heatmap, case.boxes)
    amounts = {
        "morf": most.aopc,
        "lerf": least.aopc,
        "gap": gap(most, least),
        "context": own.context if hit else float("nan"),
        "mass": own.mass,
        "pointing": own.pointing,
        "gini": gini(heatmap),
        "resolution": resolution(heatmap),
        "share": share_held(heatmap, score),
    }
    return {name: None if np.isnan(amount) else amount for name, amount in amounts.items()}


def _blind_maps(pixels: Pixels, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float64]]:
    """The blind maps: baselines that do not depend on the model."""
    height, width = pixels.shape[:2]
    edge = np.hypot(*np.gradient(grey(pixels).astype(np.float64)))
    return {"random": rng.standard_normal((height, width)), "centre": centred_gaussian(height, width), "edge": edge}


def _array(amounts: Sequence[float | None]) -> npt.NDArray[np.float64]:
    return np.array([np.nan if amount is None else amount for amount in amounts], np.float64)
