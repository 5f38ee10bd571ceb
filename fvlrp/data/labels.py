"""Labels in the forms that the classifiers accept: one per image, or a matrix with a column per class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from ..runtime.types import Classes


def parse_labels(
    labels: npt.ArrayLike, n: int, class_names: Iterable[object] | None = None
) -> tuple[npt.NDArray[np.int8], Classes, bool]:
    """Labels as (n, classes) int8 of 1 / 0 (ignored) / -1, the classes, and whether they were a matrix.

    One label per image, or a matrix: VOC's 1 / 0 / -1, or, where no -1 occurs, an indicator of 0 / 1.
    """
    if labels is None:
        raise ValueError("labels must name a class for every image, got None")
    if hasattr(labels, "toarray"):  # a sparse indicator, as scikit-learn's binarizers make them
        labels = labels.toarray()
    given = labels if isinstance(labels, list | tuple) else np.asarray(labels)
    if isinstance(given, list | tuple) or (given.dtype == object and given.ndim):
        _check_one_kind(list(given))
    try:
        array = np.asarray(given)
        if array.dtype == object:  # what pandas holds strings in; a model file takes none
            array = np.array(array.tolist())
    except ValueError:
        raise ValueError("labels must be one per image, or rows of one length with a column per class") from None
    if array.ndim == 0 or len(array) != n:
        raise ValueError(f"labels must have one row per image: {n} images, labels of shape {array.shape}")
    if array.dtype.kind not in "biufU":
        raise ValueError(f"labels must be names, numbers or bools, got {array.ravel()[:5].tolist()}")
    if array.ndim == 2 and array.shape[1] > 0:
        if not np.isin(array, (-1, 0, 1)).all():
            hint = ": give names as one label per image, of shape (n,)" if array.dtype.kind == "U" else ""
            raise ValueError(f"a matrix of labels must hold 1, 0 or -1 only, got {np.unique(array)[:5].tolist()}{hint}")
        names = np.arange(array.shape[1]) if class_names is None else _names(class_names)
        if len(names) != array.shape[1]:
            raise ValueError(f"class_names must name {array.shape[1]} columns of labels, got {len(names)} names")
        signs = array.astype(np.int8) if (array == -1).any() else np.where(array == 1, 1, -1).astype(np.int8)
        for name, column in zip(names, signs.T, strict=True):
            if not (column == 1).any() or not (column == -1).any():
                raise ValueError(
                    f"labels of class {name} must hold examples (1) and counter-examples (-1, or 0 without any -1), "
                    f"got only {np.unique(column).tolist()}: leave its column out"
                )
        return signs, names, True
    if array.ndim != 1:
        raise ValueError(f"labels must have shape (n,) or (n, n_classes), got {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        nan = np.count_nonzero(np.isnan(array))
        raise ValueError(
            f"labels must name a class for every image, {nan} are NaN and {np.count_nonzero(np.isinf(array))} infinite"
        )
    classes, position = np.unique(array, return_inverse=True)
    if array.dtype.kind == "f" and len(classes) == n > 2 and (classes % 1 != 0).any():
        raise ValueError(f"labels must be classes, got {n} different numbers for {n} images, such as {array[0]}")
    if len(classes) < 2:
        raise ValueError(f"labels must hold at least two classes, got {classes.tolist()}")
    if class_names is not None:
        names = _names(class_names)
        if len(names) != len(classes):
            raise ValueError(
                f"class_names must name the {len(classes)} classes {classes.tolist()}, got {len(names)} names"
            )
        _check_no_swap(classes, names)
        classes = names
    return np.where(position[:, None] == np.arange(len(classes)), 1, -1).astype(np.int8), classes, False


def _check_one_kind(labels: Sequence[object]) -> None:
    """Refuse names among numbers: NumPy would make names of all, "nan" of a missing label and "1" of both 1 and "1"."""
    names = [isinstance(label, str) for label in labels]
    if any(names) and not all(names):
        other = labels[names.index(False)]
        if other is None or (isinstance(other, float) and np.isnan(other)):
            raise ValueError(f"labels must name a class for every image, label {names.index(False)} is {other!r}")
        raise ValueError(f"labels must be all names or all numbers, got {labels[names.index(True)]!r} and {other!r}")


def _check_no_swap(classes: Classes, names: Classes) -> None:
    """Refuse names that are labels of other classes: names follow the sorted labels and never swap them."""
    labels = [_folded(label) for label in classes.tolist()]
    for label, name in zip(labels, names.tolist(), strict=True):
        if _folded(name) != label and _folded(name) in labels:
            raise ValueError(
                f"class_names must follow the sorted labels {classes.tolist()}, got {names.tolist()}: {str(name)!r} "
                f"would name the class of label {label!r}; leave class_names out to keep the labels"
            )


def _folded(label: object) -> str | float:
    """A label as it is compared: "Dog" and "dog " are one class, and so are 1.0, "1" and True."""
    if isinstance(label, bool):
        return float(label)
    text = str(label).strip().casefold()
    with suppress(ValueError):
        return float(text)
    return {"false": 0.0, "true": 1.0}.get(text, text)


def _names(class_names: Iterable[object]) -> Classes:
    """Names of classes as an array; a target could not tell two equal ones apart."""
    if isinstance(class_names, str) or not np.iterable(class_names):
        raise ValueError(f"class_names must be a sequence of names, got {class_names!r}")
    if isinstance(class_names, Set | Mapping):  # the order of a set differs from run to run; that of a dict may mean
        raise ValueError(  # anything
            f"class_names must be a sequence of names in the order of the sorted labels, or of the columns, got a "
            f"{type(class_names).__name__}, which has no such order"
        )
    class_names = list(class_names)
    if not all(isinstance(name, str | bool | int | float | np.generic) for name in class_names):
        raise ValueError(f"class_names must be names, numbers or bools, got {class_names}")
    names = np.array(class_names)
    if names.ndim != 1 or len(np.unique(names)) != len(names):
        raise ValueError(f"class_names must be different names, got {list(class_names)}")
    return names


def weights_of(
    signs: npt.NDArray[np.int8],
    classes: Classes,
    exclusive: bool,
    class_weight: Mapping[object, float] | str | None,
    sample_weight: npt.ArrayLike | None,
) -> npt.NDArray[np.float64]:
    """Weight of every image's loss for every class against the rest: (n, n_classes).

    Parameters
    ----------
    signs : (n, n_classes)
        1, 0 (left out) or -1.
    classes : array (n_classes,)
    exclusive : bool
        Whether every image has one class: of two, the one's rest is the other.
    class_weight : dict of class to float, "balanced" or None
        As in scikit-learn; "balanced" gives the images of a class and the rest the same weight in sum, `sample_weight`
        included.
    sample_weight : (n,) or None

    Raises
    ------
    ValueError
        A class that is not there, or weights that are not finite numbers >= 0 with one above.
    """
    own = np.ones(len(signs)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if own.shape != (len(signs),) or not (np.isfinite(own).all() and (own >= 0).all() and own.any()):
        raise ValueError(f"sample_weight must hold {len(signs)} finite numbers >= 0, not all 0; got shape {own.shape}")
    positive, negative = np.ones(len(classes)), np.ones(len(classes))
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f"class_weight must be a dict, 'balanced' or None, got {class_weight!r}")
        there, rest = own @ (signs > 0), own @ (signs < 0)
        positive, negative = ((there + rest) / np.where(side > 0, 2 * side, np.inf) for side in (there, rest))
    elif class_weight is not None:
        given = dict(class_weight)
        positive = np.array([float(given.pop(name, 1)) for name in classes])
        if given or not (np.isfinite(positive).all() and (positive > 0).all()):
            raise ValueError(f"class_weight must give classes of {classes.tolist()} numbers > 0, got {class_weight!r}")
        negative = positive[::-1].copy() if exclusive and len(classes) == 2 else negative
    return own[:, None] * np.where(signs > 0, positive, negative)
