"""The command line: results on stdout (JSON with --json), progress and logs on stderr, exit codes 0, 1, 2 and 130."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic

import numpy as np

from . import __version__, threads
from .progress import Progress

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
CMAPS = ("paper", "safe", "grey")
RULES = "such as epsilon_pool=1; for a network the name of a preset, such as composite"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 something failed, 2 wrong usage, 130 interrupted."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if not hasattr(args, "run"):
        parser.print_help()
        return USAGE
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("\nfvlrp: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read the output has gone
        return FAILED
    except MemoryError as error:
        print(f"fvlrp: out of memory{f': {error}' if str(error) else ''}", file=sys.stderr)
        return FAILED
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"fvlrp: {error}", file=sys.stderr)
        return FAILED


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fvlrp", description="Why an image classifier decided, as heatmaps at the resolution you choose."
    )
    parser.add_argument("--version", action="version", version=f"fvlrp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="")

    demo = _command(commands, "demo", run_demo, "explain real photographs at every depth with the built-in model")
    demo.add_argument("photo", nargs="*", help="your own photographs; none: a cat, a person and a motorbike")
    demo.add_argument("--target", help="class to explain in your photographs; default: the best of each")
    demo.add_argument("--out", default="fvlrp-demo", help="folder for the pictures (default: %(default)s)")

    train = _command(commands, "train", run_train, "train a classifier on a VOC devkit or a folder per class")
    train.add_argument("data", help="VOC devkit folder, or a folder with one subfolder of photographs per class")
    train.add_argument("--split", help="VOC: the list to train on (train, trainval); else a subfolder")
    train.add_argument("--out", required=True, help="file to write, such as model.fvlrp")
    train.add_argument("--weights", choices=("float32", "int8", "int4"), default="float32", help="how to store weights")
    train.add_argument("--components", type=int, default=256, help="components of the mixture (default: %(default)s)")
    train.add_argument("--step", type=int, default=3, help="pixels between descriptors (default: %(default)s)")
    train.add_argument("--C", type=_c, default=5.0, help='of the SVM, or "auto" (default: %(default)s)')
    train.add_argument("--mirror", action="store_true", help="train on mirrored photographs, too")
    train.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")

    retrain = _command(commands, "retrain", run_retrain, "retrain a network's last layer for other classes")
    retrain.add_argument("network", help="ONNX file (with the JSON file that describes it beside it), or a model file")
    retrain.add_argument("data", help="VOC devkit folder, or a folder with one subfolder of photographs per class")
    retrain.add_argument("--split", help="VOC: the list to train on (train, trainval); else a subfolder")
    retrain.add_argument("--out", required=True, help="file to write, such as net.fvlrp")
    retrain.add_argument("--C", type=float, help="of the logistic regressions (default: 10 / rows learned from)")
    retrain.add_argument("--no-mirror", action="store_true", help="do not train on mirrored photographs")

    explain = _command(commands, "explain", run_explain, "explain photographs: heatmaps as PNG and numbers as .npz")
    explain.add_argument("photo", nargs="+")
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
    compare.add_argument("photo", nargs="+")
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
    flip.add_argument("photo", nargs="+")
    _model(flip)
    flip.add_argument("--target", default="top", help='class to explain, or "top" (default) of each photograph')
    flip.add_argument("--depth", default="", help='depths, comma-separated, or "all" (default: coarse to fine)')
    flip.add_argument("--steps", type=int, default=100, help="regions of 9 x 9 replaced (default: %(default)s)")
    flip.add_argument("--draws", type=int, default=1, help="repetitions with other colours (default: %(default)s)")
    flip.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")

    report = _command(
        commands, "report", run_report, "one HTML file of photographs, heatmaps and ledgers, for offline use"
    )
    report.add_argument("photo", nargs="+")
    _model(report)
    report.add_argument("--target", default="top", help='classes, comma-separated; "top" (default) of each photograph')
    report.add_argument("--depth", default="", help="depths, comma-separated (default: coarse to fine)")
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
    command.add_argument("--jobs", type=int, default=-1, help="threads; -1 is all (default)")
    command.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return command


def _model(command, several: bool = False) -> None:
    how = {"action": "append", "help": "model file or name; again for another (default: voc20)"}
    command.add_argument("--model", **(how if several else {"default": "voc20", "help": "model file or name"}))


def _c(text: str) -> float | str:
    return text if text == "auto" else float(text)


def _load(name: str, args):
    from . import models

    return models.load(name).set_params(n_jobs=args.jobs)


def _say(args, text: str) -> None:
    if not args.quiet:
        print(text, file=sys.stderr)


def _result(args, value: dict, text: str) -> None:
    print(json.dumps(value, indent=1) if args.json else text)


# ---- train -----------------------------------------------------------------------------------------------------------


def run_train(args) -> int:
    from . import datasets
    from .classifier import FisherVectorClassifier

    out = Path(args.out)
    if not out.parent.is_dir():  # before minutes of work, not after
        raise FileNotFoundError(f"--out: there is no folder {out.parent}")
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
    ).fit(data.paths, data.labels, data.class_names if data.labels.ndim == 2 else None)
    clf.save(out, weights=args.weights)
    seconds = monotonic() - start
    result = {
        "model": str(out),
        "bytes": out.stat().st_size,
        "images": len(data),
        "classes": len(data.class_names),
        "C": clf.C_,
        "seconds": round(seconds, 1),
    }
    _result(args, result, f"{out}: {len(data)} photographs, {len(data.class_names)} classes, {seconds:.0f} s")
    return OK


def run_retrain(args) -> int:
    from . import datasets

    out = Path(args.out)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out: there is no folder {out.parent}")
    data = datasets.open_dataset(args.data, args.split)
    start = monotonic()
    net = _load(args.network, args)
    if not hasattr(net, "retrain"):
        raise ValueError(f"{args.network} is no network; fvlrp train makes Fisher-vector classifiers")
    names = data.class_names if data.labels.ndim == 2 else None
    net.verbose = not args.quiet
    net = net.retrain(data.paths, data.labels, names, mirror=not args.no_mirror, C=args.C)
    net.save(out)
    seconds = monotonic() - start
    result = {
        "model": str(out),
        "bytes": out.stat().st_size,
        "images": len(data),
        "classes": len(data.class_names),
        "C": args.C,
        "seconds": round(seconds, 1),
    }
    _result(args, result, f"{out}: {len(data)} photographs, {len(data.class_names)} classes, {seconds:.0f} s")
    return OK


# ---- explain ---------------------------------------------------------------------------------------------------------


def run_explain(args) -> int:
    clf = _load(args.model, args)
    rules = _rules(args.rule, presets=hasattr(clf, "retrain"))
    formats = args.format.split(",")
    for name in formats:
        if name not in ("png", "npz"):
            raise ValueError(f"--format must be png, npz or png,npz, got {args.format!r}")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    results, broken = [], []
    for photo, stem in zip(args.photo, _stems(args.photo), strict=True):
        try:
            record = out / f"{stem}.json"
            if args.resume and (done := _finished(record, photo, args)) is not None:
                results.append(done)
                continue
            result = _explain_one(clf, photo, out / stem, formats, rules, args)
            _write_json(record, result)  # last: its presence says that all the rest is there
            results.append(result)
            _say(args, f"{photo}: " + ", ".join(f"{s['target']} {s['score']:+.3f}" for s in result["scores"]))
        except (ValueError, OSError) as error:
            broken.append({"photo": str(photo), "error": str(error)})
            _say(args, f"{photo}: failed")
    for failure in broken:
        print(f"fvlrp: {failure['photo']}: {failure['error']}", file=sys.stderr)
    text = "\n".join(path for result in results for path in result["files"])
    _result(args, {"results": results, "failed": broken}, text)
    return FAILED if broken else OK


def _explain_one(clf, photo, base: Path, formats: list[str], rules, args) -> dict:
    from . import figures, render

    trace = clf.trace(photo, "float64" if args.exact else "float32")
    targets = trace.classes if args.target == "all" else [name.strip() for name in args.target.split(",")]
    depths = list(trace.depths) if args.depth == "all" else (args.depth or trace.default_depth).split(",")
    targets = list(dict.fromkeys(trace.top if target == "top" else target for target in targets))
    explanations = trace.explain(targets, [depth.strip() for depth in depths], rules)
    written = []
    for ex in explanations:
        for suffix in formats:
            path = Path(f"{base}_{_plain(ex.target)}_{_plain(ex.depth)}.{suffix}")
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
    except (OSError, ValueError):
        return None
    asked = (done.get("photo"), done.get("asked"))
    same = asked == (str(photo), _asked(args)) and all(Path(path).exists() for path in done.get("files", [""]))
    return done if same else None


def _write_json(path: Path, value: dict) -> None:
    from .files import atomic_write

    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=1).encode())


def _rules(settings: list[str], presets: bool) -> dict | str | None:
    if presets and len(settings) == 1 and "=" not in settings[0]:
        return settings[0]
    rules = {}
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            raise ValueError(f"--rule must be NAME=VALUE, such as epsilon_pool=1, got {setting!r}")
        try:
            rules[name] = float(value)
        except ValueError:
            rules[name] = value
    return rules or None


def _plain(name) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in str(name))


def _stems(photos: Sequence[str]) -> list[str]:
    """A name for the results of each photograph; those of one name in several folders are numbered."""
    stems, seen = [], {}
    for photo in photos:
        stem = _plain(Path(photo).stem)
        seen[stem] = seen.get(stem, 0) + 1
        stems.append(stem if seen[stem] == 1 else f"{stem}-{seen[stem]}")
    return stems


# ---- demo ------------------------------------------------------------------------------------------------------------


def run_demo(args) -> int:
    from . import figures, render

    clf = _load("voc20", args)
    photographs = [(photo, args.target) for photo in args.photo] or _examples()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    rows, records, broken = [], [], []
    for photo, target in photographs:
        start = monotonic()
        try:
            trace = clf.trace(photo)
            explanations = trace.explain(target or trace.top, trace.depths)
            rows += explanations
        except (ValueError, OSError) as error:
            broken.append({"photo": str(photo), "error": str(error)})
            print(f"fvlrp: {photo}: {error}", file=sys.stderr)
            continue
        order = np.argsort(trace.scores)[::-1][:3]
        best = ", ".join(f"{trace.classes[i]} {trace.scores[i]:+.2f}" for i in order)
        finest = explanations[-1]
        name = _plain(Path(photo).stem) if isinstance(photo, str) else _plain(finest.target)
        for ex in explanations:
            ex.save(out / f"{name}_{ex.depth}.png")
        _say(args, f"\n{name}: explained as {finest.target} in {monotonic() - start:.2f} s; highest scores: {best}")
        _say(args, "\n".join(f"  {line}" for line in str(finest.ledger).splitlines()))
        records.append({"photo": name, "explanations": [ex.summary() for ex in explanations]})
    if not rows:
        return FAILED
    path = out / "sheet.png"
    render.write_png(path, figures.depth_sheet(rows))
    _result(args, {"sheet": str(path), "photographs": records, "failed": broken}, f"{path}")
    return FAILED if broken else OK


def _examples() -> list[tuple]:
    """Real photographs that come with scikit-image, and what is in them."""
    try:
        from skimage import data
    except ImportError:
        raise ImportError(
            "the demo's photographs come with scikit-image: pip install 'fvlrp[demo]', or name photographs of your own"
        ) from None
    return [(data.chelsea(), "cat"), (data.astronaut(), "person"), (data.stereo_motorcycle()[0], "motorbike")]


# ---- compare, evaluate, info -----------------------------------------------------------------------------------------


def run_compare(args) -> int:
    from . import figures, images, render

    names = args.model or ["voc20"]
    models = [_load(name, args) for name in names]
    targets = [args.target] * len(args.photo)
    if args.target == "top":
        targets = [images.naming(args.photo, i, models[0].trace).top for i in range(len(args.photo))]
    sheet = figures.sheet(models, args.photo, targets, names=[Path(name).stem for name in names], cmap=args.cmap)
    render.write_png(args.out, sheet)
    _result(args, {"sheet": args.out, "targets": targets}, args.out)
    return OK


def run_evaluate(args) -> int:
    from . import datasets, evaluate

    data = datasets.open_dataset(args.data, args.split)
    names = args.model or ["voc20"]
    results, broken = [], {}
    for name in names:
        clf = _load(name, args)
        columns = _columns(clf.classes_, data.class_names, name)
        scores = _scores(clf, data.paths, broken, args)[:, columns]
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
                "mean": {method: float(np.nanmean(ap)) for method, ap in table.items()},
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
    from . import report
    from .files import atomic_write

    clf = _load(args.model, args)
    groups, broken = [], []
    for photo in args.photo:
        try:
            trace = clf.trace(photo)
            names = [trace.top if name == "top" else name.strip() for name in args.target.split(",")]
            depths = _depths(trace, args.depth)
            groups += [(Path(photo).name, trace.explain(name, depths)) for name in dict.fromkeys(names)]
        except (ValueError, OSError) as error:
            broken.append({"photo": str(photo), "error": str(error)})
            print(f"fvlrp: {photo}: {error}", file=sys.stderr)
    with atomic_write(args.out) as file:
        file.write(report.html(groups, failed=broken, cmap=args.cmap).encode())
    _result(args, {"report": args.out, "explained": len(groups), "failed": broken}, args.out)
    return FAILED if broken else OK


def run_flip(args) -> int:
    from . import evaluate

    clf = _load(args.model, args)
    results, broken = [], []
    progress = Progress("flipped photograph", len(args.photo), not args.quiet)
    for photo in args.photo:
        try:
            results.append(_flip_one(clf, photo, args, evaluate))
        except (ValueError, OSError) as error:
            broken.append({"photo": str(photo), "error": str(error)})
            print(f"fvlrp: {photo}: {error}", file=sys.stderr)
        progress.step()
    depths = list(dict.fromkeys(depth for result in results for depth in result["aopc"]))
    means = {
        depth: vars(evaluate.bootstrap(np.array([result["aopc"][depth] for result in results]))) for depth in depths
    }
    lines = [f"{depth:<12} {m['mean']:+.4f}  [{m['low']:+.4f}, {m['high']:+.4f}]" for depth, m in means.items()]
    _result(args, {"mean": means, "results": results, "failed": broken}, "\n".join(["AOPC, MoRF", *lines]))
    return FAILED if broken else OK


def _depths(trace, asked: str) -> list[str]:
    """Depths as asked for: comma-separated, "all", or "" for the few that tell most."""
    if asked in ("", "all"):
        return list(trace.depths if asked else trace.report_depths)
    return [depth.strip() for depth in asked.split(",")]


def _flip_one(clf, photo, args, evaluate) -> dict:
    """AOPC of every depth and of a random order, for one photograph."""
    trace = clf.trace(photo)
    target = trace.top if args.target == "top" else args.target
    depths = _depths(trace, args.depth)
    maps = [ex.heatmap for ex in trace.explain(target, depths)]
    column = trace.classes.index(target) if target in trace.classes else [str(c) for c in trace.classes].index(target)

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
    from . import _kernels, models

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
    text = "\n".join(f"{name}: {json.dumps(item)}" for name, item in flat.items())
    _result(args, value, text)
    return OK


def run_bench(args) -> int:
    from . import benchmark, images

    photo = benchmark.example() if args.photo is None else images.rgb(args.photo)
    result = benchmark.short(_load(args.model, args), photo, args.jobs)
    _result(args, result, benchmark.as_text(result))
    return OK


if __name__ == "__main__":
    sys.exit(main())
