"""Draw the wings of the package from its source: who holds what, who may import whom.

python docs/draw_wings.py FILE.svg
"""

import ast
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from rings import MODULES, RINGS, imports_of, path_of  # noqa: E402

WIDTH, LINE, AIR, HEAD = 520, 17, 10, 24  # narrow enough for a phone
COLOURS = ("#e8f1fa", "#eaf6ec", "#fdf3e1", "#f6ebf5")


def wing_of(module):
    return module.split(".")[0]


def modules_of(wing):
    return [name for name in MODULES if wing_of(name) == wing and name != wing and "." in name] or [wing]


def purpose(wing):
    """The first sentence of the wing's own docstring."""
    path = path_of(wing) if wing != "_kernels" else None
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path and path.is_file() else None
    if wing == "_kernels":
        text = "Thin binding of csrc: shapes and types in, a call without the GIL, a status turned into words."
    return (text or "").split("\n\n")[0].replace("\n", " ")


def imports(wing):
    """Other wings that a wing imports, from its source."""
    found = {wing_of(name) for module in MODULES if wing_of(module) == wing for name in imports_of(module) if name}
    return sorted(found - {wing, ""})


def wrapped(words, width):
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) + 2 > width:
            lines.append("")
        lines[-1] += (", " if lines[-1] else "") + word
    return lines


def box(wing, x, y, width, colour):
    letters = int((width - 2 * AIR) / 6.2)
    names = [name.partition(".")[2] or name for name in modules_of(wing)] if wing != "_kernels" else ["_kernels.pyx"]
    sentence = purpose(wing)
    told = []
    while sentence:
        cut = sentence if len(sentence) <= letters else sentence[: sentence.rfind(" ", 0, letters)]
        told.append(cut)
        sentence = sentence[len(cut) :].strip()
    lines = [*(("i", line) for line in told), *(("", line) for line in wrapped(names, letters))]
    first, *others = imports(wing) or ["nothing of the package"]
    lines += [("s", line) for line in wrapped([f"imports {first}", *others], letters)]
    height = HEAD + LINE * len(lines) + AIR
    style = {"i": 'fill="#444" font-style="italic"', "": 'fill="#111"', "s": 'fill="#666"'}
    text = "".join(
        f'<text x="{x + AIR}" y="{y + HEAD + LINE * (i + 1) - 4}" font-size="11.5" {style[kind]}>{escape(line)}</text>'
        for i, (kind, line) in enumerate(lines)
    )
    return (
        height,
        lambda tall: (
            f'<rect x="{x}" y="{y}" width="{width}" height="{tall}" rx="6" fill="{colour}" stroke="#888"/>'
            f'<text x="{x + AIR}" y="{y + HEAD - 4}" font-size="14" font-weight="bold">{wing}</text>{text}'
        ),
    )


def picture():
    """SVG: outer rings above, each sees those below it."""
    parts, y = [], AIR
    for ring in reversed(RINGS):
        ring = [wing for wing in ring if wing != "__main__"]
        if not ring:
            continue
        width = (WIDTH - AIR * (len(ring) + 1)) / len(ring)
        made = [
            box(wing, AIR + i * (width + AIR), y, width, COLOURS[len(parts) % len(COLOURS)])
            for i, wing in enumerate(ring)
        ]
        tall = max(height for height, _ in made)
        parts.append("".join(draw(tall) for _, draw in made))
        y += tall + AIR
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif">'
        f'<rect width="{WIDTH}" height="{y}" fill="white"/>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(), encoding="utf-8")
