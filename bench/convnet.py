"""Networks classified and explained: fvlrp beside onnxruntime (forward) and zennit on torch (explained).

    python bench/convnet.py [--pairs 7] [--only resnet50,vit] [--json]

Needs torch, torchvision, zennit, onnx and onnxruntime. Networks have seeded weights; those with weights of their own
come from FVLRP_DATA/cnn. Both sides run in one process on one thread, in turn; times are processor time, which other
programs on the machine lengthen less than a clock's; ratios are medians over pairs, and every ratio is the peer's time
by fvlrp's but for "forward / ort", which is fvlrp's by onnxruntime's. A ratio is VOID where logits or heatmaps differ.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torchvision
from threadpoolctl import threadpool_limits
from torch import nn
from zennit.canonizers import AttributeCanonizer, SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite
from zennit.layer import Sum
from zennit.rules import AlphaBeta, Gamma, Norm, Pass
from zennit.torchvision import ResNetCanonizer

import fvlrp
from fvlrp.network import walk as lrp
from fvlrp.network.graph import INPUT
from fvlrp.network.trace import choices
from fvlrp.rules import NetworkRules

LOGITS, HEATMAP = 1e-3, 1e-2  # of the largest value: what two programs may differ by in single precision
STABILISER = 1e-9  # of zennit; sums of a depthwise convolution can be smaller than its default, 1e-6
SHARED = fvlrp.rules.Epsilon(1e-6)  # residual sums and averages, as zennit's Norm shares
SUMS = dict.fromkeys(("add", "globalaveragepool", "averagepool", "reduce"), SHARED)
PAPER = NetworkRules(fvlrp.rules.AlphaBeta(2, 1), layers=SUMS)  # of torch's networks; files have the default rules
ATTENTION = NetworkRules.preset("attention")


# ---- networks ----


class LayerNorm(nn.LayerNorm):
    """The deviation is a constant of the way back."""

    def forward(self, x):
        centred = x - x.mean(dim=-1, keepdim=True)
        deviation = (centred.square().mean(dim=-1, keepdim=True) + self.eps).sqrt().detach()
        return centred / deviation * self.weight + self.bias


def added(total: Sum, a, b):
    """The sum of two, as a module that zennit can give a rule; to ONNX as any other sum."""
    return a + b if torch.onnx.is_in_onnx_export() else total(torch.stack([a, b], dim=-1))


class Weigh(nn.Module):
    """Values times attention, which is a constant of the way back."""

    def forward(self, values):
        return self.attention @ values


class Block(nn.Module):
    """A block of a vision transformer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.norm1, self.norm2 = LayerNorm(width, eps=1e-6), LayerNorm(width, eps=1e-6)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.proj, self.weigh, self.sum1, self.sum2 = nn.Linear(width, width), Weigh(), Sum(), Sum()
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def split(self, x):
        return x.reshape(1, x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x):
        y = self.norm1(x)
        q, k, v = self.split(self.q(y)), self.split(self.k(y)), self.split(self.v(y))
        self.weigh.attention = (q @ k.transpose(-1, -2) * self.scale).softmax(dim=-1).detach()
        y = self.proj(self.weigh(v).transpose(1, 2).reshape(1, x.shape[1], -1))
        x = added(self.sum1, x, y)
        return added(self.sum2, x, self.mlp(self.norm2(x)))


class Transformer(nn.Module):
    """ViT-S/16: 12 blocks of 6 heads, 384 channels, scores from a class token."""

    def __init__(self, width: int = 384, heads: int = 6, depth: int = 12) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token, self.place = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 197, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head, self.sum = LayerNorm(width, eps=1e-6), nn.Linear(width, 1000), Sum()

    def forward(self, x):
        x = torch.cat([self.token, self.patches(x).flatten(2).transpose(1, 2)], dim=1)
        x = added(self.sum, x, self.place)
        return self.head(self.norm(self.blocks(x))[:, 0])


TORCH: dict[str, Callable[[], nn.Module]] = {
    "alexnet": torchvision.models.alexnet,
    "vgg16": torchvision.models.vgg16,
    "squeezenet": torchvision.models.squeezenet1_1,
    "resnet50": torchvision.models.resnet50,
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "vit_s16": Transformer,
}
FILES = {"efficientnet_lite0": "efficientnet_lite0.onnx", "vit_s14": "dinov2_vits14_cls.onnx"}


def seeded(name: str) -> nn.Module:
    """A network of seeded weights; batch normalisations have statistics as of training."""
    torch.manual_seed(0)
    model = TORCH[name]().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1), module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5), module.bias.data.normal_(0, 0.1)
    return model


# ---- peers ----


class MobileNetCanonizer(AttributeCanonizer):
    """Residual sums of torchvision's MobileNetV2 as modules, as zennit's own canonizer has them for ResNets."""

    def __init__(self) -> None:
        super().__init__(self._attributes)

    @classmethod
    def _attributes(cls, name, module):
        if isinstance(module, torchvision.models.mobilenetv2.InvertedResidual) and module.use_res_connect:
            return {"forward": cls.forward.__get__(module), "canonizer_sum": Sum()}
        return None

    @staticmethod
    def forward(self, x):
        return added(self.canonizer_sum, x, self.conv(x))


def zennit(name: str, model: nn.Module, x: np.ndarray, target: int) -> Callable[[], np.ndarray]:
    """zennit's relevance, forward pass included."""
    alike = [(nn.ReLU, Pass()), (nn.ReLU6, Pass()), (nn.GELU, Pass()), (Sum, Norm())]
    if isinstance(model, Transformer):
        linear = [(nn.Conv2d, Gamma(0.25)), (nn.Linear, Gamma(0.05)), (nn.LayerNorm, Norm()), (Weigh, Norm())]
        canonizers = []
    else:
        linear = [
            (nn.Conv2d, AlphaBeta(2, 1, STABILISER)),
            (nn.Linear, AlphaBeta(2, 1, STABILISER)),
            (nn.AdaptiveAvgPool2d, Norm()),
        ]
        canonizers = [ResNetCanonizer() if name == "resnet50" else SequentialMergeBatchNorm()]
        canonizers += [MobileNetCanonizer()] if name == "mobilenet_v2" else []
    composite = LayerMapComposite([*linear, *alike], canonizers=canonizers)
    if name == "mobilenet_v2":  # its average is a function, no module
        pooled = nn.Sequential(model.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.classifier).eval()
        model = pooled

    def run() -> np.ndarray:
        inputs = torch.from_numpy(x).requires_grad_()
        with composite.context(model) as modified:
            y = modified(inputs)
            start = torch.zeros_like(y)
            start[0, target] = y[0, target].detach()
            return torch.autograd.grad(y, inputs, start)[0].numpy()[0].sum(axis=0)

    return run


def onnx_forward(x: np.ndarray, path: Path) -> Callable[[], np.ndarray]:
    """onnxruntime's forward pass."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {session.get_inputs()[0].name: x})[0].reshape(-1)


def explained(net: fvlrp.Network, x: np.ndarray, target: int, rules: NetworkRules) -> np.ndarray:
    """Forward pass and relevance, summed over channels."""
    saved = net.passed(x)
    start = np.zeros_like(saved[-1].y)
    start.reshape(-1)[target] = saved[-1].y.reshape(-1)[target]
    told = choices(net.nodes, rules, lambda node, rule: None)
    return lrp.walk(net.nodes, x, saved, start, [INPUT], told)[0].pixels[0].sum(axis=0)


# ---- measuring ----


def seconds(run: Callable[[], np.ndarray]) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


def beside(ours, theirs, pairs: int, tolerance: float) -> dict[str, float]:
    """Milliseconds of both, the ratio of the peer's to ours, and by how much results differ."""
    one, other = np.asarray(ours()), np.asarray(theirs())
    error = float(np.abs(one - other).max() / np.abs(other).max())
    times = [(seconds(ours), seconds(theirs)) for _ in range(pairs)]
    own, peer = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    return {"ours": own, "peer": peer, "ratio": ratio, "difference": error, "valid": error <= tolerance}


def measure(name: str, path: Path, model: nn.Module | None, pairs: int) -> dict[str, dict[str, float]]:
    """The figures of one network."""
    net = fvlrp.Network.from_onnx(path)
    x = net.prepare(np.random.default_rng(1).integers(0, 256, (240, 320, 3), dtype=np.uint8))
    target = int(net.forward(x)[0].argmax())
    rules = ATTENTION if name.startswith("vit") else NetworkRules() if model is None else PAPER

    def forward() -> np.ndarray:
        return net.forward(x)[0]

    def relevance() -> np.ndarray:
        return explained(net, x, target, rules)

    found = {"forward": beside(forward, onnx_forward(x, path), max(pairs, 15), LOGITS)}
    if model is not None:
        found["explained"] = beside(relevance, zennit(name, model, x, target), pairs, HEATMAP)
    else:
        relevance()
        found["explained"] = {"ours": 1e3 * statistics.median(seconds(relevance) for _ in range(pairs))}
    return found


HEAD = (
    "| network | forward, ms | onnxruntime, ms | forward / ort | explained, ms | in forward passes | zennit, ms |"
    " ratio |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|"
)


def line(name: str, found: dict[str, dict[str, float]]) -> str:
    forward, explained = found["forward"], found["explained"]
    cost = f"{1 / forward['ratio']:.2f}" if forward["valid"] else "VOID"
    cells = [f"{forward['ours']:.1f}", f"{forward['peer']:.1f}", cost, f"{explained['ours']:.1f}"]
    cells.append(f"{explained['ours'] / forward['ours']:.1f}")
    if "peer" in explained:
        ratio = f"{explained['ratio']:.1f}" if explained["valid"] else f"VOID ({explained['difference']:.0e})"
        cells += [f"{explained['peer']:.0f}", ratio]
    else:
        cells += ["–", "–"]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", help=f"comma-separated; default: all of {', '.join([*TORCH, *FILES])}")
    parser.add_argument("--json", action="store_true", help="all figures as JSON on stdout, the table on stderr")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    wanted = args.only.split(",") if args.only else [*TORCH, *FILES]
    say, results = sys.stderr if args.json else sys.stdout, {}
    print(HEAD, file=say, flush=True)
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        for name in wanted:
            model = seeded(name) if name in TORCH else None
            path = Path(os.environ.get("FVLRP_DATA", "")) / "cnn" / FILES.get(name, "")
            if model is not None:
                path = Path(folder) / f"{name}.onnx"
                torch.onnx.export(model, torch.zeros(1, 3, 224, 224), path, opset_version=17, dynamo=False)
            elif not path.is_file():
                continue
            results[name] = measure(name, path, model, args.pairs)
            print(line(name, results[name]), file=say, flush=True)
    if args.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
