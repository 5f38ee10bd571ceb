"""Slow twins of layers and rules: relevance from equations, one output at a time, for any test to compare with."""

from dataclasses import replace

import numpy as np

from fvlrp.rules import Box, Epsilon, Flat, Gamma, WSquare, ZPlus


def matrix(layer, shapes) -> np.ndarray:
    """The weights (outputs, inputs) of a linear map without its constants, by showing it unit vectors."""
    blind = {name: np.zeros_like(getattr(layer, name)) for name in ("bias", "shift") if hasattr(layer, name)}
    homogeneous, columns = replace(layer, **blind), []
    for k, shape in enumerate(shapes):
        for unit in np.eye(int(np.prod(shape))).reshape(-1, 1, *shape):
            inputs = [unit if i == k else np.zeros((1, *other)) for i, other in enumerate(shapes)]
            columns.append(homogeneous.apply(*inputs).ravel())
    return np.stack(columns, axis=1)


def linear(layer, x, r, rule, bias="absorb", box=None) -> np.ndarray:
    """R_i of a convolution or dense layer from the rule's equation, one output after the other: (inputs,)."""
    w = matrix(layer, [x.shape[1:]])
    b = layer.apply(np.zeros_like(x)).ravel()
    if isinstance(rule, WSquare):
        w = matrix(replace(layer, weight=layer.weight**2), [x.shape[1:]])
    connected = matrix(replace(layer, weight=np.ones_like(layer.weight)), [x.shape[1:]]) != 0
    x, out = x.ravel(), np.zeros(x.size)
    for j, amount in enumerate(r.ravel()):
        z, own = w[j] * x, b[j] if bias != "ignore" else 0.0
        up, down = np.maximum(z, 0), np.minimum(z, 0)
        up_sum, down_sum = up.sum() + max(own, 0), down.sum() + min(own, 0)
        if isinstance(rule, Flat):
            terms = [(1.0, connected[j].astype(float), 0.0, connected[j].sum())]
        elif isinstance(rule, WSquare):
            terms = [(1.0, w[j], 0.0, w[j].sum())]
        elif isinstance(rule, Box):
            low, high = (bound.ravel() for bound in box)
            z = z - low * np.maximum(w[j], 0) - high * np.minimum(w[j], 0)
            terms = [(1.0, z, 0.0, z.sum())]
        elif isinstance(rule, Epsilon):
            total = z.sum() + own
            terms = [(1.0, z, own, total + (rule.epsilon if total >= 0 else -rule.epsilon))]
        elif isinstance(rule, Gamma):
            side, part, total = (up, max(own, 0), up_sum) if z.sum() + own >= 0 else (down, min(own, 0), down_sum)
            terms = [(1.0, z + rule.gamma * side, own + rule.gamma * part, z.sum() + own + rule.gamma * total)]
        else:
            alpha, beta = (1.0, 0.0) if isinstance(rule, ZPlus) else (rule.alpha, rule.beta)
            terms = [(alpha, up, max(own, 0), up_sum), (-beta, down, min(own, 0), down_sum)]
        for factor, each, part, total in terms:
            if total != 0:
                out += factor * each / total * amount
                if bias == "distribute":
                    out += connected[j] / max(connected[j].sum(), 1) * factor * part / total * amount
    return out


def of_a_sum(z, r, rule) -> np.ndarray:
    """Relevance of the terms z (n,) of one sum: terms of one sign take all of r, whatever the signed rule."""
    up, down = np.maximum(z, 0), np.minimum(z, 0)
    if isinstance(rule, Flat | WSquare):
        return np.full_like(z, r / len(z))
    if isinstance(rule, Epsilon):
        return z * r / (z.sum() + np.copysign(rule.epsilon, z.sum()))
    if up.sum() == 0 or down.sum() == 0:
        return np.full_like(z, r / len(z)) if not z.any() else z * r / z.sum()
    if isinstance(rule, Gamma):
        boosted = z + rule.gamma * (up if z.sum() >= 0 else down)
        return boosted * r / boosted.sum()
    alpha, beta = (1, 0) if isinstance(rule, ZPlus) else (rule.alpha, rule.beta)
    return r * (alpha * up / up.sum() - beta * down / down.sum())


def sums(layer, inputs, r, rule) -> list[np.ndarray]:
    """Relevance (1, ...) of each input of a layer whose outputs are sums with known weights."""
    weights = matrix(layer, [x.shape[1:] for x in inputs])
    x = np.concatenate([x.ravel() for x in inputs])
    out = np.zeros(x.size)
    for w, amount in zip(weights, r.ravel(), strict=True):
        out[w != 0] += of_a_sum(w[w != 0] * x[w != 0], amount, rule)
    return _apart(out, inputs)


def routed(layer, inputs, r) -> list[np.ndarray]:
    """Relevance (1, ...) of each input of a layer that only moves values: each value's goes back where it was taken."""
    count = sum(x.size for x in inputs)
    names = np.arange(1.0, 1 + count)  # 0 is a border's
    taken = layer.apply(*_apart(names, inputs)).ravel().astype(int)
    out = np.zeros(1 + count)
    np.add.at(out, taken, r.ravel())
    return _apart(out[1:], inputs)


def _apart(values, inputs) -> list[np.ndarray]:
    ends = np.cumsum([x.size for x in inputs])[:-1]
    return [part.reshape(x.shape) for part, x in zip(np.split(values, ends), inputs, strict=True)]
