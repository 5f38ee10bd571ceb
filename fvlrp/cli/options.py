"""Options that several commands share: declared and read in one place, and checked before any work.

For the commands of this package.
"""

from __future__ import annotations

import math
import os
import warnings
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeAlias, TypeVar

from ..core.menu import Menu, Rules
from ..core.target import Contrast, Label
from ..core.trace import AnyTrace
from ..data.images import ImageLike, Photograph
from ..data.photographs import File, find
from ..evaluate.flipping import REPLACEMENTS
from ..show.curves import check_path
from ..show.tables import Table
from .output import UsageError

if TYPE_CHECKING:
    from ..fisher.classifier import FisherVectorClassifier
    from ..network.network import Network

Model: TypeAlias = "FisherVectorClassifier | Network"

CMAPS = ("safe", "paper", "grey")
PHOTOGRAPHS = (
    "photographs: files of any format that Pillow reads, folders (with all folders below), patterns, @LIST (a text file"
    " with a name per line), or - (the same on standard input)"
)
MODEL = "model file (.fvlrp or .onnx) or the name of one inside the package"
RULES = (
    "such as epsilon_pool=1; for a network a preset (composite), a rule for all layers (epsilon:0.1), or LAYER=RULE for"
    " a layer or a kind of layers (conv1=wsquare, conv=flat); again for more"
)

CONTRAST = '"cat - dog" is why the one scores higher than the other'

T = TypeVar("T")
P = ParamSpec("P")
Number = TypeVar("Number", int, float)

# ---- parsers of single options ---------------------------------------------------------------------------------------


def number(kind: Callable[[str], Number], low: float, what: str) -> Callable[[str], Number]:
    """Reads an option that is a number above `low`; argparse names the option in the complaint."""

    def read(text: str) -> Number:
        with suppress(ValueError):
            value = kind(text)
            if low < value < math.inf:
                return value
        raise ArgumentTypeError(f"expected {what}, got {text!r}")

    return read


count = number(int, 0, "a whole number of at least 1")
seed = number(int, -1, "a whole number of at least 0")
positive = number(float, 0, "a positive number")


def jobs(text: str) -> int:
    """A number of threads as scikit-learn counts them."""
    value: int = number(int, -math.inf, "a number of threads, or -1 for all")(text)
    if value == 0:
        raise ArgumentTypeError("expected a number of threads, or -1 for all, got '0'")
    return value


_page = number(int, -1, "a page, counted from 0")


def _range(text: str) -> tuple[float, float]:
    """Two numbers with a colon between them, the lower one first."""
    low, _, high = text.partition(":")
    try:
        values = float(low), float(high)
    except ValueError:
        values = math.nan, math.nan
    if not -math.inf < values[0] < values[1] < math.inf:
        raise ArgumentTypeError(f"expected the values of black and white, such as 0:4095, got {text!r}")
    return values


# ---- declared --------------------------------------------------------------------------------------------------------


def add_common(parser: ArgumentParser) -> None:
    """What every command takes."""
    parser.add_argument("--json", action="store_true", help="results as JSON on stdout")
    parser.add_argument("--jobs", type=jobs, default=-1, help="threads; -1 is all (default)")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")


def add_photographs(parser: ArgumentParser, nargs: str = "+", help: str = PHOTOGRAPHS) -> None:
    parser.add_argument("photo", nargs=nargs, help=help)
    parser.add_argument(
        "--range", type=_range, metavar="BLACK:WHITE", help="values of black and white, such as 0:4095 for 12-bit data"
    )
    parser.add_argument("--page", type=_page, default=0, help="page of TIFF files, from 0 (default: %(default)s)")
    parser.add_argument(
        "--memory",
        type=positive,
        metavar="GB",
        help="memory for photographs in progress (default: 4, or half of what is free)",
    )


def add_dataset(parser: ArgumentParser, lists: str) -> None:
    """A folder of labelled photographs; `lists` says what VOC's list is for."""
    parser.add_argument("data", help="VOC or COCO folder, folder with a subfolder per class, or .csv of path,label")
    parser.add_argument("--split", help=f"VOC, COCO: the list {lists}; a table's column split; else a subfolder")


def add_skip_broken(parser: ArgumentParser) -> None:
    parser.add_argument("--skip-broken", action="store_true", help="leave out photographs that cannot be read")


def add_model(parser: ArgumentParser, several: bool = False) -> None:
    if several:
        help = f"{MODEL}; again for another (default: voc20)"
        parser.add_argument("--model", action="append", help=help)
    else:
        parser.add_argument("--model", default="voc20", help=f"{MODEL} (default: voc20)")
        add_description(parser)


def add_description(parser: ArgumentParser) -> None:
    """What an ONNX file may lack."""
    parser.add_argument(
        "--preprocess",
        metavar="JSON",
        help="of an ONNX file: how photographs are prepared (default: what the file or the JSON file next to it says)",
    )
    parser.add_argument("--classes", metavar="FILE", help="of an ONNX file: names of the classes, one per line or JSON")
    parser.add_argument("--output", metavar="NAME", help="of an ONNX file with several outputs: which has the scores")


def add_smooth(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--smooth",
        action="store_true",
        help="smooth maps of a network's layers for display (pictures say so; .npz files do not change)",
    )


def add_depths(parser: ArgumentParser) -> None:
    """Depths to compare."""
    what = 'depths, comma-separated, or "all", every layer of a network (default: coarse to fine)'
    parser.add_argument("--depth", default="", help=what)


def add_flipping(parser: ArgumentParser, replacement: str) -> None:
    """How pixels are flipped; `replacement` is the default."""
    parser.add_argument("--steps", type=count, default=100, help="regions replaced (default: %(default)s)")
    parser.add_argument(
        "--region-size", type=count, default=9, help="side of a region in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--replacement",
        choices=REPLACEMENTS,
        default=replacement,
        help="what a region is replaced by: random colours, the mean colour, the blurred photograph, or what its "
        "surroundings continue to (default: %(default)s)",
    )
    parser.add_argument("--draws", type=count, default=1, help="repetitions with other colours (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=0, help="random seed (default: %(default)s)")


def add_cmap(parser: ArgumentParser, default: str = "safe") -> None:
    parser.add_argument("--cmap", choices=CMAPS, default=default, help="colour map (default: %(default)s)")


def add_table_format(parser: ArgumentParser) -> None:
    """How a table is printed; --json goes before it."""
    parser.add_argument("--table", choices=("text", "csv", "latex"), default="text", help="format of the table (text)")


def table(args: Namespace, table: Table) -> str:
    """A table in the format of --table."""
    return {"text": table.text, "csv": table.csv, "latex": table.latex}[args.table]().rstrip("\n")


# ---- checked ---------------------------------------------------------------------------------------------------------


def usage(check: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """`check(*args, **named)`, with its ValueError as a UsageError."""
    try:
        return check(*args, **named)
    except ValueError as error:
        raise UsageError(error) from error


def photographs(args: Namespace) -> list[File]:
    """The photographs that were named; reports files that were skipped."""
    found = find(args.photo)
    if account := found.account():
        warnings.warn(account, stacklevel=2)
    return found.photographs


def image(args: Namespace, path: str) -> ImageLike:
    """A photograph as --range and --page read it."""
    return path if args.range is None and not args.page else Photograph(path, range=args.range, page=args.page)


def load_model(args: Namespace, name: str) -> Model:
    """A model by name or file, with --jobs threads."""
    from .. import models

    given = {option: getattr(args, option, None) for option in ("preprocess", "classes", "output")}
    return usage(models.load, name, **given).set_params(n_jobs=args.jobs)


def model_files(name: str) -> list[str]:
    """The files of a model, by which a changed model is recognised."""
    description = [f"{os.path.splitext(name)[0]}.json"] if name.lower().endswith(".onnx") else []
    return [path for path in (name, *description) if os.path.isfile(path)]


def target(menu: Menu[Rules], text: str) -> Label | Contrast | None:
    """A class as --target spells it: its name, or its index where `explain` accepts one. "top" is None.

    "cat - dog" is the contrast of two, as explanations call it.
    """
    if text == "top":
        return None
    try:
        return menu.at(_position(menu, text)).label
    except ValueError as error:
        if " - " not in text:
            raise _with_contrast(menu, text, error) from None
        first, _, second = text.partition(" - ")
        positions = _position(menu, first.strip()), _position(menu, second.strip())
        return menu.target(Contrast(*(menu.classes[at] for at in positions))).label


def _with_contrast(menu: Menu[Rules], text: str, error: ValueError) -> ValueError:
    """The error of an unknown class; for "cat-dog", which lacks spaces, with the spelling of a contrast."""
    for at in (at for at, letter in enumerate(text) if letter == "-"):
        first, second = text[:at].strip(), text[at + 1 :].strip()
        with suppress(ValueError):
            if _position(menu, first) != _position(menu, second):
                spelled = f"{first} - {second}"
                return ValueError(f"unknown target {text!r}: the contrast of two classes is {spelled!r}, with spaces")
    return error


def _position(menu: Menu[Rules], text: str) -> int:
    """The column of a class in the scores, by name or index."""
    try:
        return menu.position(text)
    except ValueError:
        if not text.isdecimal():
            raise
        return menu.position(int(text))


def targets(menu: Menu[Rules], text: str) -> list[Label | Contrast | None]:
    """Classes as --target lists them: comma-separated, "top" (which becomes None) or "all".

    The name of a class may hold a comma.
    """
    if text == "all":
        return [*menu.classes]
    try:
        return [target(menu, text)]
    except ValueError:
        return [usage(target, menu, name.strip()) for name in text.split(",")]


def with_top(trace: AnyTrace, targets: Sequence[Label | Contrast | None]) -> list[Label | Contrast]:
    """`targets` with this photograph's best class in place of None, without duplicates."""
    return list(dict.fromkeys(trace.top if target is None else target for target in targets))


def depths(menu: Menu[Rules], text: str | None, default: Sequence[str]) -> list[str]:
    """Depths as --depth lists them: comma-separated, "all", or the default if empty; without duplicates."""
    if not text:
        return list(default)
    if text == "all":
        return list(menu.depths)
    return list(dict.fromkeys(usage(menu.depth, name.strip()) for name in text.split(",")))


def rules(menu: Menu[Rules], settings: Sequence[str]) -> Rules:
    """The rules of --rule, checked."""
    if not settings:
        return menu.rules(None)
    from ..rules import ConvRules

    pairs = [setting.partition("=") for setting in settings]
    whole = [name for name, separator, _ in pairs if not separator]
    named = {name: value for name, separator, value in pairs if separator}
    if not isinstance(menu.rules(None), ConvRules):
        if whole:
            raise UsageError(f"--rule must be NAME=VALUE, such as epsilon_pool=1, got {whole[0]!r}")
        return usage(menu.rules, {name: _value(text) for name, text in named.items()})
    if len(whole) > 1:
        raise UsageError(f"--rule takes one preset or rule for all layers, got {' and '.join(whole)}")
    all_layers = usage(ConvRules.of, whole[0] if whole else None)
    return usage(menu.rules, usage(all_layers.changed, named, menu.depths))


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def figure_file(path: str) -> Path:
    """Path of a figure: as `output_file`, with a supported format."""
    return usage(check_path, output_file(path))


def output_file(name: str, suffix: str = "") -> Path:
    """Path of a result that ends in `suffix`, checked before the work rather than after; warns if it exists."""
    path = Path(name)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--out: there is no folder {path.parent}")
    if path.is_dir():
        raise IsADirectoryError(f"--out: {path} is a folder; expected the name of a file")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"--out: the folder {path.parent} cannot be written to")
    if suffix and path.suffix.lower() != suffix:
        raise UsageError(f"--out must end in {suffix}, got {name!r}")
    if path.is_file():
        warnings.warn(f"{path} exists and will be replaced", stacklevel=2)
    return path


def announce_replaced(paths: Iterable[Path]) -> None:
    """Warn of results in a folder that are about to be replaced."""
    replaced = [path for path in paths if path.is_file()]
    if count := len(replaced):
        warnings.warn(f"{count} result{'s' * (count > 1)} will be replaced, such as {replaced[0]}", stacklevel=2)


def output_folder(name: str) -> Path:
    """The folder for results, created if missing."""
    if not name:  # as of a variable that is not set
        raise UsageError('--out must name a folder, got ""; the current one is .')
    path = Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"--out: {path} must be a folder, but it or a parent is a file") from None
    except OSError as error:
        raise OSError(f"--out: cannot make the folder {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise PermissionError(f"--out: the folder {path} cannot be written to")
    return path
