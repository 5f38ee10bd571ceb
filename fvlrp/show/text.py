"""Text in pictures: fonts, letters that a font lacks, lines that fit their width. For the modules that draw."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import cast

from PIL import Image, ImageDraw, ImageFont

WHITE = (255, 255, 255)
INK = (34, 34, 34)


@lru_cache(maxsize=64)
def font(size: int, path: str | None) -> ImageFont.FreeTypeFont:
    """The font in a file, at a size in pixels; Pillow's own for None. Raises OSError if it cannot be opened."""
    if path is None:
        return cast("ImageFont.FreeTypeFont", ImageFont.load_default(size))  # Pillow's wheels all include FreeType
    try:
        return ImageFont.truetype(path, size)
    except OSError as error:
        raise OSError(f"font {path!r} cannot be opened as a TrueType or OpenType file ({error})") from error


@lru_cache(maxsize=4096)
def _drawable(font: ImageFont.FreeTypeFont, character: str) -> bool:
    # U+FFFF is not a character: every font draws its glyph for a missing one.
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))


def _spelled(character: str) -> str:
    """A character in plain letters, for fonts that lack it (Pillow's own has little beyond ASCII)."""
    if unicodedata.category(character) == "Pd" or character == "−":
        return "-"
    if character == "×":
        return "x"
    plain = unicodedata.normalize("NFKD", character)[0]
    name = unicodedata.name(plain, "")
    if name.startswith("GREEK"):
        letter = name.split()[-1]
        return letter.title() if "CAPITAL" in name else letter.lower()
    return plain


def printable(text: str, font: ImageFont.FreeTypeFont) -> str:
    """`text` in letters that the font has: others are spelled out, or become a question mark."""
    spelled = "".join(c if _drawable(font, c) else _spelled(c) for c in text)
    return "".join(c if _drawable(font, c) else "?" for c in spelled)


def _elided(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """`text`, or as much of its beginning as fits into `width` pixels with an ellipsis; of a single word both ends.

    The end of a long name, such as that of a layer, tells more than its middle.
    """
    if font.getlength(text) <= width:
        return text
    mark, single = printable("…", font), " " not in text
    for count in range(len(text) - 1, 0, -1):
        begin = count // 3 if single else count
        shorter = f"{text[:begin].rstrip()}{mark}{text[len(text) - count + begin :]}"
        if font.getlength(shorter) <= width:
            return shorter
    return mark


def _filled(parts: list[str], joint: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Parts joined to lines of `width` pixels; a part that is wider alone has a line of its own."""
    lines: list[str] = []
    for part in parts:
        if lines and font.getlength(f"{lines[-1]}{joint}{part}") <= width:
            lines[-1] += f"{joint}{part}"
        else:
            lines.append(part)
    return lines


def _whole(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """`text` in as many lines as it takes, between its entries ("a +1, b −2") where that is enough."""
    lines = _filled(text.split(", "), ", ", font, width)
    return [word for line in lines for word in _filled(line.split(" "), " ", font, width)]


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Lines no wider than `width` pixels: two at most for a paragraph, one each where `text` has line breaks.

    Numbers are never cut off: a paragraph of several words that holds one takes as many lines as it needs.
    """
    paragraphs = [printable(" ".join(paragraph.split()), font) for paragraph in text.splitlines()]
    lines: list[str] = []
    for paragraph in paragraphs:
        if " " in paragraph and any(map(str.isdigit, paragraph)):
            lines += _whole(paragraph, font, width)
        elif len(paragraphs) > 1:
            lines.append(paragraph)
        else:
            words = _filled(paragraph.split(" "), " ", font, width)
            lines += [words[0], " ".join(paragraph.split(" ")[words[0].count(" ") + 1 :])] if words else []
    return [_elided(line, font, width) for line in lines if line]


def block(text: str, font: ImageFont.FreeTypeFont, width: int, ink: tuple[int, int, int] = INK) -> Image.Image:
    """`text` wrapped and centred on white, `width` pixels wide and as high as its lines; 0 for none."""
    lines, pitch = _wrapped(text, font, width), round(1.25 * font.size)
    picture = Image.new("RGB", (width, len(lines) * pitch), WHITE)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((width / 2, (number + 0.5) * pitch), line, fill=ink, font=font, anchor="mm")
    return picture
