"""`fvlrp retrain`: learns a network's last layer for other classes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from time import monotonic

from ..data import datasets
from . import options
from .train import class_names, readable, trained


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("network", help="ONNX file (with the JSON file that describes it beside it), or a model file")
    options.add_description(parser)
    options.add_dataset(parser, "to train on (train, trainval)")
    options.add_skip_broken(parser)
    parser.add_argument("--out", required=True, help="file to write, such as net.fvlrp")
    parser.add_argument(
        "--C", type=options.positive, help="of the logistic regressions (default: 10 / rows learned from)"
    )
    parser.add_argument("--no-mirror", action="store_true", help="do not train on mirrored photographs")


def run(args: Namespace) -> int:
    out = options.output_file(args.out)
    net = options.load_model(args, args.network)
    if not hasattr(net, "retrain"):
        raise ValueError(f"{args.network} is not a network; fvlrp train makes Fisher-vector classifiers")
    start = monotonic()
    data, skipped = readable(args, datasets.open_dataset(args.data, args.split))
    net.verbose = not args.quiet
    net.retrain(data.paths, data.labels, class_names(data), mirror=not args.no_mirror, C=args.C).save(out)
    return trained(args, out, data, skipped, args.C, start)
