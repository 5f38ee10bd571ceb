"""Rules of attention beside LXT 2.1, the toolbox of AttnLRP's authors, on vision transformers with seeded weights.

    pip install "lxt==2.1" torch timm onnx "transformers<5"
    python bench/attention.py

LXT multiplies the input by a modified gradient, in which epsilon is 0; fvlrp runs in exact mode with epsilon 1e-12 on
the network's ONNX file. Prints the largest difference of the relevance of pixels, over the largest relevance, and exits
with 1 where one is above 1e-5. LXT computes in float64, from the float32 weights that the file holds.
"""

from __future__ import annotations

import sys
import tempfile
import types
import warnings
from functools import partial
from pathlib import Path

import numpy as np

from fvlrp import Network, Preprocess
from fvlrp.network.trace import choices
from fvlrp.network.walk import walk
from fvlrp.rules import Epsilon, NetworkRules

MODELS = {  # timm's names, and what makes them small
    "vit_tiny_patch16_224": {"depth": 3},
    "deit3_small_patch16_224": {"depth": 2, "init_values": 0.5},
    "vit_small_patch14_reg4_dinov2": {"depth": 2, "img_size": 70, "init_values": 0.5},
    "beit_base_patch16_224": {"depth": 2, "embed_dim": 96, "num_heads": 3, "init_values": 0.5},
}
MOST = 1e-5


def theirs(model, x: np.ndarray, target: int, attention: str) -> np.ndarray:
    """Relevance (C, H, W) of LXT's rules: GELU the identity, deviations constant, attention by `attention`."""
    import torch
    import torch.nn.functional as functional
    from lxt.efficient.patches import layer_norm_forward
    from lxt.efficient.rules import divide_gradient, identity_rule_implicit, stop_gradient

    def activation(module, values):
        return identity_rule_implicit(type(module).forward.__get__(module), values)

    def product(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
        if attention == "both":  # LXT's wrap_attention_forward
            query, key, value = divide_gradient(query, 4), divide_gradient(key, 4), divide_gradient(value, 2)
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        scores = query @ key.transpose(-2, -1) * scale
        weights = (scores if attn_mask is None else scores + attn_mask).softmax(dim=-1)
        return (stop_gradient(weights) if attention == "value" else weights) @ value

    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.forward = types.MethodType(layer_norm_forward, module)
        elif isinstance(module, torch.nn.GELU):
            module.forward = partial(activation, module)
    kept, functional.scaled_dot_product_attention = functional.scaled_dot_product_attention, product
    try:
        pixels = torch.from_numpy(x).double().requires_grad_()
        model(pixels)[0, target].backward()
        return (pixels * pixels.grad)[0].detach().numpy()
    finally:
        functional.scaled_dot_product_attention = kept


def ours(path: Path, x: np.ndarray, attention: str) -> tuple[np.ndarray, int]:
    """Relevance (C, H, W) of the largest score, and which score that is."""
    net = Network.from_onnx(path, Preprocess(x.shape[2:]))
    saved = net.passed(x.astype(np.float64))
    target = int(saved[-1].y.argmax())
    start = np.zeros_like(saved[-1].y)
    start[0, target] = saved[-1].y[0, target]
    rules = NetworkRules(default=Epsilon(1e-12), attention=attention)
    told = choices(net.nodes, rules, lambda node, rule: None)
    return walk(net.nodes, x.astype(np.float64), saved, start, [-1], told)[0].pixels[0], target


def exported(name: str, options: dict, path: Path):
    """A model of timm in float64, and its file."""
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10, **options).eval()
    for parameter in model.parameters():
        if parameter.dim() <= 1 or not parameter.any():
            torch.nn.init.normal_(parameter, 0.5, 0.2)
    size = model.patch_embed.img_size
    x = np.random.default_rng(0).normal(size=(1, 3, *size)).astype(np.float32)
    torch.onnx.export(model, torch.from_numpy(x), path, opset_version=17, dynamo=False)
    return model.double(), x


def main() -> int:
    warnings.simplefilter("ignore")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, options in MODELS.items():
            model, x = exported(name, options, Path(folder) / "model.onnx")
            for attention in ("value", "both"):
                mine, target = ours(Path(folder) / "model.onnx", x, attention)
                wanted = theirs(model, x, target, attention)
                error = float(np.abs(mine - wanted).max() / np.abs(wanted).max())
                worst = max(worst, error)
                print(f"{name:32s} attention={attention:6s} largest difference {error:.1e}", flush=True)
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main())
