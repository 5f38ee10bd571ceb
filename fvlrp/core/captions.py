"""A ledger in words: how much of the score the heatmap holds, and where the rest went.

For `report` and the command line: the sum of a heatmap by itself says little about the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .region import OVERVIEW
from .seen import Seen

# Completes the sentence "+1.90 ..." for each entry of a ledger.
PLACES = {
    "bias": "is due to biases, which no pixel accounts for",
    "absorbed": "was absorbed by the stabiliser",
    "absorbed_pool": "was absorbed by the stabiliser where descriptors are pooled",
    "absorbed_pca": "was absorbed by the stabiliser in the projection",
    "zero_sum": "belongs to sums that are exactly 0, outside this map",
    "empty_cell": "belongs to cells without descriptors, outside this map",
    "mean": "is due to the projection's mean, outside this map",
    "zero_desc": "lies in areas without texture, outside this map",
    "zero_bin": "lies in bins without any gradient, outside this map",
    "clipped": "fell outside the image",
    "padding": "fell on the border that the network adds",
    "constants": "is due to constants inside the network",
    "softmax": "was not conserved by the softmax of attention",
    "flat": "is what the Caffe toolbox's flat rule changes",
    "rounding": "is float32 rounding error",
}
# The same in a word or two, for captions of small pictures; all others are "other".
BRIEF = {
    "bias": "biases",
    "absorbed": "absorbed",
    "absorbed_pool": "absorbed",
    "absorbed_pca": "absorbed",
    "zero_sum": "zero sums",
    "zero_desc": "no texture",
    "padding": "padding",
}
IN_MAP = ("heatmap", "class_token")  # entries whose sum is that of the map
LINE = 28  # characters: a longer line does not fit below a square panel of the smallest sheet
WIDE = 1e5  # an amount from here on has no decimals, for which a small panel has no room
SMALL = 0.02  # of the largest amount: smaller ones are summed up
MOST = 3  # amounts that are listed separately


def in_map(ledger: Mapping[str, float]) -> float:
    """The sum of the map: what arrived at pixels, and what of class tokens is spread evenly over them."""
    return sum(ledger.get(name, 0.0) for name in IN_MAP)


def share(ledger: Mapping[str, float]) -> str:
    """How much of the score the map holds, as a sentence.

    Parameters
    ----------
    ledger : mapping of str to float
        With "score" and "heatmap".
    """
    score, held = ledger["score"], in_map(ledger)
    if score and amount(held) == amount(score):
        return f"This map holds all of the score ({amount(score)})."
    amounts = f"{amount(held)} of {amount(score)}"
    if score and 0 <= held / score <= 1:
        return f"This map holds {100 * held / score:.0f} % of the score ({amounts})."
    if held * score < 0:
        return f"This map sums to {amount(held)}, against the sign of the score, {amount(score)}."
    if score:
        return f"This map sums to {amount(held)}, {'more' if score > 0 else 'less'} than the score, {amount(score)}."
    return f"This map sums to {amount(held)}, and the score is 0."


def spread(ledger: Mapping[str, float]) -> str:
    """What part of the map's sum has no position in the image, as a sentence; "" if none."""
    token = ledger.get("class_token", 0.0)
    if abs(token) <= SMALL * max(map(abs, ledger.values())):
        return ""
    return f"Of this sum, {amount(token)} belongs to class tokens, which have no position: it is spread evenly."


def rest(ledger: Mapping[str, float]) -> str:
    """Where the rest of the score went, as sentences; "" if the map holds all of it."""
    kept = {name: value for name, value in ledger.items() if name not in ("score", *IN_MAP)}
    largest = max(abs(value) for value in ledger.values())
    listed = sorted((name for name in kept if abs(kept[name]) > SMALL * largest), key=lambda name: -abs(kept[name]))
    parts = [f"{amount(kept[name])} {PLACES.get(name, f'is {name}')}" for name in listed[:MOST]]
    other = sum(value for name, value in kept.items() if name not in listed[:MOST])
    if parts and abs(other) > SMALL * largest:
        parts.append(f"{amount(other)} is in smaller entries")
    return "; ".join(parts) + "." if parts else ""


def words(ledger: Mapping[str, float]) -> str:
    """`share`, `spread` and `rest`: "This map holds 40 % of the score (+0.32 of +0.80). +0.30 lies in areas ..." """
    return " ".join(filter(None, (share(ledger), spread(ledger), rest(ledger))))


def brief(ledger: Mapping[str, float]) -> str:
    """The sum of the map and where the rest went, at most two amounts to a line: "map +0.43, absorbed −0.17".

    They add up to the score, but for the class token's part of the map, which is named behind it:
    "map −0.28, incl. class token −0.29".
    """
    kept: dict[str, float] = {}
    for name, value in ledger.items():
        if name not in ("score", *IN_MAP):
            kind = BRIEF.get(name, "other")
            kept[kind] = kept.get(kind, 0.0) + value
    largest = max(
        abs(value) for value in (ledger["score"], *(ledger.get(name, 0.0) for name in IN_MAP), *kept.values())
    )
    small = [kind for kind in kept if abs(kept[kind]) <= SMALL * largest and kind != "other"]
    kept["other"] = kept.get("other", 0.0) + sum(kept.pop(kind) for kind in small)
    token = {"incl. class token": ledger.get("class_token", 0.0)}
    amounts = {
        "map": in_map(ledger),
        **{kind: held for kind, held in (token | kept).items() if abs(held) > SMALL * largest},
    }
    style = "+.2f" if largest < WIDE else "+.3g"
    parts = [f"{kind} {held:{style}}".replace("-", "−") for kind, held in amounts.items()]
    pairs = [parts[at : at + 2] for at in range(0, len(parts), 2)]
    return "\n".join((", " if len(", ".join(pair)) <= LINE else "\n").join(pair) for pair in pairs)


def seen(part: Seen, shape: Sequence[int]) -> str:
    """What the model saw of a photograph of `shape`, as sentences; "" if it saw every pixel of it."""
    own, (height, width) = (part.height, part.width), part.size
    if part.is_all(shape) and own == part.size:
        return ""
    coarser = max(height / part.height, width / part.width)
    if own == part.size:
        resized = ""
    elif coarser > 1:
        finest = f"the map has no details finer than {coarser:.2g} pixels"
        resized = f", reduced to {part.height} × {part.width}: {finest}"
    else:
        resized = f", enlarged to {part.height} × {part.width}"
    if part.is_all(shape):
        return f"The model saw the photograph of {height} × {width} pixels{resized}."
    whole = f"Of {shape[0]} × {shape[1]} pixels the model saw {height} × {width}"
    return f"{whole}{resized}. The rest was cut off and is hatched."


def brief_seen(part: Seen, shape: Sequence[int]) -> str:
    """The same in a few words, "seen at 480 × 640"; "" if the model saw every pixel."""
    if not seen(part, shape):
        return ""
    return f"seen at {part.height} × {part.width}"


def brief_region(region: Sequence[int] | None) -> str:
    """Where the depths hold, "rows 0–99, columns 40–139", and what the rest is; "" for a whole image."""
    if region is None:
        return ""
    y0, x0, y1, x1 = region
    return f"rows {y0}–{y1 - 1}, columns {x0}–{x1 - 1}\nhatched: an overview"


def region(part: Sequence[int] | None, depth: str) -> str:
    """The same as a sentence about the map of a depth; "" where the depth holds everywhere."""
    if part is None or depth in OVERVIEW:
        return ""
    y0, x0, y1, x1 = part
    where = f"in rows {y0}–{y1 - 1}, columns {x0}–{x1 - 1}"
    return f'Depth "{depth}" holds {where}; the hatched rest is an overview at depth "descriptor".'


def amount(value: float) -> str:
    """A signed amount of relevance in three significant digits, with a real minus sign."""
    return f"{value:+.3g}".replace("-", "−") if value else "0"
