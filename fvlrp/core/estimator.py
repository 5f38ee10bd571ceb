"""scikit-learn's estimator interface without importing scikit-learn, which takes ten times as long as a heatmap.

Hides how parameters are read and set, and the twin that answers rarer requests. For the estimators of `fisher`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any, Self, TypeAlias

from ..runtime.types import Floats, Untyped

ROUTED = ("fit", "fit_transform", "predict", "predict_proba", "decision_function", "score", "transform")
# The value of a parameter.
Parameter: TypeAlias = Any  # type: ignore[explicit-any]  # each has a type of its own, and users may set any

CONTAINERS = ("default", "pandas", "polars")


class Estimator:
    """An estimator as scikit-learn's developer guide defines it: parameters are the arguments of `__init__`.

    Tags, the display in notebooks and metadata routing come from a twin: an object of the same name and parameters
    that inherits from scikit-learn's classes and is created on demand. Estimators thus work in ``clone``, pipelines
    and searches, but can be loaded and applied without scikit-learn.
    """

    _mixins: tuple[str, ...] = ()  # classes of sklearn.base that the twin inherits from, in addition to BaseEstimator
    _by_place: tuple[str, ...] = ()  # arguments of the methods, other than X and y, that are not metadata to route
    _metadata_request: Untyped

    @classmethod
    def _defaults(cls) -> dict[str, Parameter]:
        """Parameters in the order of `__init__`, with their defaults."""
        if cls.__init__ is object.__init__:
            return {}
        arguments = list(inspect.signature(cls.__init__).parameters.values())[1:]
        return {argument.name: argument.default for argument in arguments}

    def get_params(self, deep: bool = True) -> dict[str, Parameter]:
        """Parameters by name; with `deep`, parameters of nested estimators, too, as ``name__parameter``."""
        params = {name: getattr(self, name) for name in self._defaults()}
        if deep:
            for name, value in list(params.items()):
                if hasattr(value, "get_params") and not isinstance(value, type):
                    params |= {f"{name}__{inner}": its for inner, its in value.get_params().items()}
        return params

    def set_params(self, **params: Parameter) -> Self:
        """Set parameters by name, those of nested estimators as ``name__parameter``. Returns self."""
        valid = self._defaults()
        nested: dict[str, dict[str, Parameter]] = {}
        for key, value in params.items():
            name, separator, inner = key.partition("__")
            if name not in valid:
                raise ValueError(
                    f"Invalid parameter {name!r} for {type(self).__name__}; valid parameters are {', '.join(valid)}"
                )
            if separator:
                nested.setdefault(name, {})[inner] = value
            else:
                setattr(self, name, value)
        for name, inner_params in nested.items():
            getattr(self, name).set_params(**inner_params)
        return self

    def __repr__(self) -> str:
        """The parameters that differ from their defaults, in scikit-learn's format."""
        defaults = self._defaults()
        values = sorted(self.get_params(deep=False).items())
        changed = [f"{name}={value!r}" for name, value in values if repr(value) != repr(defaults[name])]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Untyped:
        return self._twin().__sklearn_tags__()

    def _repr_html_(self) -> str:
        html: str = self._twin()._repr_html_()
        return html

    def get_metadata_routing(self) -> Untyped:
        """The metadata that the methods request, for scikit-learn's metadata routing."""
        return self._twin().get_metadata_routing()

    def set_fit_request(self, **requests: object) -> Self:
        """Ask for metadata to be routed to `fit`, such as ``sample_weight=True``. Returns self."""
        return self._request("set_fit_request", requests)

    def set_score_request(self, **requests: object) -> Self:
        """Ask for metadata to be routed to `score`. Returns self."""
        return self._request("set_score_request", requests)

    def _request(self, name: str, requests: dict[str, Parameter]) -> Self:
        """Record a request for metadata with the twin, and keep it where ``clone`` looks for it."""
        twin = self._twin()
        getattr(twin, name)(**requests)
        self._metadata_request = twin._metadata_request
        return self

    def _twin(self) -> Untyped:
        twin = _twin_class(type(self))(**self.get_params(deep=False))
        if "_metadata_request" in vars(self):
            twin._metadata_request = self._metadata_request
        return twin


class Transformer(Estimator):
    """An estimator with a `transform` method.

    If the output is a table, subclasses name its columns in `get_feature_names_out` and return
    ``self._put_out(table, X)``.
    """

    _mixins = ("TransformerMixin",)
    _sklearn_output_config: dict[str, str]  # scikit-learn's name: `clone` copies it

    def fit_transform(self, X: Untyped, y: Untyped = None, **fit_params: object) -> Untyped:
        """`fit`, then `transform` of the same data."""
        fitted: Untyped = self
        return fitted.fit(X, y, **fit_params).transform(X)

    def set_output(self, *, transform: str | None = None) -> Self:
        """Choose what `transform` returns: "default" (an array), "pandas" or "polars"; None: no change. Returns self.

        Outputs that are not tables, such as lists of arrays, are not converted.
        """
        if transform is None:
            return self
        if transform not in CONTAINERS:
            raise ValueError(f"transform must be one of {', '.join(CONTAINERS)}, got {transform!r}")
        self._sklearn_output_config = {"transform": transform}
        return self

    def _put_out(self, table: Floats, X: object) -> Untyped:
        """A table (n, columns) in the chosen container; for pandas, with the index of `X`."""
        kind = getattr(self, "_sklearn_output_config", {}).get("transform")
        if kind is None and (sklearn := sys.modules.get("sklearn")):  # the setting for all of scikit-learn
            kind = sklearn.get_config()["transform_output"]
        if kind not in CONTAINERS[1:]:
            return table
        named: Untyped = self
        columns = list(named.get_feature_names_out())
        frame = importlib.import_module(kind).DataFrame
        if kind == "polars":
            return frame(table, columns, orient="row")
        return frame(table, None if isinstance(X, list | tuple) else getattr(X, "index", None), columns)


def check_fitted(estimator: object, attribute: str, way_out: str = "call fit") -> None:
    """Raise scikit-learn's NotFittedError unless `estimator` has `attribute`, which `fit` sets."""
    if hasattr(estimator, attribute):
        return
    from sklearn.exceptions import NotFittedError

    raise NotFittedError(f"this {type(estimator).__name__} is not fitted; {way_out}")


def _twin_class(kind: type[Estimator]) -> Untyped:
    from sklearn import base

    parents = (*(getattr(base, name) for name in kind._mixins), base.BaseEstimator)
    methods = {name: getattr(kind, name) for name in ("__init__", *ROUTED) if hasattr(kind, name)}
    requests = {
        f"__metadata_request__{name}": _no_metadata(kind, method) for name, method in methods.items() if name in ROUTED
    }
    return type(kind.__name__, parents, methods | requests | {"__module__": kind.__module__, "__doc__": kind.__doc__})


def _no_metadata(kind: type[Estimator], method: Untyped) -> dict[str, str]:
    """Marks the arguments that are passed by position as not routed."""
    from sklearn.utils.metadata_routing import UNUSED

    return {name: UNUSED for name in inspect.signature(method).parameters if name in kind._by_place}
