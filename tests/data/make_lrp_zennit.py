"""Golden relevance from zennit 0.5.1 on torch 2.13: writes lrp_zennit.npz beside this file.

Run it where torch and zennit are installed. A small seeded network, one rule at a time on all its layers, in double
with a stabiliser of 1e-12. zennit's w^2 squares the bias into the denominator unless told otherwise; ours leaves it
out.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from zennit.composites import LayerMapComposite, NameMapComposite
from zennit.rules import AlphaBeta, Epsilon, Flat, Gamma, Pass, WSquare, ZBox, ZPlus
from zennit.types import Activation

LOW, HIGH, TINY = -2.0, 2.5, 1e-12


def network() -> nn.Sequential:
    """Convolutions with stride, with groups and dilation, pointwise; a max-pool; two dense layers; ReLU between."""
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 10, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(10 * 4 * 5, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    ).double()


def explain(net: nn.Module, composite, x: torch.Tensor, target: int) -> np.ndarray:
    """Relevance of the input, the target's logit put in."""
    x = x.clone().requires_grad_()
    with composite.context(net) as modified:
        y = modified(x)
        start = torch.zeros_like(y)
        start[0, target] = y[0, target].detach()
        (relevance,) = torch.autograd.grad(y, x, start)
    return relevance[0].numpy()


def uniform(rule):
    """One rule for all linear layers."""
    return LayerMapComposite([(Activation, Pass()), (nn.Conv2d, rule), (nn.Linear, rule)])


def first(rule):
    """A rule for the first convolution, alpha-beta for the others."""
    others = AlphaBeta(2, 1, stabilizer=TINY)
    names = [name for name, module in network().named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    passing = [name for name, module in network().named_modules() if isinstance(module, nn.ReLU)]
    return NameMapComposite([(names[:1], rule), (names[1:], others), (passing, Pass())])


def main() -> None:
    net = network()
    x = torch.randn((1, 3, 17, 21), dtype=torch.float64).clamp(LOW, HIGH)
    values = {"x": x.numpy(), "logits": net(x).detach().numpy()[0]}
    for i, module in enumerate(net):
        if isinstance(module, nn.Conv2d | nn.Linear):
            # float32 halves the file; the network is computed from the very values that are kept.
            for name, parameter in (("weight", module.weight), ("bias", module.bias)):
                parameter.data = parameter.data.float().double()
                values[f"{name}_{i}"] = parameter.detach().numpy().astype(np.float32)
    values["logits"] = net(x).detach().numpy()[0]
    rules = {
        "alphabeta_2_1": uniform(AlphaBeta(2, 1, stabilizer=TINY)),
        "alphabeta_2_1_no_bias": uniform(AlphaBeta(2, 1, stabilizer=TINY, zero_params="bias")),
        "alphabeta_3_2": uniform(AlphaBeta(3, 2, stabilizer=TINY)),
        "epsilon_0.1": uniform(Epsilon(0.1)),
        "gamma_0.25": uniform(Gamma(0.25, stabilizer=TINY)),
        "zplus": uniform(ZPlus(stabilizer=TINY)),
        "wsquare": first(WSquare(stabilizer=TINY, zero_params="bias")),
        "flat": first(Flat(stabilizer=TINY)),
        "zbox": first(ZBox(LOW, HIGH, stabilizer=TINY)),
    }
    for name, composite in rules.items():
        values[name] = explain(net, composite, x, target=3)
    np.savez_compressed(Path(__file__).with_name("lrp_zennit.npz"), **values)


if __name__ == "__main__":
    main()
