"""A network classified and explained: fvlrp beside onnxruntime (forward) and zennit (forward and alpha-beta).

    python bench/convnet.py [--pairs 5] [--only caffenet]

One thread each, in one process, in alternating pairs; ratios are medians of pairs, above 1 where fvlrp is quicker. The
networks have the shapes of CaffeNet and VGG16 with seeded weights; SqueezeNet comes from FVLRP_DATA/cnn. A row is VOID
where the numbers of the two programs disagree. A peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from fvlrp.network import walk as lrp
from fvlrp.network.graph import INPUT, Node
from fvlrp.network.layers import LRN, Conv, Dense, Flatten, MaxPool, ReLU
from fvlrp.network.network import ConvNet, Preprocess
from fvlrp.network.rules import Choice
from fvlrp.rules import AlphaBeta

LOGITS, HEATMAP = 1e-3, 1e-2  # of the largest value: what two programs may differ by in single precision

CAFFENET = (
    *(("conv", 96, 11, 4, 0, 1), ("pool", 3), ("lrn",), ("conv", 256, 5, 1, 2, 2), ("pool", 3), ("lrn",)),
    *(("conv", 384, 3, 1, 1, 1), ("conv", 384, 3, 1, 1, 2), ("conv", 256, 3, 1, 1, 2), ("pool", 3)),
    *(("dense", 4096), ("dense", 4096), ("scores", 1000)),
)
VGG16 = (
    *(
        layer
        for count, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
        for layer in (*[("conv", width, 3, 1, 1, 1)] * count, ("pool", 2))
    ),
    *(("dense", 4096), ("dense", 4096), ("scores", 1000)),
)


def network(layers, size: int) -> ConvNet:
    """A network of seeded weights that keep the size of activations."""
    rng, nodes, shape = np.random.default_rng(0), [], (3, size, size)

    def append(layer) -> None:
        nonlocal shape
        nodes.append(Node.of(f"{type(layer).__name__.lower()}{len(nodes)}", layer, (len(nodes) - 1,)))
        shape = layer.out_shape(shape)

    def weights(*shape: int):
        scale = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        return rng.standard_normal(shape, np.float32) * scale, rng.standard_normal(shape[0], np.float32) * scale

    for kind, *args in layers:
        if kind == "conv":
            width, kernel, stride, pad, groups = args
            weight = weights(width, shape[0] // groups, kernel, kernel)
            append(Conv(*weight, (stride, stride), (pad,) * 4, (1, 1), groups))
            append(ReLU())
        elif kind == "pool":
            append(MaxPool((args[0], args[0]), (2, 2), ceil_mode=True))
        elif kind == "lrn":
            append(LRN(5))
        else:
            if len(shape) == 3:
                append(Flatten(1))
            append(Dense(*weights(args[0], shape[0])))
            if kind == "dense":
                append(ReLU())
    return ConvNet(nodes, (3, size, size), preprocess=Preprocess((size, size), high=255, mean=(128,)))


def squeezenet() -> ConvNet | None:
    folder = Path(os.environ.get("FVLRP_DATA", "")) / "cnn"
    if not (folder / "squeezenet_v1.1.onnx").is_file() or importlib.util.find_spec("onnx") is None:
        return None
    return ConvNet.from_onnx(folder / "squeezenet_v1.1.onnx", folder / "squeezenet_v1.1.json")


def torch_model(net: ConvNet):
    """The same network for torch, for chains of the layers that `network` makes."""
    import torch
    from torch import nn

    modules = []
    for node in net.nodes:
        layer = node.layer
        if isinstance(layer, Conv):
            out, into, *kernel = layer.weight.shape
            module = nn.Conv2d(
                into * layer.groups, out, tuple(kernel), layer.stride, layer.pads[:2], groups=layer.groups
            )
        elif isinstance(layer, Dense):
            module = nn.Linear(*layer.weight.shape[::-1])
        else:
            module = {
                ReLU: nn.ReLU,
                Flatten: nn.Flatten,
                MaxPool: lambda layer=layer: nn.MaxPool2d(layer.kernel, layer.stride, ceil_mode=True),
                LRN: lambda layer=layer: nn.LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.bias),
            }[type(layer)]()
        if isinstance(layer, Conv | Dense):
            module.weight.data, module.bias.data = torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
        modules.append(module)
    return nn.Sequential(*modules).eval()


def zennit(net: ConvNet, x: np.ndarray, target: int):
    """A function that returns zennit's alpha-beta relevance, forward pass included; None where it is not installed."""
    if importlib.util.find_spec("zennit") is None or any(len(node.inputs) != 1 for node in net.nodes):
        return None
    import torch
    from torch import nn
    from zennit.composites import LayerMapComposite
    from zennit.rules import AlphaBeta, Pass

    torch.set_num_threads(1)
    model = torch_model(net)
    composite = LayerMapComposite(
        [(nn.ReLU, Pass()), (nn.LocalResponseNorm, Pass()), (nn.Conv2d, AlphaBeta(2, 1)), (nn.Linear, AlphaBeta(2, 1))]
    )

    def run() -> np.ndarray:
        inputs = torch.from_numpy(x).requires_grad_()
        with composite.context(model) as modified:
            y = modified(inputs)
            start = torch.zeros_like(y)
            start[0, target] = y[0, target].detach()
            return torch.autograd.grad(y, inputs, start)[0].numpy()[0].sum(axis=0)

    return run


def torch_forward(net: ConvNet, x: np.ndarray):
    """torch's forward pass as a function, where it is installed and the network is a chain."""
    if importlib.util.find_spec("torch") is None or any(len(node.inputs) != 1 for node in net.nodes):
        return None
    import torch

    torch.set_num_threads(1)
    model = torch_model(net)

    def run() -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(x)).numpy()[0]

    return run


def onnx_forward(x: np.ndarray, path: Path):
    """onnxruntime's forward pass as a function, where it is installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {session.get_inputs()[0].name: x})[0].reshape(-1)


def explained(net: ConvNet, x: np.ndarray, target: int) -> np.ndarray:
    """Forward pass and alpha-beta relevance, summed over channels."""
    saved = net.passed(x)
    start = np.zeros_like(saved[-1].y)
    start.reshape(-1)[target] = saved[-1].y.reshape(-1)[target]
    rules = [Choice(AlphaBeta(2, 1))] * len(net.nodes)
    return lrp.walk(net.nodes, x, saved, start, [INPUT], rules)[0].pixels[0].sum(axis=0)


def seconds(run) -> tuple[float, np.ndarray]:
    begin = time.perf_counter()
    result = run()
    return time.perf_counter() - begin, result


def row(name: str, what: str, peer: str, ours, theirs, pairs: int, tolerance: float) -> str:
    """A line of the table: both once to warm up and to compare, then in turns."""
    one, other = np.asarray(ours()), np.asarray(theirs())
    error = np.abs(one - other).max() / np.abs(other).max()
    own, peers = [], []
    for _ in range(pairs):
        own.append(seconds(ours)[0])
        peers.append(seconds(theirs)[0])
    ratio = statistics.median(b / a for a, b in zip(own, peers, strict=True))
    verdict = f"{ratio:.2f}" if error <= tolerance else "VOID"
    mine, its = statistics.median(own) * 1e3, statistics.median(peers) * 1e3
    return f"| {name} | {what} | {peer} | {mine:.1f} | {its:.1f} | {verdict} | {error:.1e} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", choices=("caffenet", "vgg16", "squeezenet"))
    args = parser.parse_args()
    networks = {
        "caffenet": lambda: network(CAFFENET, 227),
        "vgg16": lambda: network(VGG16, 224),
        "squeezenet": squeezenet,
    }
    print("| network | what | peer | fvlrp ms | peer ms | ratio | difference |\n|---|---|---|--:|--:|--:|--:|")
    for name, make in networks.items():
        net = make() if args.only in (None, name) else None
        if net is None:
            continue
        rng = np.random.default_rng(1)
        x = net.prepare(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8))
        target = int(net.activations(x)[-1].argmax())

        def forward(net=net, x=x):
            return net.forward(x)[0]

        def relevance(net=net, x=x, target=target):
            return explained(net, x, target)

        if name == "squeezenet":
            path = Path(os.environ["FVLRP_DATA"]) / "cnn" / "squeezenet_v1.1.onnx"
            peer = onnx_forward(x, path)
            if peer is not None:
                print(row(name, "forward", "onnxruntime", forward, peer, args.pairs, LOGITS), flush=True)
        else:
            peer = torch_forward(net, x)
            if peer is not None:
                print(row(name, "forward", "torch", forward, peer, args.pairs, LOGITS), flush=True)
        peer = zennit(net, x, target)
        if peer is not None:
            print(row(name, "forward + αβ", "zennit", relevance, peer, args.pairs, HEATMAP), flush=True)
        else:
            times = [seconds(relevance)[0] for _ in range(args.pairs)]
            print(f"| {name} | forward + αβ | - | {statistics.median(times) * 1e3:.1f} | | | |", flush=True)


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
