"""`fvlrp study`: compares depths and rules on the photographs of a split; writes a table and a figure."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import evaluate
from ..core.explanation import Explanation
from ..data.datasets import open_dataset
from ..data.files import atomic_write
from ..evaluate.evidence import DepthStudy
from ..evaluate.journal import identity
from ..evaluate.study import DEFAULT
from ..runtime.types import Json
from . import options
from .output import FAILED, OK, UsageError, result


def add_options(parser: ArgumentParser) -> None:
    options.add_dataset(parser, "of photographs (val)")
    options.add_model(parser, several=True)
    parser.add_argument(
        "--depth",
        action="append",
        default=[],
        help='depths, comma-separated, coarse to fine, or "all"; again for the next model (default: a few of each)',
    )
    parser.add_argument(
        "--rule",
        action="append",
        default=[],
        help='rules to compare: presets and rules for all layers, such as paper or epsilon:0.1, and "default"; again '
        "for another. A model leaves out what it does not know",
    )
    parser.add_argument("--count", type=options.count, help="photographs, drawn at random (default: all)")
    parser.add_argument("--every", type=options.count, default=5, help="regions between scores (default: %(default)s)")
    options.add_flipping(parser, replacement="blur")
    parser.add_argument(
        "--out",
        default="fvlrp-study",
        help="folder for study.txt, .csv, .json, .tex and .png, and the journal from which a second run continues "
        "(default: %(default)s)",
    )
    options.add_table_format(parser)


def run(args: Namespace) -> int:
    out = options.output_folder(args.out)
    photographs = evaluate.cases(open_dataset(args.data, args.split), args.count, args.seed)
    names = args.model or ["voc20"]
    models = dict(zip(map(_label, names), [options.load_model(args, name) for name in names], strict=True))
    if len(models) < len(names):
        raise UsageError(f"--model names two models alike: {', '.join(map(_label, names))}")
    if len(args.depth) > len(models):
        raise UsageError(f"--depth is given {len(args.depth)} times for {len(models)} models: once for each, in order")
    depths = {
        label: options.depths(model.menu, text, model.menu.report_depths)
        for (label, model), text in zip(models.items(), args.depth, strict=False)
    }
    study = evaluate.depth_study(
        models,
        photographs,
        depths=depths,
        rules=_rules(models, args.rule),
        versions={_label(name): str(identity(name)) for name in names},
        region=args.region_size,
        steps=args.steps,
        every=args.every,
        replacement=args.replacement,
        draws=args.draws,
        random_state=args.seed,
        journal=evaluate.Journal(out / "journal.jsonl"),
        n_jobs=args.jobs,
        verbose=not args.quiet,
    )
    for failure in study.failed:
        print(f"fvlrp: {failure['photo']} by {failure['model']}: {failure['error']}", file=sys.stderr)
    files = _write(out, study, _examples(study, models, photographs, depths))
    value: dict[str, Json] = {
        "settings": dict(study.settings),
        "photographs": len(photographs),
        "files": files,
        "failed": study.failed,
    }
    result(args, value, options.table(args, study.table()))
    return FAILED if study.failed else OK


def _label(name: str) -> str:
    return Path(name).stem


def _rules(models: dict[str, options.Model], texts: Sequence[str]) -> dict[str, dict[str, object]]:
    """The rules that each model knows; UsageError if none knows one."""
    rules: dict[str, dict[str, object]] = {label: {} for label in models}
    for text in texts:
        reasons = []
        for label, model in models.items():
            try:
                rules[label][text] = model.menu.rules(None if text == DEFAULT else text)
            except ValueError as error:
                reasons.append(error)
        if len(reasons) == len(models):
            raise UsageError(f"--rule {text}: {reasons[0]}")
    return {label: own for label, own in rules.items() if own}


def _examples(
    study: DepthStudy,
    models: dict[str, options.Model],
    photographs: Sequence[evaluate.Case],
    depths: dict[str, list[str]],
) -> dict[str, list[Explanation]]:
    """For each model, explanations of one photograph it was measured on, at every depth.

    It is the first whose score is above 0, or the first of all.
    """
    examples: dict[str, list[Explanation]] = {}
    for label, model in models.items():
        chosen = depths.get(label, list(model.menu.report_depths))
        for case in photographs:
            if not study.measured(label, case.name):
                continue
            found = model.explain(case.image, [case.target], chosen)
            examples.setdefault(label, found)
            if found[0].score > 0:
                examples[label] = found
                break
    return examples


def _write(out: Path, study: DepthStudy, examples: dict[str, list[Explanation]]) -> list[str]:
    table = study.table()
    texts = {"txt": table.text() + "\n", "csv": table.csv(), "json": table.json() + "\n", "tex": table.latex()}
    options.announce_replaced(
        path
        for path in (out / f"study.{suffix}" for suffix in texts)
        if path.is_file() and path.read_bytes() != texts[path.suffix[1:]].encode()
    )
    files = []
    for suffix, text in texts.items():
        with atomic_write(out / f"study.{suffix}") as file:
            file.write(text.encode())
        files.append(str(out / f"study.{suffix}"))
    try:
        pictures = {label: [np.asarray(ex.overlay()) for ex in own] for label, own in examples.items()}
        captions = {label: f"{own[0].target}, score {own[0].score:+.2f}" for label, own in examples.items()}
        study.figure(out / "study.png", pictures, captions)
        files.append(str(out / "study.png"))
    except ImportError as error:
        print(f"fvlrp: {error}", file=sys.stderr)
    return files
