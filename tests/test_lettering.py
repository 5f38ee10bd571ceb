"""Text: no line is wider than its place, and letters that a font lacks are spelled."""

import pytest
from PIL import ImageFont

from fvlrp.show import text as lettering

FONT = ImageFont.load_default(16)
LONG = "a caption of many words that never ends because nobody told its author to stop, not even once"


@pytest.mark.parametrize("text", [LONG, LONG.replace(" ", "_"), "two\n" + LONG, "", "short", "W" * 300])
@pytest.mark.parametrize("width", [60, 120, 400])
def test_no_line_is_wider_than_its_place(text, width):
    lines = lettering._wrapped(text, FONT, width)
    assert len(lines) <= 2
    assert all(FONT.getlength(line) <= width for line in lines)


def test_text_is_elided_only_where_it_does_not_fit():
    assert lettering._wrapped("short", FONT, 100) == ["short"]
    assert lettering._wrapped("person riding a bicycle", FONT, 110) == ["person riding a", "bicycle"]
    assert lettering._wrapped("dog\n1.38", FONT, 300) == ["dog", "1.38"]
    assert lettering._wrapped("grey\t dog\r\n1.38\n", FONT, 300) == ["grey dog", "1.38"]
    assert lettering._wrapped(LONG, FONT, 100)[-1].endswith("…")
    assert lettering._wrapped(LONG, FONT, 10_000) == [LONG]


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("low resolution as α", "low resolution as alpha"),
        ("Δ", "Delta"),
        ("−1 – 2", "-1 - 2"),
        ("3×3 café", "3x3 cafe"),
    ],
)
def test_letters_missing_in_the_font_are_transliterated(text, printed):
    assert lettering.printable(text, FONT) == printed


def test_letters_without_a_transliteration_become_a_placeholder():
    assert lettering.printable("犬 dog", FONT) == "? dog"
