"""Depth studies: what they measure, photograph by photograph, and how they go on after a stop."""

import json

import numpy as np
import pytest
from PIL import Image

from fvlrp.data import datasets, images
from fvlrp.evaluate import (
    Case,
    DepthStudy,
    Journal,
    bootstrap,
    cases,
    centred_gaussian,
    context,
    depth_study,
    gap,
    gini,
    pixel_flipping,
    relevance_mass,
    resolution,
)
from fvlrp.evaluate.evidence import NO_RULE, Row
from fvlrp.rules import FisherRules

SETTINGS = {"steps": 8, "every": 4, "replacement": "mean"}
BOX = np.array([[5, 5, 30, 40]])


@pytest.fixture(scope="module")
def pieces(textures):
    """Six photographs with what is in them, and a made-up box."""
    found, labels = textures(2, seed=9)
    return [Case(f"{i}", image, label, BOX) for i, (image, label) in enumerate(zip(found, labels, strict=True))]


@pytest.fixture(scope="module")
def study(plain, pieces):
    rules = {"fisher": {"default": None, "tiny": FisherRules(epsilon_pool=1, epsilon_pca=1)}}
    depths = {"fisher": ["descriptor", "bin"]}
    return depth_study({"fisher": plain}, pieces, rules=rules, depths=depths, **SETTINGS)


def test_there_is_a_row_for_each_rule_and_depth_and_for_blind_maps(study, pieces):
    assert [(row.rule, row.depth) for row in study.rows] == [
        *(("default", "descriptor"), ("default", "bin"), ("tiny", "descriptor"), ("tiny", "bin")),
        *((NO_RULE, "random"), (NO_RULE, "centre"), (NO_RULE, "edge")),
    ]
    assert study.models == ["fisher"] and list(study.photographs) == [case.name for case in pieces]
    assert study.failed == [] and study.settings["steps"] == 8
    assert all(len(row.values["gap"]) == 6 for row in study.rows)


def test_measures_of_a_batch_equal_those_of_each_photograph(study, plain, pieces):
    for i, case in enumerate(pieces):
        trace = plain.trace(case.image)
        ex = trace.explain(case.target, "bin")
        score = plain.flipper(case.image, case.target)
        flips = pixel_flipping(score, case.image, ex.heatmap, order=("morf", "lerf"), **SETTINGS)
        expected = {
            "morf": flips[0].aopc,
            "lerf": flips[1].aopc,
            "gap": gap(*flips),
            "mass": relevance_mass(ex.heatmap, BOX),
            "context": context(ex.heatmap, BOX) if trace.top == case.target else np.nan,
            "gini": gini(ex.heatmap),
            "resolution": resolution(ex.heatmap),
            "share": ex.heatmap.sum() / ex.score,
        }
        for measure, value in expected.items():
            found = study.values("fisher", "default", "bin", measure)[i]
            assert found == pytest.approx(value, rel=1e-12, nan_ok=True), measure
        gaussian = relevance_mass(centred_gaussian(60, 76), BOX)
        assert study.values("fisher", NO_RULE, "centre", "mass")[i] == gaussian


def test_blind_maps_are_flipped_like_heatmaps(study, plain, pieces):
    case = pieces[3]
    edge = np.hypot(*np.gradient(images.grey(case.image).astype(float)))
    flips = pixel_flipping(plain.flipper(case.image, case.target), case.image, edge, order=("morf", "lerf"), **SETTINGS)
    assert study.values("fisher", NO_RULE, "edge")[3] == gap(*flips)
    assert not np.isnan(study.values("fisher", NO_RULE, "random")).any()


def test_the_table_pairs_differences_by_photograph(study):
    table = study.table()
    column = list(table.columns).index("gap - random")
    gaps = {row.depth: row.values["gap"] for row in study.rows if row.rule in ("default", NO_RULE)}
    assert table.rows[1][column] == bootstrap(gaps["bin"] - gaps["random"])
    assert table.rows[4][column] is None and "default" in table.text()
    found = study.difference("fisher", ("default", "bin"), ("default", "descriptor"))
    assert found == bootstrap(gaps["bin"] - gaps["descriptor"])
    with pytest.raises(KeyError, match="there is no row 'fisher' 'default' 'vector'"):
        study.values("fisher", "default", "vector")


def test_the_figure_has_a_panel_per_model_and_a_line_per_rule(study, tmp_path):
    (panel,) = study.panels({"fisher": [np.zeros((4, 5, 3), np.uint8)] * 2})
    assert [line.label for line in panel.lines] == ["default", "tiny", "random", "centre", "edge"]
    assert panel.title == "fisher" and list(panel.ticks) == ["descriptor", "bin"]
    np.testing.assert_allclose(panel.lines[0].y[1], study.values("fisher", "default", "bin").mean())
    assert all((line.low <= line.y).all() and (line.y <= line.high).all() for line in panel.lines[:2])
    pytest.importorskip("matplotlib")
    study.figure(tmp_path / "with.png", {"fisher": [np.full((40, 50, 3), (255, 0, 255), np.uint8)] * 2})
    study.figure(tmp_path / "without.png")
    magenta = []
    for name in ("with.png", "without.png"):
        pixels = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        magenta.append((pixels == (255, 0, 255)).all(axis=2).sum())
    assert magenta[0] > 1000 and magenta[1] == 0


def same(one, other):
    assert [(row.rule, row.depth) for row in one.rows] == [(row.rule, row.depth) for row in other.rows]
    for mine, its in zip(one.rows, other.rows, strict=True):
        for measure, values in mine.values.items():
            np.testing.assert_array_equal(values, its.values[measure])


def test_results_do_not_depend_on_threads_or_interruptions(study, plain, pieces, tmp_path, monkeypatch):
    rules = {"default": None, "tiny": FisherRules(epsilon_pool=1, epsilon_pca=1)}
    options = {"rules": {"fisher": rules}, "depths": {"fisher": ["descriptor", "bin"]}, **SETTINGS}
    path = tmp_path / "journal.jsonl"
    depth_study({"fisher": plain}, pieces[:4], journal=Journal(path), **{**options, "rules": {}})
    done = len(path.read_text().splitlines())
    assert done == 4 * 2  # the default rule and the blind maps
    path.write_text(path.read_text()[:-30])  # killed while it wrote
    resumed = depth_study({"fisher": plain}, pieces, journal=Journal(path), n_jobs=2, **options)
    same(resumed, study)
    assert len(Journal(path)) == 6 * 3
    monkeypatch.setattr("fvlrp.evaluate.study.pixel_flipping", None)  # nothing is left to do
    same(depth_study({"fisher": plain}, pieces, journal=Journal(path), **options), study)
    other = depth_study({"fisher": plain}, pieces, journal=Journal(path), versions={"fisher": "2"}, **options)
    assert len(other.failed) == 6  # a model of another version is measured anew


def test_a_study_skips_cases_whose_class_a_model_lacks(plain, centred, pieces):
    study = depth_study({"three": plain, "two": centred}, pieces, depths={"two": ["bin"], "three": ["bin"]}, **SETTINGS)
    known = [case.target in ("brick", "gravel") for case in pieces]
    np.testing.assert_array_equal(~np.isnan(study.values("two", "default", "bin")), known)
    assert not np.isnan(study.values("three", "default", "bin")).any()
    assert [study.measured("two", case.name) for case in pieces] == known


def test_a_failing_photograph_is_listed_and_the_batch_continues(plain, pieces):
    broken = Case("broken", "/missing.jpg", "brick", BOX)
    study = depth_study({"fisher": plain}, [broken, *pieces[:2]], depths={"fisher": ["bin"]}, **SETTINGS)
    (failure,) = study.failed
    assert failure["photo"] == "broken" and "/missing.jpg" in failure["error"]
    np.testing.assert_array_equal(np.isnan(study.values("fisher", "default", "bin")), [True, False, False])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depths": {"fisher": ["deep"]}}, "unknown depth 'deep'"),
        ({"rules": {"fisher": {"x": {"epsilon": "y"}}}}, "epsilon"),
        ({"rules": {"other": {}}}, r"rules names \['other'\]"),
    ],
)
def test_invalid_studies_are_refused_before_any_work(plain, pieces, options, words):
    with pytest.raises(ValueError, match=words):
        depth_study({"fisher": plain}, pieces, **options)
    with pytest.raises(ValueError, match="not unique"):
        depth_study({"fisher": plain}, [pieces[0], pieces[0]])


def test_a_case_targets_the_class_with_the_largest_boxes(data):
    val = datasets.voc(data / "VOCdevkit", "val")
    found = cases(val, 30)
    assert len({case.name for case in found}) == 30
    for case in found:
        sizes = {}
        for thing in val.objects(val.ids.index(case.name)):
            if not thing.difficult:
                y0, x0, y1, x1 = thing.box
                sizes[thing.name] = sizes.get(thing.name, 0) + (y1 - y0) * (x1 - x0)
        assert sizes[case.target] == max(sizes.values()) and len(case.boxes) >= 1
    assert [case.name for case in cases(val, 5)] == [case.name for case in found[:5]]
    assert [case.name for case in cases(val, 5, random_state=1)] != [case.name for case in found[:5]]


def test_an_empty_study_has_a_table():
    nan = np.array([np.nan])
    names = ("morf", "lerf", "gap", "context", "mass", "pointing", "gini", "resolution", "share")
    rows = [Row("m", NO_RULE, blind, dict.fromkeys(names, nan)) for blind in ("random", "centre", "edge")]
    assert json.loads(DepthStudy(rows, ["x"]).table().json())[0]["photographs"] == 0
