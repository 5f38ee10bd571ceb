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


CAPTIONS = [
    "map +0.01, zero sums −3.71\nbiases +6.43",
    "map +0.06, absorbed −0.21\nno texture −12345.67, class token +1.5e+09",
    "person\nscore +2.73\nseen at 480 × 640\nrows 0–99, columns 40–139\nhatched: an overview",
    "map +0.06, absorbed −0.21",
]


@pytest.mark.parametrize("text", CAPTIONS)
@pytest.mark.parametrize("width", [85, 100, 120, 240])
def test_numbers_are_never_cut_off(text, width):
    lines = lettering._wrapped(text, FONT, width)
    assert all(FONT.getlength(line) <= width for line in lines)
    numbers = [word.strip(",") for word in lettering.printable(text, FONT).split() if any(map(str.isdigit, word))]
    assert [word.strip(",") for line in lines for word in line.split() if any(map(str.isdigit, word))] == numbers


def test_amounts_are_wrapped_between_entries():
    text = "map +0.01, zero sums −3.71\nbiases +6.43"
    assert lettering._wrapped(text, FONT, 120) == ["map +0.01", "zero sums -3.71", "biases +6.43"]
    assert lettering._wrapped(text, FONT, 240) == ["map +0.01, zero sums -3.71", "biases +6.43"]


@pytest.mark.parametrize("text", ["blocks/blocks.2/blocks.2/mlp/Add_1", "blocks/blocks.2/mlp/Add_1\nmap +0.1"])
def test_a_long_name_is_shortened_in_the_middle(text):
    line = lettering._wrapped(text, FONT, 140)[0]
    assert line.startswith("block") and line.endswith("mlp/Add_1") and "…" in line


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
