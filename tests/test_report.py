"""The HTML report: what is in it, what it weighs, and what a real browser makes of it."""

import base64
import contextlib
import html
import io
import json
import re
import shutil
import weakref
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fvlrp.core import captions, report
from fvlrp.core.ledger import MEANINGS, Ledger
from fvlrp.core.seen import Seen
from fvlrp.show.colours import colour, shared_scale
from fvlrp.show.report import coding
from fvlrp.show.smoothing import Smoothing

DEPTHS = ("vector", "descriptor", "bin")
HEIGHT, WIDTH = 45, 60


def explained(target, depth, shape=(HEIGHT, WIDTH), seed=0, model="Fisher vector"):
    """What a report takes of an explanation, with relevance of heavy tails."""
    draw = np.random.default_rng([seed, *map(ord, target + depth)])
    heatmap = draw.standard_t(2, size=shape) * 1e-4
    image = draw.integers(256, size=(*shape, 3), dtype=np.uint8) if seed else np.zeros((*shape, 3), np.uint8)
    entries = {"score": 0.8, "absorbed_pool": 0.3, "zero_desc": -0.1, "clipped": 0.0}
    entries["heatmap"] = 0.8 - 0.3 + 0.1
    return SimpleNamespace(
        target=target,
        depth=depth,
        heatmap=heatmap,
        score=0.8,
        ledger=Ledger(entries, exact=True),
        image=image,
        model=model,
        seen=Seen.whole(shape, shape),
        region=None,
        holds=(0, 0, *shape),
        smoothing=None,
        best=[("dog", 0.8), ("cat", -0.2), ("<b>", -1.1)],
    )


def group(name="dog.jpg", targets=("dog", "cat"), depths=DEPTHS, **options):
    return name, [explained(target, depth, **options) for target in targets for depth in depths]


def decoded(coded):
    """What page.js makes of `coding.heatmap`, written from its description."""
    packed = np.frombuffer(zlib.decompress(base64.b64decode(coded["data"])), np.uint8)
    height, width = coded["height"], coded["width"]
    differences = packed[: height * width].reshape(height, width)
    steps = np.zeros((height, width), int)
    for y in range(height):
        for x in range(width):
            left = steps[y, x - 1] if x else 0
            above = steps[y - 1, x] if y else 0
            corner = steps[y - 1, x - 1] if x and y else 0
            steps[y, x] = (int(differences[y, x]) + left + above - corner + 128) % 256 - 128
    values = steps * coded["scale"] / 127
    tail = packed[height * width :]
    ends = np.abs(steps) == 127
    assert ends.sum() == len(tail)
    values[ends] = np.sign(steps[ends]) * coded["scale"] * (coded["largest"] / coded["scale"]) ** (tail / 255)
    return steps, values


# ---- what the page holds ----


def test_quantised_heatmaps_are_within_half_a_step(rng):
    heatmap = rng.standard_t(2, size=(31, 40))
    steps, values = decoded(coding.heatmap(heatmap, "99.5%", side=640))
    end = shared_scale([heatmap], 99.5)
    inside = np.abs(heatmap) < end * 126 / 127
    np.testing.assert_allclose(values[inside], heatmap[inside], atol=0.5001 * end / 127)
    ratio = (np.abs(heatmap).max() / end) ** (0.5001 / 255)
    np.testing.assert_allclose(np.abs(values[~inside]), np.abs(heatmap[~inside]), rtol=max(ratio - 1, 1 / 126))
    np.testing.assert_array_equal(np.abs(steps) == 127, np.abs(heatmap) >= end * 126.5 / 127)


def test_constant_maps_are_coded():
    zeros = coding.heatmap(np.zeros((4, 5)), "99.5%", side=640)
    assert zeros["scale"] == zeros["largest"] == 0
    flat = coding.heatmap(np.full((4, 5), -0.25), "99.5%", side=640)
    np.testing.assert_allclose(decoded(flat)[1], -0.25)


def test_large_maps_are_reduced_with_their_sum(rng):
    heatmap = rng.random((120, 300))
    coded = coding.heatmap(heatmap, None, side=100)
    assert (coded["height"], coded["width"]) == (40, 100)
    assert decoded(coded)[1].sum() == pytest.approx(heatmap.sum(), rel=1e-2)


def test_reducing_a_photograph_keeps_its_content(photographs):
    url = coding.photograph(photographs[1], side=200)
    raw = base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))
    picture = Image.open(io.BytesIO(raw))
    assert max(picture.size) == 200
    small = Image.fromarray(photographs[1]).resize(picture.size, Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(picture, float) - np.asarray(small, float)).mean() < 4


def data_of(text):
    return [json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', text)]


def test_the_report_labels_everything_and_fetches_nothing():
    name, explanations = group("<photo>.jpg")
    text = report.html(
        [(name, explanations, "voc20")],
        title="a & b",
        failed=[{"photo": "x<y>.jpg", "error": "no & such"}],
        date="2026-01-02",
    )
    assert "<title>a &amp; b</title>" in text and "2026-01-02" in text
    assert "&lt;photo&gt;.jpg" in text and "x&lt;y&gt;.jpg: no &amp; such" in text and "<b>" not in text
    for word in ("http:", "https:", "//www", 'src="/', "@import", "url("):
        assert word not in text, word
    assert "default-src 'none'" in text
    (section,) = data_of(text)
    (viewer,) = section["viewers"]
    assert viewer["model"] == "voc20, Fisher vector" and viewer["best"][2] == ["<b>", -1.1]
    assert [target["name"] for target in viewer["targets"]] == ["dog", "cat"]
    assert [one["depth"] for one in viewer["targets"][0]["maps"]] == list(DEPTHS)
    assert viewer["targets"][0]["maps"][0]["ledger"] == explanations[0].ledger.to_dict()


def test_models_of_one_photograph_stand_side_by_side():
    first, second = group(depths=["bin"]), group(depths=["input"], model="network")
    other = ("dog.jpg", group(seed=1)[1])  # another photograph of the same name
    sections = data_of(report.html([first, second, other, group("cat.jpg")]))
    assert [[viewer["model"] for viewer in section["viewers"]] for section in sections] == [
        ["Fisher vector", "network"],
        ["Fisher vector"],
        ["Fisher vector"],
    ]
    text = report.html([first, second, other, group("cat.jpg")])
    assert text.count('<a href="#photograph-') == 3 and "<nav" not in report.html([first])


def test_a_report_is_written_group_by_group(tmp_path):
    alive, failed = [], []

    def groups():
        for i in range(6):
            name, explanations = group(f"{i}.jpg", seed=i + 1)
            alive.append(weakref.ref(explanations[0].image))
            yield name, explanations
            del explanations
            assert sum(ref() is not None for ref in alive) <= 2
        failed.append({"photo": "late.jpg", "error": "it failed last"})

    report.write(tmp_path / "out.html", groups(), failed=failed)
    text = (tmp_path / "out.html").read_text()
    assert "it failed last" in text and len(data_of(text)) == 6


def test_a_report_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"cmap must be .*, got 'jet'"):
        report.write(tmp_path / "out.html", [group()], cmap="jet")
    with pytest.raises(ValueError, match="holds no explanation"):
        report.write(tmp_path / "out.html", [("x.jpg", [])])
    assert list(tmp_path.iterdir()) == []


def test_five_depths_weigh_less_than_three_megabytes(photographs, tmp_path):
    depths = [f"layer{i}" for i in range(5)]
    _, explanations = group(targets=["dog"], depths=depths, shape=(512, 640))
    for one in explanations:
        one.image = np.asarray(Image.fromarray(photographs[0]).resize((640, 512)))
    report.write(tmp_path / "noise.html", [("x.jpg", explanations)])  # noise: nothing is larger
    assert (tmp_path / "noise.html").stat().st_size < 3e6


def test_a_photograph_of_12_megapixels_weighs_less_than_one_megabyte(photographs, tmp_path):
    large = np.asarray(Image.fromarray(photographs[0]).resize((4000, 3000)))
    _, explanations = group(targets=["dog"], depths=("descriptor", "bin"), shape=(480, 640))
    for one in explanations:
        one.image = large
        one.heatmap = np.array(Image.fromarray(one.heatmap).resize((4000, 3000), Image.Resampling.BICUBIC), float)
    report.write(tmp_path / "large.html", [("x.jpg", explanations)])
    assert (tmp_path / "large.html").stat().st_size < 1e6


# ---- explanations ----


def test_an_explanation_reports_itself_at_all_depths(plain, photo, tmp_path):
    ex = plain.explain(photo, target="brick", depth="bin")
    ex.report(tmp_path / "ex.html", name="wall.jpg")
    text = (tmp_path / "ex.html").read_text()
    (section,) = data_of(text)
    maps = section["viewers"][0]["targets"][0]["maps"]
    assert [one["depth"] for one in maps] == ["vector", "descriptor", "bin", "gradient"] and "wall.jpg" in text
    np.testing.assert_allclose(decoded(maps[2])[1], ex.heatmap, atol=np.abs(ex.heatmap).max() / 60)
    assert maps[2]["words"] == captions.words(ex.ledger)

    ex.report(tmp_path / "ex.html", target=["brick", "grass"], depth=["bin"])
    (section,) = data_of((tmp_path / "ex.html").read_text())
    assert [target["name"] for target in section["viewers"][0]["targets"]] == ["brick", "grass"]


def test_a_loaded_explanation_reports_only_itself(plain, photo, tmp_path):
    from fvlrp import Explanation

    ex = plain.explain(photo, target="brick", depth="bin")
    ex.save(tmp_path / "ex.npz")
    back = Explanation.load(tmp_path / "ex.npz")
    assert back.model == ex.model == "Fisher vector" and [tuple(pair) for pair in back.best] == list(ex.best)
    back.report(tmp_path / "ex.html")
    (section,) = data_of((tmp_path / "ex.html").read_text())
    assert [one["depth"] for one in section["viewers"][0]["targets"][0]["maps"]] == ["bin"]
    with pytest.raises(ValueError, match="a loaded or pickled explanation has no model"):
        back.report(tmp_path / "ex.html", depth=["gradient"])


def test_the_five_best_classes_come_with_an_explanation(plain, photo):
    trace = plain.trace(photo)
    ex = trace.explain("brick")
    order = np.argsort(-trace.scores)
    assert ex.best == tuple((trace.classes[i], trace.scores[i]) for i in order[:5])


def test_a_notebook_shows_a_small_version(plain, photo):
    ex = plain.explain(photo, target="brick", depth="bin")
    cell = ex._repr_html_()
    assert cell.startswith("<iframe") and cell.count("<") == 2  # the page inside is escaped
    inside = html.unescape(re.search('srcdoc="(.*)"', cell, re.DOTALL)[1])
    assert 'class="small"' in inside and len(data_of(inside)) == 1


# ---- captions ----


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (
            {"score": 0.8, "heatmap": 0.32, "zero_desc": 0.3, "absorbed_pool": 0.18},
            "This map holds 40 % of the score (+0.32 of +0.8). +0.3 lies in areas without texture, outside this map; "
            "+0.18 was absorbed by the stabiliser where descriptors are pooled.",
        ),
        (
            {"score": -0.11, "heatmap": 0.35, "zero_desc": -0.46},
            "This map sums to +0.35, against the sign of the score, −0.11. −0.46 lies in areas without texture, "
            "outside this map.",
        ),
        ({"score": 0.5, "heatmap": 0.5}, "This map holds all of the score (+0.5)."),
        ({"score": 0.551, "heatmap": 0.5512, "bias": -0.0002}, "This map holds all of the score (+0.551)."),
        ({"score": 0.551, "heatmap": 0.549, "bias": 0.002}, "This map holds 100 % of the score (+0.549 of +0.551)."),
        (
            {"score": 0.5, "heatmap": 0.9, "bias": -0.4},
            "This map sums to +0.9, more than the score, +0.5. −0.4 is due to biases, which no pixel accounts for.",
        ),
        (
            {"score": -0.5, "heatmap": -0.9, "bias": 0.4},
            "This map sums to −0.9, less than the score, −0.5. +0.4 is due to biases, which no pixel accounts for.",
        ),
        (
            {"score": 0.0, "heatmap": -0.4, "bias": 0.4},
            "This map sums to −0.4, and the score is 0. +0.4 is due to biases, which no pixel accounts for.",
        ),
        (
            {"score": 1.0, "heatmap": 0.2, "a": 0.3, "b": 0.2, "c": 0.15, "d": 0.1, "e": 0.05},
            "This map holds 20 % of the score (+0.2 of +1). +0.3 is a; +0.2 is b; +0.15 is c; +0.15 is in smaller "
            "entries.",
        ),
        (
            {"score": -0.2757, "heatmap": 0.0169, "class_token": -0.2926},
            "This map holds all of the score (−0.276). Of this sum, −0.293 belongs to class tokens, which have no "
            "position: it is spread evenly.",
        ),
        (
            {"score": 1.0, "heatmap": 0.1, "class_token": 0.4, "bias": 0.5},
            "This map holds 50 % of the score (+0.5 of +1). Of this sum, +0.4 belongs to class tokens, which have no "
            "position: it is spread evenly. +0.5 is due to biases, which no pixel accounts for.",
        ),
    ],
)
def test_a_caption_states_what_the_map_holds_and_what_was_absorbed(entries, words):
    assert captions.words(entries) == words


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (
            {"score": -0.37, "heatmap": 0.13, "absorbed_pool": -0.2, "absorbed_pca": -0.1, "zero_desc": -0.2},
            "map +0.13, absorbed −0.30\nno texture −0.20",
        ),
        ({"score": 1.0, "heatmap": 0.9, "clipped": 0.04, "zero_bin": 0.05, "bias": 0.01}, "map +0.90, other +0.10"),
        ({"score": 1.0, "heatmap": 1.0, "rounding": 1e-6}, "map +1.00"),
        ({"score": 0.0, "heatmap": 0.0}, "map +0.00"),
        ({"score": -0.2757, "heatmap": 0.0169, "class_token": -0.2926}, "map −0.28\nincl. class token −0.29"),
        (
            {"score": 1.0, "heatmap": 0.1, "class_token": 0.4, "bias": 0.5},
            "map +0.50\nincl. class token +0.40\nbiases +0.50",
        ),
        ({"score": 3e9, "heatmap": 1e9, "bias": 2e9}, "map +1e+09, biases +2e+09"),
    ],
)
def test_brief_captions_add_up_to_the_score(entries, words):
    assert captions.brief(entries) == words


def test_amounts_too_wide_for_a_panel_have_lines_of_their_own():
    entries = {"score": 0.07, "heatmap": 0.04, "absorbed": 0.26, "zero_sum": -0.16, "zero_desc": -0.07}
    assert captions.brief(entries).splitlines() == ["map +0.04, absorbed +0.26", "zero sums −0.16", "no texture −0.07"]


def test_every_entry_of_a_ledger_has_its_place_in_words():
    assert set(MEANINGS) - {"score", *captions.IN_MAP} <= set(captions.PLACES)


# ---- in a real browser ----

# Without the last ones, Chromium looks for its makers' hosts at every start.
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is missing")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a report in a page of its own, and fails where the page complains or asks for anything outside."""
    complaints, contexts = [], []

    def open_report(groups, **options):
        path = tmp_path / "report.html"
        report.write(path, groups, **{key: options.pop(key) for key in ("cmap", "failed", "smooth") if key in options})
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: complaints.append(request.url) if request.url[:5] not in ("file:", "data:") else 0,
        )
        page.goto(path.as_uri())
        page.wait_for_selector("canvas[data-shown]")
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert complaints == []


def shown(page, wanted, viewer=0):
    """The canvas's pixels once it shows `wanted`: uint8 (height, width, 4)."""
    canvas = page.locator(".layers canvas").nth(viewer)
    page.wait_for_function(
        "([i, wanted]) => document.querySelectorAll('.layers canvas')[i].dataset.shown === wanted", arg=[viewer, wanted]
    )
    picture = canvas.evaluate("canvas => canvas.toDataURL('image/png')").removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))


def expected(one, cmap="safe"):
    return colour(one.heatmap, cmap=cmap)


def test_canvas_pixels_are_those_of_the_heatmap(opened):
    name, explanations = group()
    page = opened([(name, explanations)])
    page.select_option("#blend", "even")
    for cmap in ("paper", "safe", "grey"):
        page.select_option("#cmap", cmap)
        for t in range(2):
            page.select_option(".target select", index=t)
            for d in range(3):
                page.locator(".depth input").fill(str(d))
                pixels = shown(page, f"{t} {d} {cmap} even")
                np.testing.assert_array_equal(pixels[:, :, :3], expected(explanations[3 * t + d], cmap))
                assert (pixels[:, :, 3] == 255).all()


def test_strong_relevance_is_opaque_and_weak_relevance_transparent(opened):
    name, explanations = group()
    pixels = shown(opened([(name, explanations)]), "0 2 safe strong")
    share = np.clip(np.abs(explanations[2].heatmap) / shared_scale([explanations[2].heatmap], 99.5), 0, 1)
    np.testing.assert_allclose(pixels[:, :, 3], 255 * np.sqrt(np.rint(share * 127) / 127), atol=1)


def test_parts_that_the_model_did_not_see_are_hatched_and_named(opened):
    name, explanations = group(targets=("dog",))
    for one in explanations:
        one.seen = Seen(5, 10, 40, 50, 24, 24)
        one.holds = one.seen.box
    page = opened([(name, explanations), group("cat.jpg", seed=1)])
    box = page.locator(".layers").first.bounding_box()
    picture = np.asarray(Image.open(io.BytesIO(page.locator(".layers").first.screenshot())).convert("L"), float)
    page.locator("#opacity").fill("0")
    photograph = np.asarray(Image.open(io.BytesIO(page.locator(".layers").first.screenshot())).convert("L"), float)
    rows, cols = box["height"] / HEIGHT, box["width"] / WIDTH
    inside = photograph[round(6 * rows) : round(39 * rows), round(11 * cols) : round(49 * cols)]
    beside = photograph[round(6 * rows) : round(39 * rows), : round(9 * cols)]
    assert inside.std() < 1 < 20 < beside.std() and picture.shape == photograph.shape
    assert page.locator(".resolution").all_inner_texts() == [captions.seen(explanations[0].seen, (HEIGHT, WIDTH)), ""]
    assert page.locator(".unseen").nth(1).is_hidden()


def test_the_slider_turns_depths_by_mouse_and_keys(opened):
    page = opened([group()])
    depth, slider = page.locator(".depth output"), page.locator(".depth input")
    assert depth.inner_text() == "bin" and page.locator(".ticks .now").inner_text() == "bin"
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 3, box["y"] + box["height"] / 2)
    assert depth.inner_text() == "vector"
    page.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert depth.inner_text() == "descriptor"
    slider.press("ArrowRight")
    assert depth.inner_text() == "bin"
    slider.press("ArrowLeft")
    page.locator(".viewer").focus()
    page.keyboard.press("ArrowLeft")
    assert depth.inner_text() == "vector"
    page.keyboard.press("ArrowLeft")  # there is none before it
    assert depth.inner_text() == "vector"
    page.locator(".ticks button").nth(1).click()
    assert depth.inner_text() == "descriptor"
    shown(page, "0 1 safe strong")


def test_the_slider_and_the_picture_take_touches(opened):
    page = opened([group()], has_touch=True, viewport={"width": 390, "height": 844}, is_mobile=True)
    slider = page.locator(".depth input")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.touchscreen.tap(box["x"] + 3, box["y"] + box["height"] / 2)
    assert page.locator(".depth output").inner_text() == "vector"
    page.locator(".layers").tap()
    assert page.locator(".cursor").inner_text().startswith("row ")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # nothing sticks out


def test_arrow_keys_control_the_viewer_last_hovered(opened):
    page = opened([group(), group(model="network"), group("cat.jpg", seed=1)])
    outputs = page.locator(".depth output")
    page.locator(".viewer").nth(1).hover()
    page.keyboard.press("ArrowLeft")
    assert outputs.all_inner_texts() == ["bin", "descriptor", "bin"]
    page.locator("nav a").nth(1).click()
    assert page.evaluate("location.hash") == "#photograph-2"


def test_the_value_under_the_cursor_is_the_heatmaps(opened):
    name, explanations = group()
    page = opened([(name, explanations)])
    heatmap, box = explanations[2].heatmap, page.locator(".layers").bounding_box()
    end = shared_scale([heatmap], 99.5)
    largest = np.unravel_index(np.abs(heatmap).argmax(), heatmap.shape)
    for y, x in [(0, 0), (HEIGHT - 1, WIDTH - 1), (17, 33), largest]:
        page.mouse.move(box["x"] + (x + 0.5) / WIDTH * box["width"], box["y"] + (y + 0.5) / HEIGHT * box["height"])
        page.wait_for_function(
            "start => document.querySelector('.cursor').textContent.startsWith(start)", arg=f"row {y}, column {x}: "
        )
        words = page.locator(".cursor").inner_text().split(": ")[1].replace("−", "-")
        assert float(words) == pytest.approx(heatmap[y, x], rel=0.01, abs=end / 250)


def test_zoom_enlarges_about_a_point(opened):
    page = opened([group()])
    layers, stage = page.locator(".layers"), page.locator(".stage")
    before, frame = layers.bounding_box()["width"], stage.bounding_box()
    point = frame["x"] + 0.75 * frame["width"], frame["y"] + 0.25 * frame["height"]
    page.mouse.move(*point)
    page.keyboard.down("Control")
    for _ in range(3):
        page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    page.wait_for_function("document.querySelector('.layers').classList.contains('near')")
    assert layers.bounding_box()["width"] == pytest.approx(before * 1.5**3, rel=0.02)
    inside = (point[0] - layers.bounding_box()["x"]) / layers.bounding_box()["width"]
    assert inside == pytest.approx(0.75, abs=0.02)
    page.get_by_role("button", name="whole").click()
    assert layers.bounding_box()["width"] == pytest.approx(before)
    page.get_by_role("button", name="Zoom in").click()
    assert layers.bounding_box()["width"] > before


def test_the_ledgers_bars_add_up_to_the_score(opened):
    name, explanations = group()
    page = opened([(name, explanations)])
    rows = page.locator(".ledger tbody tr")
    names = rows.evaluate_all("rows => rows.map(row => row.dataset.name)")
    assert names == ["heatmap", "absorbed_pool", "zero_desc", "score"]  # what is 0 takes no line
    amounts = rows.evaluate_all("rows => rows.map(row => Number(row.querySelector('.number').dataset.amount))")
    assert sum(amounts[:-1]) == pytest.approx(amounts[-1], abs=1e-12) == 0.8
    boxes = rows.locator("i").evaluate_all(
        "bars => bars.map(bar => (({left, right}) => [left, right])(bar.getBoundingClientRect()))"
    )
    unit = (boxes[-1][1] - boxes[-1][0]) / 0.8
    end = boxes[-1][0]
    for amount, (left, right) in zip(amounts[:-1], boxes, strict=False):
        low, high = sorted((end, end := end + amount * unit))
        assert (left, right) == pytest.approx((low, high), abs=1)
    assert end == pytest.approx(boxes[-1][1], abs=1)
    for name in names:
        assert MEANINGS[name] in page.locator(".ledger").inner_text()
    assert page.locator(".words").inner_text() == captions.words(explanations[2].ledger)


def test_the_best_classes_are_listed_and_the_explained_one_marked(opened):
    page = opened([group()])
    assert page.locator(".best tr").evaluate_all("rows => rows.map(row => row.dataset.name)") == ["dog", "cat", "<b>"]
    assert page.locator(".best tr.explained").get_attribute("data-name") == "dog"
    page.select_option(".target select", index=1)
    assert page.locator(".best tr.explained").get_attribute("data-name") == "cat"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_light_or_dark_as_the_reader_likes(opened, scheme):
    page = opened([group()], color_scheme=scheme)

    def brightness():
        colours = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return np.mean([int(number) for number in re.findall(r"\d+", colours)[:3]])

    dark = scheme == "dark"
    assert (brightness() < 128) == dark
    page.click("#theme")
    assert (brightness() < 128) != dark
    page.click("#theme")
    assert (brightness() < 128) == dark


def test_opacity_fades_every_heatmap(opened):
    page = opened([group(), group(model="network")])
    page.locator("#opacity").fill("30")
    assert (
        page.locator(".layers canvas").evaluate_all("all => all.map(one => getComputedStyle(one).opacity)")
        == ["0.3"] * 2
    )


def test_a_cell_works_in_its_frame(browser, plain, photo, tmp_path):
    (tmp_path / "notebook.html").write_text(
        "<!doctype html><meta charset=utf-8>" + plain.explain(photo, target="brick", depth="bin")._repr_html_()
    )
    with contextlib.closing(browser.new_context()) as context:
        page, complaints = context.new_page(), []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((tmp_path / "notebook.html").as_uri())
        frame = page.frame_locator("iframe")
        frame.locator("canvas[data-shown]").wait_for()
        frame.locator(".depth input").fill("3")
        assert frame.locator(".depth output").inner_text() == "gradient" and complaints == []


def test_the_reader_switches_smoothing_which_the_page_names(opened):
    name, explanations = group(targets=("dog",))
    explanations[0].smoothing = Smoothing((6, 4), (0, 0, HEIGHT, WIDTH))
    smooth = SimpleNamespace(heatmap=explanations[0].smoothing(explanations[0].heatmap))
    page = opened([(name, explanations)])
    page.select_option("#blend", "even")
    page.locator(".depth input").fill("0")
    np.testing.assert_array_equal(shown(page, "0 0 safe even")[:, :, :3], expected(explanations[0]))
    assert page.locator(".note").is_hidden()
    page.get_by_label("Smooth coarse maps").check()
    np.testing.assert_array_equal(shown(page, "0 0 safe even smooth")[:, :, :3], expected(smooth))
    assert page.locator(".note").inner_text() == "smoothed for display, sigma 2.5 × 1.7 px"
    box = page.locator(".layers canvas").bounding_box()
    page.mouse.move(box["x"] + 20.5 * box["width"] / WIDTH, box["y"] + 10.5 * box["height"] / HEIGHT)
    page.wait_for_function("document.querySelector('.cursor').textContent.startsWith('row 10, column 20')")
    value = float(page.locator(".cursor").inner_text().split(": ")[1].replace("−", "-"))
    assert value == pytest.approx(smooth.heatmap[10, 20], abs=shared_scale([smooth.heatmap], 99.5) / 127)
    page.locator(".depth input").fill("1")  # no coarse map
    np.testing.assert_array_equal(shown(page, "0 1 safe even")[:, :, :3], expected(explanations[1]))
    assert page.locator(".note").is_hidden()


def test_smoothing_can_be_on_at_first_and_has_no_switch_without_coarse_maps(opened):
    name, explanations = group(targets=("dog",))
    for one in explanations:
        one.smoothing = Smoothing((6, 4), (0, 0, HEIGHT, WIDTH))
    page = opened([(name, explanations)], smooth=True)
    shown(page, "0 2 safe strong smooth")
    assert page.get_by_label("Smooth coarse maps").is_checked()
    assert opened([group()]).locator("#smooth").is_hidden()


def test_a_region_is_hatched_outside_at_the_depths_that_it_changes(opened, plain, photo):
    explanations = plain.explain(photo, "brick", ["descriptor", "bin"], region=(10, 20, 30, 45))
    page = opened([("photo", explanations)])
    page.locator("#opacity").fill("0")
    unseen = page.locator(".unseen")
    assert page.locator(".depth output").inner_text() == "bin" and unseen.is_visible()
    sentence = 'Depth "bin" holds in rows 10–29, columns 20–44; the hatched rest is an overview at depth "descriptor".'
    assert page.locator(".words").inner_text().endswith(sentence)
    layers = page.locator(".layers")
    hatched = np.asarray(Image.open(io.BytesIO(layers.screenshot())).convert("L"), float)
    page.locator(".depth input").fill("0")
    assert unseen.is_hidden() and sentence not in page.locator(".words").inner_text()
    whole = np.asarray(Image.open(io.BytesIO(layers.screenshot())).convert("L"), float)
    rows, cols = (np.array(whole.shape) / photo.shape[:2]).tolist()
    changed = np.abs(hatched - whole) > 10
    assert not changed[round(11 * rows) : round(29 * rows), round(21 * cols) : round(44 * cols)].any()
    assert changed[: round(9 * rows)].mean() > 0.1 and changed[:, : round(19 * cols)].mean() > 0.1
