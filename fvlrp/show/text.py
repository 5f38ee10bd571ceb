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
    """`text`, or as much of its beginning as fits into `width` pixels with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    mark = printable("…", font)
    while text and font.getlength(text.rstrip() + mark) > width:
        text = text[:-1]
    return text.rstrip() + mark


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Lines no wider than `width` pixels: two at most for a paragraph, one each where `text` has line breaks."""
    paragraphs = [printable(" ".join(paragraph.split()), font) for paragraph in text.splitlines()]
    if len(paragraphs) != 1:
        return [_elided(paragraph, font, width) for paragraph in paragraphs]
    words = paragraphs[0].split(" ")
    count = len(words)
    while count > 1 and font.getlength(" ".join(words[:count])) > width:
        count -= 1
    lines = [" ".join(words[:count]), " ".join(words[count:])]
    return [_elided(line, font, width) for line in lines if line]


def block(text: str, font: ImageFont.FreeTypeFont, width: int, ink: tuple[int, int, int] = INK) -> Image.Image:
    """`text` wrapped and centred on white, `width` pixels wide and as high as its lines; 0 for none."""
    lines, pitch = _wrapped(text, font, width), round(1.25 * font.size)
    picture = Image.new("RGB", (width, len(lines) * pitch), WHITE)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((width / 2, (number + 0.5) * pitch), line, fill=ink, font=font, anchor="mm")
    return picture
