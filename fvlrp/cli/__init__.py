"""The command line: results on stdout (JSON with --json), progress and logs on stderr, exit codes 0, 1, 2 and 130."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic

import numpy as np

from .. import __version__
from ..runtime import threads
from ..runtime.progress import Progress

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
CMAPS = ("paper", "safe", "grey")
PHOTO = "photographs: files of any format that Pillow reads"
MODEL = "model file (.fvlrp or .onnx) or the name of one inside the package"
RULES = (
    "such as epsilon_pool=1; for a network a preset (composite), a rule for all layers (epsilon:0.1), or LAYER=RULE for"
    " a layer or a kind of layers (conv1=wsquare, conv=flat); again for more"
)


class UsageError(ValueError):
    """Options that no photograph could be explained with."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 something failed, 2 wrong usage, 130 interrupted."""
    if argv is None:
        # Closed streams are None: progress would go to stdout instead of stderr, and stdout could not be flushed.
        sys.stdout, sys.stderr = (stream or _nowhere() for stream in (sys.stdout, sys.stderr))
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not fit the terminal's encoding
    parser = build_parser()
    args = parser.parse_args(argv)
    if not hasattr(args, "run"):
        parser.print_help()
        return USAGE
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warned
            code = args.run(args)
            sys.stdout.flush()  # here, where a reader that has gone is no traceback
            return code
    except KeyboardInterrupt:
        print("\nfvlrp: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone: what is left goes nowhere, or Python would complain on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except MemoryError as error:
        print(f"fvlrp: out of memory{f': {error}' if str(error) else ''}", file=sys.stderr)
        return FAILED
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"fvlrp: {error}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else FAILED


def _nowhere():
    """A stream whose text is lost."""
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _warned(message, *_) -> None:
    print(f"fvlrp: {message}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fvlrp", description="Why an image classifier decided, as heatmaps at the resolution you choose."
    )
    parser.add_argument("--version", action="version", version=f"fvlrp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    demo = _command(commands, "demo", run_demo, "explain real photographs at every depth with the built-in model")
    demo.add_argument("photo", nargs="*", help="your own photographs; none: a cat, a person and a motorbike")
    demo.add_argument("--target", help="class to explain in your photographs; default: the best of each")
    demo.add_argument("--out", default="fvlrp-demo", help="folder for the pictures (default: %(default)s)")

    train = _command(commands, "train", run_train, "train a classifier on a VOC devkit or a folder per class")
    train.add_argument("data", help="VOC devkit folder, or a folder with one subfolder of photographs per class")
    train.add_argument("--split", help="VOC: the list to train on (train, trainval); else a subfolder")
    train.add_argument("--out", required=True, help="file to write, such as model.fvlrp")
    train.add_argument("--weights", choices=("float32", "int8", "int4"), default="float32", help="how to store weights")
    train.add_argument(
        "--components", type=_count, default=256, help="components of the mixture (default: %(default)s)"
    )
    train.add_argument("--step", type=_count, default=3, help="pixels between descriptors (default: %(default)s)")
    train.add_argument("--C", type=_c, default=5.0, help='of the SVM, or "auto" (default: %(default)s)')
    train.add_argument("--mirror", action="store_true", help="train on mirrored photographs, too")
    train.add_argument("--seed", type=_seed, default=0, help="random seed (default: %(default)s)")

    retrain = _command(commands, "retrain", run_retrain, "retrain a network's last layer for other classes")
    retrain.add_argument("network", help="ONNX file (with the JSON file that describes it beside it), or a model file")
    retrain.add_argument("data", help="VOC devkit folder, or a folder with one subfolder of photographs per class")
    retrain.add_argument("--split", help="VOC: the list to train on (train, trainval); else a subfolder")
    retrain.add_argument("--out", required=True, help="file to write, such as net.fvlrp")
    retrain.add_argument("--C", type=_positive, help="of the logistic regressions (default: 10 / rows learned from)")
    retrain.add_argument("--no-mirror", action="store_true", help="do not train on mirrored photographs")

    explain = _command(commands, "explain", run_explain, "explain photographs: heatmaps as PNG and numbers as .npz")
    explain.add_argument("photo", nargs="+", help=PHOTO)
    _model(explain)
    explain.add_argument("--target", default="top", help='classes, comma-separated; "top" (default) or "all"')
    explain.add_argument("--depth", help='depths, comma-separated, or "all" (default: "bin", a network\'s "input")')
    explain.add_argument("--out", default="fvlrp-out", help="folder for the results (default: %(default)s)")
    explain.add_argument("--format", default="png", help="png, npz or png,npz (default: %(default)s)")
    explain.add_argument("--sheet", action="store_true", help="also a contact sheet of each photograph")
    explain.add_argument("--cmap", choices=CMAPS, default="paper", help="colour map (default: %(default)s)")
    explain.add_argument("--bar", action="store_true", help="add a colour bar to the heatmaps")
    explain.add_argument("--exact", action="store_true", help="compute in float64")
    explain.add_argument("--rule", action="append", default=[], metavar="NAME=VALUE", help=RULES)
    explain.add_argument("--resume", action="store_true", help="skip photographs whose results are all there")

    compare = _command(
        commands, "compare", run_compare, "one sheet of several models' heatmaps, as the paper's Figure 1"
    )
    compare.add_argument("photo", nargs="+", help=PHOTO)
    _model(compare, several=True)
    compare.add_argument("--target", default="top", help='one class for all photographs, or "top" of the first model')
    compare.add_argument("--out", default="fvlrp-compare.png", help="picture to write (default: %(default)s)")
    compare.add_argument("--cmap", choices=CMAPS, default="paper", help="colour map (default: %(default)s)")

    evaluate = _command(commands, "evaluate", run_evaluate, "average precision per class, 11-point and area")
    evaluate.add_argument("data", help="VOC devkit folder, or a folder with one subfolder of photographs per class")
    evaluate.add_argument("--split", help="VOC: the list to score (val); else a subfolder")
    _model(evaluate, several=True)

    flip = _command(
        commands, "flip", run_flip, "destroy photographs in a heatmap's order: how fast does the score fall"
    )
    flip.add_argument("photo", nargs="+", help=PHOTO)
    _model(flip)
    flip.add_argument("--target", default="top", help='class to explain, or "top" (default) of each photograph')
    flip.add_argument("--depth", default="", help='depths, comma-separated, or "all" (default: coarse to fine)')
    flip.add_argument("--steps", type=_count, default=100, help="regions of 9 x 9 replaced (default: %(default)s)")
    flip.add_argument("--draws", type=_count, default=1, help="repetitions with other colours (default: %(default)s)")
    flip.add_argument("--seed", type=_seed, default=0, help="random seed (default: %(default)s)")

    report = _command(
        commands, "report", run_report, "one HTML file of photographs, heatmaps and ledgers, for offline use"
    )
    report.add_argument("photo", nargs="+", help=PHOTO)
    _model(report)
    report.add_argument("--target", default="top", help='classes, comma-separated; "top" (default) of each photograph')
    report.add_argument("--depth", default="", help='depths, comma-separated, or "all" (default: coarse to fine)')
    report.add_argument("--out", default="fvlrp-report.html", help="file to write (default: %(default)s)")
    report.add_argument("--cmap", choices=CMAPS, default="paper", help="colour map (default: %(default)s)")

    info = _command(commands, "info", run_info, "what a model holds, and how this fvlrp was built")
    info.add_argument("model", nargs="?", help="model file, or the name of a model inside the package")

    bench = _command(commands, "bench", run_bench, "time every stage here, on each instruction set, and against NumPy")
    bench.add_argument("photo", nargs="?", help="your own photograph; none: one of 500 x 375 pixels")
    _model(bench)
    return parser


def _command(commands, name: str, run: Callable, help: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    command.set_defaults(run=run)
    command.add_argument("--json", action="store_true", help="results as JSON on stdout")
    command.add_argument("--jobs", type=_jobs, default=-1, help="threads; -1 is all (default)")
    command.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return command


def _model(command, several: bool = False) -> None:
    how = {"action": "append"} if several else {"default": "voc20"}
    again = "; again for another" if several else ""
    command.add_argument("--model", **how, help=f"{MODEL}{again} (default: voc20)")


def _number_of(kind: type, low: float, what: str) -> Callable[[str], float]:
    """Reads an option that is a number above `low`; argparse names the option in the complaint."""

    def read(text: str) -> float:
        try:
            if low < (value := kind(text)) < np.inf:
                return value
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")

    return read


_count = _number_of(int, 0, "a whole number of at least 1")
_seed = _number_of(int, -1, "a whole number of at least 0")
_positive = _number_of(float, 0, "a positive number")


def _c(text: str) -> float | str:
    return text if text == "auto" else _number_of(float, 0, "a positive number or auto")(text)


def _jobs(text: str) -> int:
    value = _number_of(int, -np.inf, "a number of threads, or -1 for all")(text)
    if value == 0:
        raise argparse.ArgumentTypeError("expected a number of threads, or -1 for all, got '0'")
    return value


def _load(name: str, args):
    from .. import models

    return models.load(name).set_params(n_jobs=args.jobs)


def _say(args, text: str) -> None:
    if not args.quiet:
        print(text, file=sys.stderr)


def _result(args, value: dict, text: str) -> None:
    if args.json or text:
        print(json.dumps(value, indent=1) if args.json else text)


class _Photographs:
    """What became of the photographs of a batch: a broken one does not stop it, and is listed at the end."""

    def __init__(self, args):
        self.args, self.failed = args, []

    @contextmanager
    def one(self, photo) -> Iterator[None]:
        """Work on one photograph; what it raises is kept."""
        try:
            yield
        except (ValueError, OSError) as error:
            self.failed.append({"photo": str(photo), "error": str(error)})
            _say(self.args, f"{photo}: failed")

    def close(self) -> int:
        """List the broken ones on stderr; the exit code."""
        for failure in self.failed:
            photo, error = failure["photo"], failure["error"]
            print(f"fvlrp: {photo}: {error.replace(f' {photo}', '', 1)}", file=sys.stderr)  # named once
        return FAILED if self.failed else OK


# ---- what can be asked for, and where it goes: checked before any work -----------------------------------------------


def _targets(menu, text: str) -> list:
    """Classes as asked for: comma-separated, "top" (None stands for it) or "all"; a class may have a comma in it."""
    if text == "all":
        return menu.classes
    try:
        return [menu.target(text).label]
    except ValueError:
        names = [name.strip() for name in text.split(",")]
        return [None if name == "top" else _usage(menu.target, name).label for name in names]


def _depths(menu, asked: str | None, default: Sequence[str]) -> list[str]:
    """Depths as asked for: comma-separated, "all", or the default where nothing was."""
    if not asked:
        return list(default)
    return list(menu.depths) if asked == "all" else [_usage(menu.depth, d.strip()) for d in asked.split(",")]


def _usage(check: Callable, *args):
    """`check(*args)`, whose ValueError is the user's options'."""
    try:
        return check(*args)
    except ValueError as error:
        raise UsageError(error) from error


def _these(trace, targets: Sequence) -> list:
    """`targets` with the best class of this photograph in the place of None, each once."""
    return list(dict.fromkeys(trace.top if target is None else target for target in targets))


def _file(path: str) -> Path:
    """Where a result goes, refused before minutes of work rather than after."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--out: there is no folder {path.parent}")
    if path.is_dir():
        raise IsADirectoryError(f"--out: {path} is a folder; expected the name of a file")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"--out: the folder {path.parent} cannot be written to")
    return path


def _folder(path: str) -> Path:
    """The folder that results go to, made where there is none."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"--out: {path} must be a folder, and is or lies in a file") from None
    except OSError as error:
        raise OSError(f"--out: cannot make the folder {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise PermissionError(f"--out: the folder {path} cannot be written to")
    return path


# ---- train -----------------------------------------------------------------------------------------------------------


def run_train(args) -> int:
    from ..data import datasets
    from ..fisher.classifier import FisherVectorClassifier

    out = _file(args.out)
    data = datasets.open_dataset(args.data, args.split)
    start = monotonic()
    clf = FisherVectorClassifier(
        n_components=args.components,
        step=args.step,
        C=args.C,
        mirror=args.mirror,
        random_state=args.seed,
        n_jobs=args.jobs,
        verbose=not args.quiet,
    ).fit(data.paths, data.labels, _class_names(data))
    clf.save(out, weights=args.weights)
    return _trained(args, out, data, clf.C_, start)


def run_retrain(args) -> int:
    from ..data import datasets

    out = _file(args.out)
    net = _load(args.network, args)
    if not hasattr(net, "retrain"):
        raise ValueError(f"{args.network} is no network; fvlrp train makes Fisher-vector classifiers")
    data = datasets.open_dataset(args.data, args.split)
    start = monotonic()
    net.verbose = not args.quiet
    net.retrain(data.paths, data.labels, _class_names(data), mirror=not args.no_mirror, C=args.C).save(out)
    return _trained(args, out, data, args.C, start)


def _class_names(data) -> Sequence[str] | None:
    return data.class_names if data.labels.ndim == 2 else None


def _trained(args, out: Path, data, c: float | None, start: float) -> int:
    """Tell of a model that was written."""
    seconds, classes = monotonic() - start, len(data.class_names)
    value = {"model": str(out), "bytes": out.stat().st_size, "images": len(data), "classes": classes, "C": c}
    text = f"{out}: {len(data)} photographs, {classes} classes, {seconds:.0f} s"
    _result(args, {**value, "seconds": round(seconds, 1)}, text)
    return OK


# ---- explain ---------------------------------------------------------------------------------------------------------


def run_explain(args) -> int:
    formats = list(dict.fromkeys(args.format.split(",")))
    for name in formats:
        if name not in ("png", "npz"):
            raise UsageError(f"--format must be png, npz or png,npz, got {args.format!r}")
    clf = _load(args.model, args)
    targets = _targets(clf.menu, args.target)
    depths = list(dict.fromkeys(_depths(clf.menu, args.depth, [clf.menu.default_depth])))
    rules = _rules(clf.menu, args.rule)
    out = _folder(args.out)
    results, batch = [], _Photographs(args)
    for photo, stem in zip(args.photo, _stems(args.photo), strict=True):
        with batch.one(photo):
            record = out / f"{stem}.json"
            if args.resume and (done := _finished(record, photo, args)) is not None:
                results.append(done)
                continue
            trace = clf.trace(photo, "float64" if args.exact else "float32")
            explanations = trace.explain(_these(trace, targets), depths, rules)
            result = _explained(explanations, photo, out / stem, formats, args)
            _write_json(record, result)  # last: its presence says that all the rest is there
            results.append(result)
            _say(args, f"{photo}: " + ", ".join(f"{s['target']} {s['score']:+.3f}" for s in result["scores"]))
    code = batch.close()
    text = "\n".join(path for result in results for path in result["files"])
    _result(args, {"results": results, "failed": batch.failed}, text)
    return code


def _explained(explanations: Sequence, photo, base: Path, formats: list[str], args) -> dict:
    """Write the pictures and numbers of one photograph; its record."""
    from ..core import figures
    from ..show import render

    written = []
    names = _numbered(f"{base}_{_plain(ex.target)}_{_plain(ex.depth)}" for ex in explanations)
    for ex, name in zip(explanations, names, strict=True):
        for suffix in formats:
            path = Path(f"{name}.{suffix}")
            ex.save(path, **({"cmap": args.cmap, "bar": args.bar} if suffix == "png" else {}))
            written.append(str(path))
    if args.sheet:
        path = Path(f"{base}_sheet.png")
        render.write_png(path, figures.depth_sheet(explanations, args.cmap))
        written.append(str(path))
    best = {ex.target: ex.score for ex in explanations}
    return {
        "photo": str(photo),
        "asked": _asked(args),
        "scores": [{"target": target, "score": score} for target, score in best.items()],
        "explanations": [ex.summary() for ex in explanations],
        "files": written,
    }


def _asked(args) -> dict:
    return {
        name: getattr(args, name)
        for name in ("model", "target", "depth", "format", "sheet", "exact", "rule", "cmap", "bar")
    }


def _finished(record: Path, photo, args) -> dict | None:
    """The record of an earlier run that asked the very same of this photograph and whose files are all there."""
    try:
        done = json.loads(record.read_text())
        made = record.stat().st_mtime_ns
        changed = any(os.path.exists(name) and os.stat(name).st_mtime_ns > made for name in (photo, args.model))
        same = not changed and (done["photo"], done["asked"]) == (str(photo), _asked(args))
        return done if same and all(Path(path).exists() for path in done["files"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_json(path: Path, value: dict) -> None:
    from ..data.files import atomic_write

    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=1).encode())


def _rules(menu, settings: list[str]):
    """The rules that --rule asks for, checked."""
    from ..network.rules import ConvRules

    pairs = [setting.partition("=") for setting in settings]
    if not isinstance(menu.rules(None), ConvRules):
        bare = [name for name, separator, _ in pairs if not separator]
        if bare:
            raise UsageError(f"--rule must be NAME=VALUE, such as epsilon_pool=1, got {bare[0]!r}")
        return _usage(menu.rules, {name: _read(value) for name, _, value in pairs})
    whole = [name for name, separator, _ in pairs if not separator]
    if len(whole) > 1:
        raise UsageError(f"--rule takes one preset or rule for all layers, got {' and '.join(whole)}")
    rules = _usage(ConvRules.of, whole[0] if whole else None)
    named = {name: value for name, separator, value in pairs if separator}
    return _usage(menu.rules, _usage(rules.changed, named, menu.depths))


def _read(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def _plain(name) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in str(name))


def _stems(photos: Sequence[str]) -> list[str]:
    """A name for the results of each photograph; those of one name in several folders are numbered."""
    return _numbered(_plain(Path(photo).stem) for photo in photos)


def _numbered(names: Iterable[str]) -> list[str]:
    """Names with a number behind those that came before."""
    unique: dict[str, None] = {}
    for name in names:
        numbered = (f"{name}-{number}" for number in count(2))
        unique[name if name not in unique else next(other for other in numbered if other not in unique)] = None
    return list(unique)


# ---- demo ------------------------------------------------------------------------------------------------------------


def run_demo(args) -> int:
    from ..core import figures

    clf = _load("voc20", args)
    target = None if args.target is None else _usage(clf.menu.target, args.target)
    wanted = None if target is None else target.label
    photographs = [(stem, photo, wanted) for stem, photo in zip(_stems(args.photo), args.photo, strict=True)]
    out = _folder(args.out)
    rows, records, batch = [], [], _Photographs(args)
    for name, photo, target in photographs or _examples():
        start = monotonic()
        with batch.one(photo if isinstance(photo, str) else name):
            trace = clf.trace(photo)
            explanations = trace.explain([target or trace.top], trace.menu.depths)
            for ex in explanations:
                ex.save(out / f"{name}_{ex.depth}.png")
            order = np.argsort(trace.scores)[::-1][:3]
            best = ", ".join(f"{trace.classes[i]} {trace.scores[i]:+.2f}" for i in order)
            finest = explanations[-1]
            _say(args, f"\n{name}: explained as {finest.target} in {monotonic() - start:.2f} s; highest scores: {best}")
            _say(args, "\n".join(f"  {line}" for line in str(finest.ledger).splitlines()))
            records.append({"photo": name, "explanations": [ex.summary() for ex in explanations]})
            rows += explanations
    code = batch.close()
    sheet = _sheet(out / "sheet.png", rows and figures.depth_sheet(rows))
    _result(args, {"sheet": sheet, "photographs": records, "failed": batch.failed}, sheet or "")
    return code


def _examples() -> list[tuple]:
    """Real photographs that come with scikit-image: name, pixels, and what is in them."""
    try:
        from skimage import data
    except ImportError:
        raise ImportError(
            "the demo's photographs come with scikit-image: pip install 'fvlrp[demo]', or name photographs of your own"
        ) from None
    pictures = {"cat": data.chelsea(), "person": data.astronaut(), "motorbike": data.stereo_motorcycle()[0]}
    return [(name, picture, name) for name, picture in pictures.items()]


def _sheet(path: Path, picture) -> str | None:
    """Write a sheet, if there is one: every photograph may have failed."""
    from ..show import render

    if not picture:
        return None
    render.write_png(path, picture)
    return str(path)


# ---- compare, evaluate, info -----------------------------------------------------------------------------------------


def run_compare(args) -> int:
    from ..core import figures

    out = _file(args.out)
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out must end in .png, got {args.out!r}")
    names = args.model or ["voc20"]
    models = [_load(name, args) for name in names]
    for model in models:
        target = None if args.target == "top" else _usage(model.menu.target, args.target).label
    rows, targets, batch = [], [], _Photographs(args)
    for photo in args.photo:
        with batch.one(photo):
            traces = [model.trace(photo) for model in models]
            wanted = traces[0].top if target is None else target
            rows.append(figures.sheet_row(traces, wanted, args.cmap))
            targets.append(wanted)
    titles = [Path(name).stem for name in names]
    sheet = _sheet(out, rows and figures.sheet_of(rows, titles, args.cmap))
    code = batch.close()
    _result(args, {"sheet": sheet, "targets": targets, "failed": batch.failed}, sheet or "")
    return code


def run_evaluate(args) -> int:
    from .. import evaluate
    from ..data import datasets

    data = datasets.open_dataset(args.data, args.split)
    names = args.model or ["voc20"]
    models = [_load(name, args) for name in names]
    columns = [_columns(clf.classes_, data.class_names, name) for name, clf in zip(names, models, strict=True)]
    results, broken = [], {}
    for name, clf, own in zip(names, models, columns, strict=True):
        scores = _scores(clf, data.paths, broken, args)[:, own]
        read = ~np.isnan(scores).any(axis=1)
        if not read.any():
            raise OSError(
                f"none of the {len(data)} photographs could be read; the first: {next(iter(broken.values()))}"
            )
        labels = data.matrix[read]
        table = {method: evaluate.average_precision(labels, scores[read], method) for method in ("11point", "area")}
        results.append(
            {
                "model": name,
                "images": int(read.sum()),
                "mean": {m: None if np.isnan(ap).all() else float(np.nanmean(ap)) for m, ap in table.items()},
                "classes": {
                    str(label): {method: _number(ap[i]) for method, ap in table.items()}
                    for i, label in enumerate(data.class_names)
                },
            }
        )
    for path, error in broken.items():
        print(f"fvlrp: {path}: {error}", file=sys.stderr)
    failed = [{"photo": path, "error": error} for path, error in broken.items()]
    _result(args, {"results": results, "failed": failed}, _table(results))
    return FAILED if broken else OK


def run_report(args) -> int:
    from ..core import report
    from ..data.files import atomic_write

    out = _file(args.out)
    report.environment()  # before any work: it may be missing
    clf = _load(args.model, args)
    targets = _targets(clf.menu, args.target)
    depths = _depths(clf.menu, args.depth, clf.menu.report_depths)
    groups, batch = [], _Photographs(args)
    for photo in args.photo:
        with batch.one(photo):
            trace = clf.trace(photo)
            groups += [(Path(photo).name, trace.explain(target, depths)) for target in _these(trace, targets)]
    with atomic_write(out) as file:
        file.write(report.html(groups, failed=batch.failed, cmap=args.cmap).encode(errors="replace"))
    code = batch.close()
    _result(args, {"report": args.out, "explained": len(groups), "failed": batch.failed}, args.out)
    return code


def run_flip(args) -> int:
    from .. import evaluate

    clf = _load(args.model, args)
    target = None if args.target == "top" else _usage(clf.menu.target, args.target).label
    asked = _depths(clf.menu, args.depth, clf.menu.report_depths)
    results, batch = [], _Photographs(args)
    progress = Progress("flipped photograph", len(args.photo), not args.quiet)
    for photo in args.photo:
        with batch.one(photo):
            results.append(_flip_one(clf, photo, target, asked, args))
        progress.step()
    depths = list(dict.fromkeys(depth for result in results for depth in result["aopc"]))
    means = {
        depth: vars(evaluate.bootstrap(np.array([result["aopc"][depth] for result in results]))) for depth in depths
    }
    lines = [f"{depth:<12} {m['mean']:+.4f}  [{m['low']:+.4f}, {m['high']:+.4f}]" for depth, m in means.items()]
    code = batch.close()
    text = "\n".join(["AOPC, MoRF", *lines]) if lines else ""
    _result(args, {"mean": means, "results": results, "failed": batch.failed}, text)
    return code


def _flip_one(clf, photo, target, depths: list[str], args) -> dict:
    """AOPC of every depth and of a random order, for one photograph."""
    from .. import evaluate

    trace = clf.trace(photo)
    target = trace.top if target is None else target
    maps = [ex.heatmap for ex in trace.explain(target, depths)]
    column = trace.menu.position(target)

    def score(images: np.ndarray) -> list[float]:
        return [row[column] for row in threads.run([partial(clf.scores, image) for image in images], args.jobs)]

    options = {"steps": args.steps, "draws": args.draws, "random_state": args.seed}
    flips = evaluate.pixel_flipping(score, photo, np.stack(maps), order=("morf", "random"), **options)
    aopc = dict(zip(depths, [flip.aopc for flip in flips[::2]], strict=True))
    return {"photo": str(photo), "target": target, "aopc": {**aopc, "random": flips[1].aopc}}


def _scores(clf, paths, broken: dict[str, str], args) -> np.ndarray:
    """Scores (n, classes) of every photograph; NaN for those that cannot be read, which `broken` then explains."""
    progress = Progress("scored photograph", len(paths), not args.quiet)

    def one(path) -> np.ndarray:
        try:
            return clf.scores(path)
        except (ValueError, OSError) as error:
            broken[str(path)] = str(error)
            return np.full(len(clf.classes_), np.nan)
        finally:
            progress.step()

    return np.array(threads.run([partial(one, path) for path in paths], args.jobs))


def _columns(classes, wanted: Sequence[str], model: str) -> list[int]:
    known = [str(name) for name in classes]
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ValueError(f"{model} does not know the class {missing[0]!r}; it has {', '.join(known[:40])}")
    return [known.index(name) for name in wanted]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _table(results: list[dict]) -> str:
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
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def run_info(args) -> int:
    from .. import _kernels, models

    value = {
        "fvlrp": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "instruction sets": {"in use": _kernels.isa(), "available": _kernels.isas()},
        "models": models.names(),
    }
    if args.model:
        value["model"] = {"name": args.model, **models.load(args.model).describe()}
    flat = {**value, **value["model"]} if args.model else value
    flat = {name: item for name, item in flat.items() if name != "model"}
    _result(args, value, "\n".join(f"{name}: {_readable(item)}" for name, item in flat.items()))
    return OK


def _readable(item, inner: bool = False) -> str:
    """What `info` knows of one thing, for the eye: long lists by their ends, tables a line each."""
    if isinstance(item, dict):
        return ", ".join(f"{name} {_readable(value, True)}" for name, value in item.items())
    if not isinstance(item, list | tuple):
        return "none" if item is None else str(item)
    if item and isinstance(item[0], dict):
        return "".join(f"\n  {'  '.join(_readable(value, True) for value in row.values())}" for row in item)
    if len(item) > 24:
        item = [f"{len(item)} of them: {item[0]}", *item[1:3], "...", item[-1]]
    listed = ", ".join(_readable(value, True) for value in item)
    return f"({listed})" if inner else listed


def run_bench(args) -> int:
    from ..data import images
    from . import bench as benchmark

    photo = benchmark.example() if args.photo is None else images.rgb(args.photo)
    result = benchmark.short(_load(args.model, args), photo, args.jobs)
    _result(args, result, benchmark.as_text(result))
    return OK
