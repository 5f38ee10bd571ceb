"""Why an image classifier decided: Fisher-vector and CNN heatmaps at the resolution you choose."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fvlrp")
except PackageNotFoundError:  # a source folder that was not installed
    __version__ = "0+unknown"

# Where each public name lives; imported when first used, so that `import fvlrp` is quick.
_HOMES = {
    "FisherVectorClassifier": "classifier",
    "DenseSIFT": "sift",
    "ConvNet": "convnet",
    "Preprocess": "preprocess",
    "DiagonalGMM": "gmm",
    "FisherEncoder": "gmm",
    "load": "models",
    "sheet": "figures",
    "Explanation": "stack",
    "Ledger": "stack",
}
_MODULES = ("datasets", "evaluate", "images", "models", "render", "rules")

__all__ = sorted([*_HOMES, "evaluate", "rules"])


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
