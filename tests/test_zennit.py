"""The agreement with zennit on SqueezeNet, whose relevance torch's automatic differentiation computes."""

import numpy as np
import pytest

from fvlrp import Network
from fvlrp.rules import AlphaBeta, Epsilon

torch = pytest.importorskip("torch", reason="zennit needs torch, which is missing")
pytest.importorskip("zennit", reason="zennit is missing")

TINY = 1e-12


class Mirror(torch.nn.Module):
    """The nodes of a network, with the same weights, in float64."""

    def __init__(self, net):
        super().__init__()
        self.nodes, self.parts = net.nodes, torch.nn.ModuleDict()
        for i, node in enumerate(net.nodes):
            layer = node.layer
            if node.kind == "conv":
                part = torch.nn.Conv2d(*layer.weight.shape[1::-1], layer.weight.shape[2:], layer.stride, layer.pads[:2])
                part.weight.data = torch.from_numpy(np.array(layer.weight, np.float64))
                part.bias.data = torch.from_numpy(np.array(layer.bias, np.float64))
            elif node.kind == "relu":
                part = torch.nn.ReLU()
            elif node.kind == "maxpool":
                part = torch.nn.MaxPool2d(layer.kernel, layer.stride, layer.pads[:2], ceil_mode=layer.ceil_mode)
            elif node.kind == "globalaveragepool":
                part = torch.nn.AdaptiveAvgPool2d(1)
            else:
                part = torch.nn.Identity()
            self.parts[str(i)] = part

    def forward(self, x):
        out = []
        for i, node in enumerate(self.nodes):
            inputs = [x if at < 0 else out[at] for at in node.inputs]
            y = torch.cat(inputs, 1) if node.kind == "concat" else self.parts[str(i)](inputs[0])
            out.append(y.flatten(1) if node.kind == "flatten" else y)
        return out[-1].flatten(1)


@pytest.mark.parametrize(("ours", "name"), [(Epsilon(0.01), "epsilon"), (AlphaBeta(2, 1), "alpha_beta")])
def test_relevance_of_squeezenet_is_zennits(data, photographs, ours, name):
    from zennit.composites import LayerMapComposite
    from zennit.rules import AlphaBeta as TheirAlphaBeta
    from zennit.rules import Epsilon as TheirEpsilon
    from zennit.rules import Pass
    from zennit.types import AvgPool

    net = Network.from_onnx(data / "cnn" / "squeezenet_v1.1.onnx")
    trace = net.trace(photographs[1], dtype="float64")
    x = torch.from_numpy(np.array(trace.x, np.float64)).requires_grad_()
    rule = {"epsilon": lambda: TheirEpsilon(0.01), "alpha_beta": lambda: TheirAlphaBeta(2, 1, stabilizer=TINY)}[name]
    # Averages are of values >= 0, which alpha-beta shares in proportion.
    average = TheirEpsilon(0.01 if name == "epsilon" else TINY)
    composite = LayerMapComposite([(torch.nn.ReLU, Pass()), (torch.nn.Conv2d, rule()), (AvgPool, average)])
    with composite.context(Mirror(net).eval()) as model:
        scores = model(x)
        top = int(scores.argmax())
        start = torch.zeros_like(scores)
        start[0, top] = scores[0, top]
        (theirs,) = torch.autograd.grad(scores, x, start)
    np.testing.assert_allclose(scores[0].detach(), trace.scores, rtol=1e-6, atol=1e-6)
    found = trace.explain(net.classes_[top], "input", ours).relevance["input"]
    off = np.linalg.norm(found - theirs[0].numpy()) / np.linalg.norm(theirs.numpy())
    assert off < 1e-10  # 4e-14 and 1e-12
