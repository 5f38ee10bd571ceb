"""`fvlrp evaluate`: average precision of models on labelled photographs; accuracy and confusions, of one class each."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .. import evaluate
from ..data import datasets
from ..runtime import threads
from ..runtime.progress import Progress
from ..runtime.types import Classes
from . import options
from .output import FAILED, OK, Record, result, tell_failure


def add_options(parser: ArgumentParser) -> None:
    options.add_dataset(parser, "to score (val)")
    options.add_model(parser, several=True)


def run(args: Namespace) -> int:
    data = datasets.open_dataset(args.data, args.split)
    names = args.model or ["voc20"]
    models = [options.load_model(args, name) for name in names]
    columns = [_columns(clf.classes_, data.class_names, name) for name, clf in zip(names, models, strict=True)]
    results: list[Record] = []
    broken: dict[str, str] = {}
    for name, clf, own in zip(names, models, columns, strict=True):
        scores = _scores(clf, data.paths, broken, args)[:, own]
        read = ~np.isnan(scores).any(axis=1)
        if not read.any():
            raise OSError(
                f"none of the {len(data)} photographs could be read; the first: {next(iter(broken.values()))}"
            )
        labels = data.matrix[read]
        methods = ("11point", "area")
        table = {method: np.asarray(evaluate.average_precision(labels, scores[read], method)) for method in methods}
        results.append(
            {
                "model": name,
                "images": int(read.sum()),
                "mean": {m: None if np.isnan(ap).all() else float(np.nanmean(ap)) for m, ap in table.items()},
                "classes": {
                    str(label): {method: _number(ap[i]) for method, ap in table.items()}
                    for i, label in enumerate(data.class_names)
                },
                **({} if data.labels.ndim == 2 else _confusion(labels, scores[read])),
            }
        )
    for path, error in broken.items():
        tell_failure(path, error)
    failed = [{"photo": path, "error": error} for path, error in broken.items()]
    result(args, {"results": results, "failed": failed}, _table(results))
    return FAILED if broken else OK


def _scores(
    clf: options.Model, paths: Sequence[Path], broken: dict[str, str], args: Namespace
) -> npt.NDArray[np.float64]:
    """Scores (n, classes) of every photograph; NaN for those that cannot be read, which `broken` then explains."""
    progress = Progress("scored photograph", len(paths), not args.quiet)

    def one(path: Path) -> npt.NDArray[np.float64]:
        try:
            scores: npt.NDArray[np.float64] = clf.scores(path)
            return scores
        except (ValueError, OSError) as error:
            broken[str(path)] = str(error)
            return np.full(len(clf.classes_), np.nan)
        finally:
            progress.step()

    return np.array(threads.run([partial(one, path) for path in paths], args.jobs))


def _confusion(labels: npt.NDArray[np.int8], scores: npt.NDArray[np.float64]) -> Record:
    """Accuracy, and how often a photograph of class i (row) has its best score for class j (column)."""
    counts = np.zeros((labels.shape[1],) * 2, int)
    np.add.at(counts, (labels.argmax(axis=1), scores.argmax(axis=1)), 1)
    return {"accuracy": round(float(np.trace(counts) / counts.sum()), 4), "confusion": counts.tolist()}


def _columns(classes: Classes, wanted: Sequence[str], model: str) -> list[int]:
    known = [str(name) for name in classes]
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ValueError(f"{model} does not know the class {missing[0]!r}; it has {', '.join(known[:40])}")
    return [known.index(name) for name in wanted]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _table(results: Sequence[Record]) -> str:
    """Average precision in percent, a row per class, two columns per model."""
    width = max(len(name) for name in [*results[0]["classes"], "class"])
    heads = [f"{Path(r['model']).stem[:14]:>14} {'(area)':>7}" for r in results]
    lines = [f"{'class':<{width}} " + " ".join(heads)]
    for name in results[0]["classes"]:
        cells = [r["classes"][name] for r in results]
        lines.append(
            f"{name:<{width}} " + " ".join(f"{_percent(c['11point']):>14} {_percent(c['area']):>7}" for c in cells)
        )
    means = [r["mean"] for r in results]
    lines.append(
        f"{'mean':<{width}} " + " ".join(f"{_percent(m['11point']):>14} {_percent(m['area']):>7}" for m in means)
    )
    return "\n".join([*lines, *(line for r in results if "accuracy" in r for line in _mistakes(r))])


def _mistakes(result: Record, most: int = 10) -> list[str]:
    """Accuracy of one model in percent, and its most frequent mistakes."""
    names, counts = list(result["classes"]), np.array(result["confusion"])
    right = int(np.trace(counts))
    lines = ["", f"{Path(result['model']).stem}: accuracy {_percent(result['accuracy'])} ({right} of {counts.sum()})"]
    np.fill_diagonal(counts, 0)
    often = np.argsort(-counts, axis=None, kind="stable")[:most]
    wrong = [(counts.flat[at], *divmod(int(at), len(names))) for at in often if counts.flat[at]]
    return lines + [f"  {n:>5} of {names[i]} taken for {names[j]}" for n, i, j in wrong]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
