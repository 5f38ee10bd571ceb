"""Explain image classifiers by heatmaps at the resolution you choose: Fisher vectors and neural networks."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # for type checkers it is True; importing typing would take half the time of `import fvlrp`
if TYPE_CHECKING:  # what _HOMES and _MODULES say at run time, for type checkers and editors
    from . import evaluate as evaluate
    from . import models as models
    from . import rules as rules
    from .core.explanation import Explanation as Explanation
    from .core.figures import sheet as sheet
    from .core.ledger import Ledger as Ledger
    from .core.target import Contrast as Contrast
    from .data import datasets as datasets
    from .data import images as images
    from .fisher import geometry as geometry
    from .fisher.classifier import FisherVectorClassifier as FisherVectorClassifier
    from .fisher.encoder import FisherEncoder as FisherEncoder
    from .fisher.gmm import DiagonalGMM as DiagonalGMM
    from .fisher.sift import DenseSIFT as DenseSIFT
    from .models import load as load
    from .network.network import ConvNet as ConvNet
    from .network.network import Network as Network
    from .network.preprocess import Preprocess as Preprocess
    from .show import render as render

    __version__: str

# Where each public name lives; imported when first used, so that `import fvlrp` is quick.
_HOMES = {
    "FisherVectorClassifier": "fisher.classifier",
    "DenseSIFT": "fisher.sift",
    "Network": "network.network",
    "ConvNet": "network.network",
    "Preprocess": "network.preprocess",
    "DiagonalGMM": "fisher.gmm",
    "FisherEncoder": "fisher.encoder",
    "load": "models",
    "sheet": "core.figures",
    "Explanation": "core.explanation",
    "Contrast": "core.target",
    "Ledger": "core.ledger",
}
_MODULES = {
    "datasets": "data.datasets",
    "evaluate": "evaluate",
    "geometry": "fisher.geometry",
    "images": "data.images",
    "models": "models",
    "render": "show.render",
    "rules": "rules",
}

__all__ = sorted([*_HOMES, "evaluate", "rules"])


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _version()
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{_MODULES[name]}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    """On first access: reading a distribution's metadata takes longer than importing the package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fvlrp")
    except PackageNotFoundError:  # a source folder that was not installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES, "__version__"})
