"""The benchmark's own parts: what is timed must be right, and the clock must not miss a call."""

import numpy as np
import pytest

from bench import chain
from fvlrp.cli import bench as benchmark


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("once", [False, True])
def test_the_numpy_chain_equals_the_exact_heatmap_and_scores(plain, photo, n_jobs, once):
    trace = plain.trace(photo, "float64")
    descriptors = trace.descriptors
    assert descriptors.zeroed.any() and not descriptors.zeroed.all()
    peer = chain.Chain(plain, descriptors.geometry, n_jobs, descriptors.zeroed if once else None)
    for position, target in enumerate(trace.classes):
        scores, heatmap = peer.explain(descriptors.values.astype(np.float32), position)
        np.testing.assert_allclose(scores, trace.scores, atol=1e-4)
        assert benchmark.relative(heatmap, trace.explain(target, "bin").heatmap) < 5e-4


def test_numpy_chain_refuses_a_projection_with_a_mean(centred, photo):
    geometry = centred.trace(photo).descriptors.geometry
    with pytest.raises(ValueError, match="without a mean"):
        chain.Chain(centred, geometry)


def test_explanation_from_a_saved_pass_is_the_explanation(plain, photo):
    trace = plain.trace(photo)
    pooled = trace.stack.encode.pooled(trace.descriptors, "float32")
    np.testing.assert_array_equal(chain.explain_from(trace, pooled, 1), trace.explain(trace.classes[1], "bin").heatmap)


def test_calls_alternate_and_every_one_is_counted():
    calls = []
    first, second = benchmark.alternate(lambda: calls.append("a"), lambda: calls.append("b"), 3, warm=1)
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert first.shape == second.shape == (3,) and (first > 0).all() and (second > 0).all()


def test_bench_times_every_instruction_set_and_restores_the_selected_one(plain, photo):
    from fvlrp import _kernels

    before = _kernels.isa()
    result = benchmark.short(plain, photo, 2)
    assert _kernels.isa() == before
    assert {name.split(",")[0] for name in result["milliseconds"]} == set(_kernels.isas())
    assert "depth gradient" in benchmark.as_text(result)


def test_the_benchmark_and_the_numpy_chain_give_the_same_map(plain, photo):
    assert chain.against_numpy(plain, photo)["difference"] < 5e-4
