"""`fvlrp info`: what a model holds, and how this fvlrp was built."""

from __future__ import annotations

import platform
from argparse import ArgumentParser, Namespace

import numpy as np

from .. import __version__, _kernels, models
from ..core.menu import spans
from ..network.network import Network
from ..network.rules import NetworkRules
from ..runtime.types import Parsed
from . import options
from .output import OK, Record, result


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="model file, or the name of a model inside the package")
    options.add_description(parser)
    parser.add_argument("--rule", action="append", default=[], metavar="NAME=VALUE", help=options.RULES)


def run(args: Namespace) -> int:
    value: Record = {
        "fvlrp": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "instruction sets": {"in use": _kernels.isa(), "available": _kernels.isas()},
        "models": models.names(),
    }
    lines: list[str] = []
    if args.model:
        model = options.load_model(args, args.model)
        value["model"] = {"name": args.model, **model.describe()}
        menu = model.menu
        value["model"]["default depths"] = {
            "explain": menu.default_depth,
            "figures": list(dict.fromkeys(menu.figure_depths)),
            "reports": list(menu.report_depths),
        }
        if isinstance(model, Network):
            value["model"]["blocks"] = list(model.layout.blocks)
            _follow_rules(value["model"]["layers"], model, options.rules(model.menu, args.rule))
        if account := getattr(model, "account", None):
            value["model"]["import"] = account.to_dict()
            lines = ["import:", *(f"  {line}" for line in account.lines() or ["a layer for each node"])]
    flat = {**value, **value.get("model", {})}
    shown = {name: item for name, item in flat.items() if name not in ("model", "import")}
    if "blocks" in shown:
        shown["blocks"] = ", ".join(spans(shown["blocks"])) or "none; depths are the names of layers, and input"
    result(args, value, "\n".join([*(f"{name}: {_readable(item)}" for name, item in shown.items()), *lines]))
    return OK


def _follow_rules(layers: list[Record], net: Network, rules: NetworkRules) -> None:
    """Add to each layer's description the rule that relevance follows there."""
    from ..network.trace import choices

    for layer, node, choice in zip(layers, net.nodes, choices(net.nodes, rules, lambda *_: None), strict=True):
        layer["rule"] = "unchanged" if node.layer.role == "none" else repr(choice.rule)


def _readable(item: Parsed, inner: bool = False) -> str:
    """A value as text: long lists abbreviated, a line per row of a table."""
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
