"""Forward passes through a network's nodes. For `fvlrp.network.network` and `retraining`.

Hides how long outputs are kept (all of them for an explanation; for scores, only until their last use), and that
activations are fused with the convolution before them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..core.layer import Array
from .graph import INPUT, Node
from .layers import Saved


def passed(nodes: Sequence[Node], x: Array) -> list[Saved]:
    """What every node saves in a forward pass of the batch `x` (n, C, H, W), in the order of the nodes."""
    out: list[Saved] = []
    for node in nodes:
        _, saved = node.layer.forward(*(x if k == INPUT else out[k].y for k in node.inputs))
        out.append(saved)
    return out


def output(nodes: Sequence[Node], x: Array, last: int) -> Array:
    """Output of node `last` (or `x` itself, for INPUT); other outputs are dropped after their last use."""
    out, before = {INPUT: x}, nodes[: last + 1]
    uses = Counter(k for node in before for k in node.inputs)
    uses[last] += 1
    for i, node in enumerate(before):
        if i in out:
            continue
        inputs = [out[k] for k in node.inputs]
        then = _fused(nodes, i, uses) if i < last else None
        if then is None:
            out[i] = node.layer.apply(*inputs)
        else:
            out[then] = node.layer.apply(*inputs, then=nodes[then].layer)
        for k in node.inputs:
            uses[k] -= 1
            if not uses[k]:
                del out[k]
    return out[last]


def _fused(nodes: Sequence[Node], i: int, uses: Counter[int]) -> int | None:
    """The elementwise layer directly after convolution `i`, if nothing else reads the convolution."""
    following = nodes[i + 1]
    alone = nodes[i].kind == "conv" and uses[i] == 1 and following.inputs == (i,)
    return i + 1 if alone and following.layer.elementwise else None
