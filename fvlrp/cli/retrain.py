"""`fvlrp retrain`: learns a network's last layer for other classes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from time import monotonic

from ..data import datasets
from ..network.network import Network
from ..network.retraining import classifier
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
    if not isinstance(net, Network):
        raise ValueError(f"{args.network} is not a network; fvlrp train makes Fisher-vector classifiers")
    start = monotonic()
    data, skipped = readable(args, datasets.open_dataset(args.data, args.split))
    net.verbose = not args.quiet
    new = net.retrain(data.paths, data.labels, class_names(data), mirror=not args.no_mirror, C=args.C)
    new.save(out)
    last = classifier(net.nodes)
    head = f"layer {new.layers[-1]!r} was appended" if last is None else f"layer {net.layers[last]!r} was replaced"
    return trained(args, out, data, skipped, args.C, start, head)
