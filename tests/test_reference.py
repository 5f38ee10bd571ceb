"""The reference against itself, by what must hold for any Fisher vector, and against two programs of other hands."""

from itertools import product

import numpy as np
import pytest
import reference as ref

from fvlrp.fisher.geometry import Geometry

PYRAMID = ((2, 2), (3, 1), (1, 1))
EXACT = {"epsilon_pool": 0.0, "epsilon_pca": 0.0}


def make_mixture(rng, y, n_components):
    """Means on descriptors, variances wide enough that several components share each descriptor."""
    priors = rng.dirichlet(np.full(n_components, 5.0))
    means = y[rng.choice(len(y), n_components, replace=False)]
    return priors, means, y.var(axis=0) * rng.uniform(0.5, 1.5, means.shape)


def make_problem(geometry, n_components=5, dims=6, mean=False, seed=0, **model):
    """Sparse descriptors on 0..255, three of them zeroed, and a random classifier of them."""
    rng = np.random.default_rng(seed)
    x = np.floor(rng.gamma(0.4, 60.0, (geometry.n, 128)).clip(0, 255))
    zeroed = rng.choice(geometry.n, 3, replace=False)
    live = np.setdiff1d(np.arange(geometry.n), zeroed)
    x[zeroed] = 0
    basis = np.linalg.qr(rng.standard_normal((128, dims)))[0].T
    mean = x.mean(axis=0) if mean else None
    mixture = make_mixture(rng, ref.project(x[live], basis, mean), n_components)
    n_cells = sum(rows * columns for rows, columns in PYRAMID)
    coef = rng.standard_normal(n_cells * 2 * n_components * dims)
    return x, ref.Model(basis, mean, *mixture, coef, 0.7, **{"gate": 0.0, **model}), zeroed


GEOMETRY = Geometry(44, 57, bin_sizes=(4, 6), step=7)


@pytest.fixture(scope="module")
def problem():
    return make_problem(GEOMETRY)


@pytest.fixture(scope="module")
def centred():
    return make_problem(GEOMETRY, mean=True)


def assert_closes(explained, rtol=1e-9):
    ledger = dict(explained.ledger)
    score = ledger.pop("score")
    entries = np.array([*ledger.values(), explained.heatmap.sum()])
    assert np.isfinite(explained.heatmap).all()
    assert abs(score - entries.sum()) <= rtol * (abs(score) + np.abs(entries).sum())


# ---- Fisher vector ----


def test_projection_subtracts_the_mean_before_it_projects(centred):
    x, model, _ = centred
    row = [sum(p * (v - m) for p, v, m in zip(axis, x[4], model.mean, strict=True)) for axis in model.basis]
    np.testing.assert_allclose(ref.project(x, model.basis, model.mean)[4], row, rtol=1e-12)


def test_posteriors_are_those_of_scikit_learn(problem):
    mixture = pytest.importorskip("sklearn.mixture")
    x, model, _ = problem
    other = mixture.GaussianMixture(len(model.priors), covariance_type="diag")
    other.weights_, other.means_, other.covariances_ = model.priors, model.means, model.variances
    other.precisions_cholesky_ = 1 / np.sqrt(model.variances)
    y = ref.project(x, model.basis)
    gamma, loglik = ref.posteriors(y, model.priors, model.means, model.variances)
    np.testing.assert_allclose(gamma, other.predict_proba(y), rtol=1e-8, atol=1e-15)
    np.testing.assert_allclose(loglik, other.score_samples(y), rtol=1e-10)


def test_posteriors_far_from_every_component_still_sum_to_one(problem):
    _, model, _ = problem
    gamma, loglik = ref.posteriors(np.full((1, 6), 1e5), model.priors, model.means, model.variances)
    assert gamma.sum() == pytest.approx(1)
    assert -np.inf < loglik[0] < -1e4


def test_gate_zeroes_small_posteriors_and_leaves_the_others(problem):
    x, model, _ = problem
    y = ref.project(x, model.basis)
    free, _ = ref.posteriors(y, model.priors, model.means, model.variances)
    gated, _ = ref.posteriors(y, model.priors, model.means, model.variances, gate=0.05)
    assert 0 < (gated == 0).sum() < gated.size
    np.testing.assert_array_equal(gated, np.where(free < 0.05, 0, free))


def test_pooled_terms_are_those_of_vlfeat(problem):
    cyvlfeat_fisher = pytest.importorskip("cyvlfeat.fisher").fisher
    x, model, _ = problem
    y = ref.project(x, model.basis)
    gamma, _ = ref.posteriors(y, model.priors, model.means, model.variances, gate=1e-6)
    whole = np.zeros((len(y), 1), np.int64)
    ours = ref.pooled(y, gamma, whole, 1, model.priors, model.means, model.variances)[0] / len(y)
    single = (np.ascontiguousarray(a, np.float32) for a in (y, model.means, model.variances, model.priors))
    theirs = np.ravel(cyvlfeat_fisher(*single))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


def test_pooling_adds_psi_over_each_cell(problem):
    x, model, _ = problem
    mixture = model.priors, model.means, model.variances
    y = ref.project(x, model.basis)
    gamma, _ = ref.posteriors(y, *mixture, 0.02)
    cells = GEOMETRY.cells(PYRAMID)
    terms = ref.psi(y, gamma, *mixture)
    rows = [np.flatnonzero((cells == cell).any(axis=1)) for cell in range(8)]
    np.testing.assert_allclose(ref.pooled(y, gamma, cells, 8, *mixture), [terms[r].sum(axis=0) for r in rows])
    np.testing.assert_allclose(
        ref.pooled(y, gamma, cells, 8, *mixture, magnitude=True), [np.abs(terms[r]).sum(axis=0) for r in rows]
    )


def test_pooled_terms_follow_from_the_moments(problem):
    x, model, _ = problem
    y = ref.project(x, model.basis)
    gamma, _ = ref.posteriors(y, model.priors, model.means, model.variances)
    s0, s1, s2 = ref.moments(y, gamma, model.means, model.variances)
    root = np.sqrt(model.priors)[:, None]
    expected = np.r_[(s1 / root).ravel(), ((s2 - s0[:, None]) / (np.sqrt(2) * root)).ravel()]
    whole = np.zeros((len(y), 1), np.int64)
    pooled = ref.pooled(y, gamma, whole, 1, model.priors, model.means, model.variances)[0]
    np.testing.assert_allclose(pooled, expected, rtol=1e-9, atol=1e-9)


def test_normalised_representation_of_known_sums():
    sums = np.array([[3.0, -4.0], [0.0, 0.0], [0.0, 2.0]])
    # lengths 5, 0 and 2; roots of .6, .8 and 1, whose squares add up to 2.4
    expected = np.array([0.6**0.5, -(0.8**0.5), 0, 0, 0, 1]) / 2.4**0.5
    np.testing.assert_allclose(ref.normalise(sums), expected)
    # roots of 3 and 4 have squared length 7; two cells of length 1 remain
    expected = np.array([(3 / 7) ** 0.5, -((4 / 7) ** 0.5), 0, 0, 0, 1]) / 2**0.5
    np.testing.assert_allclose(ref.normalise(sums, "vlfeat"), expected)


def test_intra_normalised_representation_of_known_sums():
    # one cell, [u_1 u_2 v_1 v_2] of one dimension each: abs(S) of component 1 add up to 5, of component 2 to 2
    expected = np.array([(1 / 5) ** 0.5, -1, -((4 / 5) ** 0.5), 0]) / 2**0.5
    np.testing.assert_allclose(ref.normalise(np.array([[1.0, -2, -4, 0]]), "intra", 2), expected)
    # below the least, 1, a component fades: its roots stay as they are, of squared length 1/4
    expected = np.array([(1 / 5) ** 0.5, -0.5, -((4 / 5) ** 0.5), 0]) / 1.25**0.5
    np.testing.assert_allclose(ref.normalise(np.array([[1.0, -0.25, -4, 0]]), "intra", 2), expected)


@pytest.mark.parametrize("order", ["chatfield2011", "vlfeat"])
def test_normalisation_cannot_see_the_number_of_descriptors(order):
    sums = np.random.default_rng(0).standard_normal((3, 8))
    scaled = sums * np.array([[0.1], [7.0], [1000.0]])
    np.testing.assert_allclose(ref.normalise(scaled, order), ref.normalise(sums, order))


def test_sums_of_zero_normalise_to_zero():
    assert not ref.normalise(np.zeros((8, 4))).any()


# ---- relevance ----


def brute_force_relevance(y, gamma, cells, r3, epsilon, priors, means, variances):
    """Eqs. 3-6 as scalar loops over cells, terms, components, dimensions and descriptors."""
    n_components, dims = means.shape

    def term(row, order, k, i):
        delta = (y[row, i] - means[k, i]) / variances[k, i] ** 0.5
        if order == 0:
            return gamma[row, k] * delta / priors[k] ** 0.5
        return gamma[row, k] * (delta * delta - 1) / (2 * priors[k]) ** 0.5

    relevance = np.zeros((len(y), dims))
    for cell, order, k, i in product(range(8), range(2), range(n_components), range(dims)):
        members = [row for row in range(len(y)) if cell in cells[row]]
        total = sum(term(row, order, k, i) for row in members)
        total += epsilon if total >= 0 else -epsilon
        d = ((cell * 2 + order) * n_components + k) * dims + i
        for row in members if total else []:  # 0/0 := 0: one descriptor alone in a cell may lie on a mean
            relevance[row, i] += term(row, order, k, i) / total * r3[d]
    return relevance


@pytest.mark.parametrize("epsilon", [0.0, 1.5])
@pytest.mark.parametrize("first_pair", [0, 5])
def test_relevance_of_descriptors_is_the_brute_force_sum(epsilon, first_pair):
    rng = np.random.default_rng(1)
    y, r3 = rng.standard_normal((7, 2)), rng.standard_normal(8 * 2 * 3 * 2)
    mixture = make_mixture(rng, y, 3)
    # Seven descriptors in consecutive (quadrant, band) pairs; the two runs see all twelve.
    pairs = [(quadrant, 4 + band, 7) for quadrant, band in product(range(4), range(3))]
    cells = np.array(pairs[first_pair : first_pair + 7])
    gamma, _ = ref.posteriors(y, *mixture)
    sums = ref.pooled(y, gamma, cells, 8, *mixture)
    magnitudes = ref.pooled(y, gamma, cells, 8, *mixture, magnitude=True)
    share, _ = ref.shares(r3.reshape(8, -1), sums, magnitudes, np.bincount(cells.ravel(), minlength=8), epsilon)
    ours = ref.relevance_per_dimension(y, gamma, cells, share, *mixture)
    expected = brute_force_relevance(y, gamma, cells, r3, epsilon, *mixture)
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("bias", ["distribute", "active"])
def test_without_stabiliser_the_descriptors_carry_the_whole_score(problem, bias):
    x, model, _ = problem
    explained = ref.explain(x, GEOMETRY, model, "descriptor", bias=bias, **EXACT)
    assert explained.relevance["descriptor"].sum() == pytest.approx(explained.ledger["score"], rel=1e-9)
    assert explained.heatmap.sum() == pytest.approx(explained.ledger["score"], rel=1e-9)


def test_descriptors_sum_to_the_score_less_an_ignored_bias(problem):
    x, model, _ = problem
    explained = ref.explain(x, GEOMETRY, model, "descriptor", bias="ignore", **EXACT)
    score = explained.ledger["score"]
    assert explained.ledger["bias"] == model.intercept
    assert explained.relevance["descriptor"].sum() == pytest.approx(score - model.intercept, rel=1e-9)


def test_active_bias_goes_to_nonzero_sums():
    sums = np.array([[1.0, 0.0], [-2.0, 0.0]])
    relevance, left = ref.linear_relevance(np.zeros(4), np.ones(4), 3.0, sums, "active")
    np.testing.assert_array_equal(relevance, [1.5, 0, 1.5, 0])
    assert left == 0
    assert ref.linear_relevance(np.zeros(4), np.ones(4), 3.0, 0 * sums, "active")[1] == 3.0


@pytest.mark.parametrize("bias", ["distribute", "active", "ignore"])
@pytest.mark.parametrize("pool_scale", ["sum", "mean"])
@pytest.mark.parametrize("eps_mode", ["absolute", "relative"])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 100.0])
def test_ledger_of_the_pooling_closes(problem, bias, pool_scale, eps_mode, epsilon):
    x, model, _ = problem
    explained = ref.explain(
        x, GEOMETRY, model, "descriptor", bias=bias, pool_scale=pool_scale, eps_mode=eps_mode, epsilon_pool=epsilon
    )
    assert (explained.ledger["absorbed_pool"] != 0) == (epsilon > 0)
    assert_closes(explained)


@pytest.mark.parametrize("treatment", ["none", "centered", "bias"])
@pytest.mark.parametrize("zero_desc", ["drop", "uniform"])
@pytest.mark.parametrize("epsilon", [0.0, 100.0])
def test_ledger_of_the_projection_closes(centred, treatment, zero_desc, epsilon):
    x, model, _ = centred
    explained = ref.explain(x, GEOMETRY, model, mean=treatment, zero_desc=zero_desc, epsilon_pca=epsilon)
    assert (explained.ledger["absorbed_pca"] != 0) == (epsilon > 0)
    assert (explained.ledger["mean"] != 0) == (treatment == "bias")
    assert (explained.ledger["zero_desc"] != 0) == (zero_desc == "drop" and treatment != "centered")
    assert_closes(explained)


@pytest.mark.parametrize("splat", ["box", "box_sym", "tri"])
@pytest.mark.parametrize("clip", ["renormalise", "drop"])
@pytest.mark.parametrize("depth", ["vector", "descriptor", "bin"])
def test_ledger_of_the_splat_closes(problem, splat, clip, depth):
    x, model, _ = problem
    explained = ref.explain(x, GEOMETRY, model, depth, splat=splat, clip=clip)
    assert (explained.ledger["clipped"] != 0) == (clip == "drop" and depth != "vector")
    assert_closes(explained)


def test_gated_components_leave_zero_sums_with_their_share_of_the_bias():
    x, model, _ = make_problem(GEOMETRY)
    unused = model._replace(coef=np.zeros_like(model.coef), means=model.means + np.array([[0]] * 4 + [[1e4]]))
    for epsilon in (0.0, 100.0):
        explained = ref.explain(x, GEOMETRY, unused, "descriptor", epsilon_pool=epsilon)
        assert explained.ledger["zero_sum"] == pytest.approx(model.intercept / 5)
        assert_closes(explained)


@pytest.mark.parametrize("epsilon", [0.0, 100.0])
def test_empty_cells_keep_their_share_of_the_bias(epsilon):
    lonely = Geometry(22, 22, bin_sizes=(4,), step=50)
    x, model, _ = make_problem(GEOMETRY)
    explained = ref.explain(x[:1], lonely, model, "descriptor", epsilon_pool=epsilon)
    assert explained.ledger["empty_cell"] == pytest.approx(model.intercept * 5 / 8)
    assert_closes(explained)


def test_image_without_descriptors_has_only_empty_cells():
    x, model, _ = make_problem(GEOMETRY)
    for epsilon in (0.0, 100.0):
        explained = ref.explain(x[:0], Geometry(10, 9), model, epsilon_pool=epsilon)
        assert not explained.heatmap.any()
        assert explained.ledger["score"] == model.intercept
        assert explained.ledger["empty_cell"] == pytest.approx(model.intercept)


@pytest.mark.parametrize("epsilon", [0.0, 100.0])
def test_relevance_is_linear_in_the_classifier(problem, epsilon):
    x, model, _ = problem
    other = model._replace(coef=np.cos(np.arange(len(model.coef))), intercept=-2.0)
    both = model._replace(coef=model.coef + other.coef, intercept=model.intercept + other.intercept)
    one, two, sum_ = (
        ref.explain(x, GEOMETRY, m, epsilon_pool=epsilon, epsilon_pca=epsilon) for m in (model, other, both)
    )
    scale = np.abs(one.heatmap).max() + np.abs(two.heatmap).max()
    np.testing.assert_allclose(one.heatmap + two.heatmap, sum_.heatmap, atol=1e-9 * scale)


def test_duplicated_descriptors_share_the_relevance_of_one(problem):
    x, model, _ = problem
    mixture = model.priors, model.means, model.variances

    def descriptors(x, cells):
        y = ref.project(x, model.basis)
        gamma, _ = ref.posteriors(y, *mixture, model.gate)
        sums, magnitudes = (ref.pooled(y, gamma, cells, 8, *mixture, magnitude=flag) for flag in (False, True))
        code = ref.normalise(sums)
        r3, _ = ref.linear_relevance(code, model.coef, model.intercept, sums)
        counts = np.bincount(cells.ravel(), minlength=8)
        share, _ = ref.shares(r3.reshape(8, -1), sums, magnitudes, counts, 0.0)
        return code @ model.coef, ref.relevance_per_dimension(y, gamma, cells, share, *mixture)

    cells = GEOMETRY.cells(PYRAMID)
    score, once = descriptors(x, cells)
    score_twice, twice = descriptors(np.repeat(x, 2, axis=0), np.repeat(cells, 2, axis=0))
    assert score_twice == pytest.approx(score, rel=1e-12)
    np.testing.assert_allclose(twice, np.repeat(once / 2, 2, axis=0), rtol=1e-7, atol=1e-9 * np.abs(once).max())


def test_priors_only_rescale_the_terms(problem):
    x, model, _ = problem
    y, cells = ref.project(x, model.basis), GEOMETRY.cells(PYRAMID)
    gamma, _ = ref.posteriors(y, model.priors, model.means, model.variances)
    r3, counts = model.coef.reshape(8, -1), np.bincount(cells.ravel(), minlength=8)

    def relevance(priors):
        mixture = priors, model.means, model.variances
        sums, magnitudes = (ref.pooled(y, gamma, cells, 8, *mixture, magnitude=flag) for flag in (False, True))
        share, _ = ref.shares(r3, sums, magnitudes, counts, 0.0)
        return ref.relevance_per_dimension(y, gamma, cells, share, *mixture)

    ours, other = relevance(model.priors), relevance(np.array([0.9, 0.04, 0.03, 0.02, 0.01]))
    np.testing.assert_allclose(ours, other, rtol=1e-7, atol=1e-9 * np.abs(ours).max())


def test_mean_pooling_stabilises_by_epsilon_times_the_number_of_descriptors(problem):
    x, model, _ = problem
    y, cells = ref.project(x, model.basis), np.zeros((GEOMETRY.n, 1), np.int64)
    mixture = model.priors, model.means, model.variances
    gamma, _ = ref.posteriors(y, *mixture)
    terms = ref.psi(y, gamma, *mixture) / len(y)  # Eqs. 5-6 as they read when the encoder divides by N
    mean = terms.sum(axis=0)
    r3 = model.coef[: len(mean)]
    expected = (terms * r3 / (mean + 0.01 * np.where(mean >= 0, 1, -1))).sum(axis=1)

    sums, magnitudes = (ref.pooled(y, gamma, cells, 1, *mixture, magnitude=flag) for flag in (False, True))
    counts = np.array([len(y)])
    epsilon = ref.pool_epsilon(sums, counts, 0.01, "mean")
    share, _ = ref.shares(r3[None], sums, magnitudes, counts, epsilon)
    relevance = ref.relevance_per_dimension(y, gamma, cells, share, *mixture).sum(axis=1)
    np.testing.assert_allclose(relevance, expected, rtol=1e-9)


def test_relative_epsilon_counts_in_medians_of_nonzero_sums():
    sums = np.array([[0.0, -4.0, 2.0, 6.0], [0.0, 0.0, 0.0, 0.0]])
    epsilon = ref.pool_epsilon(sums, np.array([5, 0]), 0.5, eps_mode="relative")
    np.testing.assert_array_equal(epsilon, [[2.0], [0.0]])


def test_sums_that_are_rounding_errors_are_not_divided_by():
    r3, magnitudes, counts = np.ones((1, 3)), np.full((1, 3), 10.0), np.array([4])
    sums = np.array([[1e-14, -0.0, 1e-3]])
    share, ledger = ref.shares(r3, sums, magnitudes, counts, 0.0)
    np.testing.assert_allclose(share, [[0, 0, 1e3]])
    assert ledger == {"absorbed_pool": 0, "empty_cell": 0, "zero_sum": 2}


def test_stabiliser_has_the_sign_of_the_sum_and_plus_at_either_zero():
    share, _ = ref.shares(np.ones((1, 4)), np.array([[1.0, -1.0, 0.0, -0.0]]), np.ones((1, 4)), np.array([1]), 1.0)
    np.testing.assert_array_equal(share, [[0.5, -0.5, 1, 1]])


@pytest.mark.parametrize("treatment", ["none", "centered", "bias"])
@pytest.mark.parametrize("epsilon", [0.0, 20.0])
def test_back_projection_is_the_brute_force_sum(centred, treatment, epsilon):
    x, model, zeroed = centred
    relevance = np.random.default_rng(3).standard_normal((4, 6))
    x = x[np.setdiff1d(np.arange(len(x)), zeroed)[:4]]
    expected = np.zeros((4, 128))
    for row in range(4):
        xhat = x[row] - model.mean if treatment == "centered" else x[row]
        for j in range(6):
            z = [model.basis[j, i] * xhat[i] for i in range(128)]
            total = sum(z) - (model.basis[j] @ model.mean if treatment == "bias" else 0)
            total += epsilon if total >= 0 else -epsilon
            for i in range(128):
                expected[row, i] += z[i] / total * relevance[row, j]
    back = ref.back_project(relevance, x, model.basis, model.mean, epsilon, treatment)
    np.testing.assert_allclose(back.sift, expected, rtol=1e-9, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("treatment", ["none", "centered"])
def test_without_stabiliser_each_descriptor_keeps_its_relevance_through_the_projection(centred, treatment):
    x, model, zeroed = centred
    relevance = np.random.default_rng(3).standard_normal((len(x), 6))
    sift = ref.back_project(relevance, x, model.basis, model.mean, 0.0, treatment).sift
    live = np.setdiff1d(np.arange(len(x)), zeroed if treatment == "none" else [])
    np.testing.assert_allclose(sift.sum(axis=1)[live], relevance.sum(axis=1)[live], rtol=1e-9, atol=1e-9)


def test_values_of_zero_take_no_relevance_unless_centred(centred):
    x, model, _ = centred
    relevance = np.ones((len(x), 6))
    for treatment, expected in (("none", True), ("bias", True), ("centered", False)):
        sift = ref.back_project(relevance, x, model.basis, model.mean, 1.0, treatment).sift
        assert (not sift[x == 0].any()) == expected


@pytest.mark.parametrize("epsilon", [0.0, 100.0])
def test_dimension_without_inputs_is_undone_and_a_descriptor_without_any_is_zero(epsilon):
    basis = np.eye(2, 128)
    x = np.zeros((3, 128))
    x[0, :2], x[1, 0], x[2, 100] = 3, 5, 7  # both dimensions, the first alone, neither though not zeroed
    relevance = np.array([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]])
    back = ref.back_project(relevance, x, basis, None, epsilon)
    np.testing.assert_array_equal(back.undone, [0, 8, 0])
    np.testing.assert_array_equal(back.zero, [0, 0, 48])
    np.testing.assert_allclose(back.sift.sum(axis=1) + back.absorbed, [3, 4, 0])


def test_a_dimension_whose_inputs_cancel_loses_its_relevance_to_the_stabiliser():
    basis = np.zeros((1, 128))
    basis[0, :2] = 1, -1
    x = np.zeros((1, 128))
    x[0, :2] = 3
    relevance = np.full((1, 1), 5.0)
    exact = ref.back_project(relevance, x, basis, None, 0.0)
    assert not exact.sift.any()
    assert exact.undone[0] + exact.zero[0] == 5
    stable = ref.back_project(relevance, x, basis, None, 100.0)
    np.testing.assert_allclose(stable.sift[0, :3], [0.15, -0.15, 0])
    assert (stable.absorbed[0], stable.undone[0], stable.zero[0]) == (5, 0, 0)


def test_zeroed_descriptors_take_relevance_only_under_uniform(problem):
    x, model, zeroed = problem
    drop, uniform = (ref.explain(x, GEOMETRY, model, zero_desc=policy) for policy in ("drop", "uniform"))
    r2 = drop.relevance["descriptor"][zeroed]
    assert (r2 != 0).all()
    assert not drop.relevance["bin"][zeroed].any()
    assert drop.ledger["zero_desc"] == pytest.approx(r2.sum())
    np.testing.assert_allclose(uniform.relevance["bin"][zeroed], np.broadcast_to(r2[:, None, None] / 16, (3, 4, 4)))
    live = np.setdiff1d(np.arange(len(x)), zeroed)
    np.testing.assert_array_equal(uniform.relevance["bin"][live], drop.relevance["bin"][live])


def test_spatial_bins_gather_eight_orientations_row_by_row():
    sift = np.zeros((1, 128))
    sift[0, 32 * 2 + 8 * 1 : 32 * 2 + 8 * 2] = 1
    expected = np.zeros((1, 4, 4))
    expected[0, 2, 1] = 8
    np.testing.assert_array_equal(ref.spatial_bins(sift), expected)


def test_orientation_planes_sum_to_the_gradient_magnitude():
    grey = np.random.default_rng(0).random((33, 47))
    planes = ref.orientation_planes(grey, 1.0)
    gy, gx = np.gradient(ref.smooth(grey, 1.0))
    np.testing.assert_allclose(planes.sum(axis=2), np.hypot(gy, gx), rtol=0, atol=1e-12)
    assert planes.min() >= 0


# ---- splats ----


def frame(y, x, bin_size):
    """The frame whose top-left bin is centred on (y, x)."""
    return np.array([[y + 1.5 * bin_size, x + 1.5 * bin_size, bin_size]], np.float32)


def one_bin(row, column):
    relevance = np.zeros((1, 4, 4))
    relevance[0, row, column] = 1
    return relevance


def rows_and_columns(pixels):
    """First and last row, first and last column that hold relevance."""
    y, x = np.nonzero(pixels)
    return y.min(), y.max(), x.min(), x.max()


@pytest.mark.parametrize(
    ("splat", "bin_size", "first", "last"),
    [("box", 4, -2, 1), ("box_sym", 4, -2, 2), ("tri", 4, -3, 3), ("box", 5, -2, 2), ("box_sym", 5, -2, 2)],
)
def test_bin_covers_the_pixels_around_its_centre(splat, bin_size, first, last):
    pixels, _ = ref.splat_bins(one_bin(1, 2), frame(10, 20, bin_size), 60, 70, splat)
    y, x = 10 + bin_size, 20 + 2 * bin_size
    assert rows_and_columns(pixels) == (y + first, y + last, x + first, x + last)
    assert pixels.sum() == pytest.approx(1)


def test_weights_of_the_three_splats_along_an_axis():
    expected = {"box": [1, 1, 1, 1], "box_sym": [0.5, 1, 1, 1, 0.5], "tri": [0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25]}
    for splat, weights in expected.items():
        np.testing.assert_array_equal(ref.splat_kernel(splat, 4)[0], weights)


def test_sixteen_bins_tile_the_area_of_the_descriptor():
    for size in (4, 5, 10):
        area, _ = ref.splat_descriptor(np.ones(1), frame(12, 9, size), 60, 60)
        bins, _ = ref.splat_bins(np.full((1, 4, 4), 1 / 16), frame(12, 9, size), 60, 60)
        np.testing.assert_allclose(area, bins)
        assert rows_and_columns(area) == (
            12 - size // 2,
            11 - size // 2 + 4 * size,
            9 - size // 2,
            8 - size // 2 + 4 * size,
        )


def test_a_box_beyond_the_image_is_renormalised_or_dropped():
    box = frame(0, 1, 4)  # rows -2..1 and columns -1..2: 6 of 16 pixels inside
    inside, clipped = ref.splat_bins(one_bin(0, 0), box, 20, 20)
    assert clipped == 0
    np.testing.assert_allclose(inside[:2, :3], 1 / 6)
    assert inside.sum() == pytest.approx(1)
    lossy, clipped = ref.splat_bins(one_bin(0, 0), box, 20, 20, clip="drop")
    np.testing.assert_allclose(lossy[:2, :3], 1 / 16)
    assert clipped == pytest.approx(10 / 16)


@pytest.mark.parametrize("clip", ["renormalise", "drop"])
@pytest.mark.parametrize("corner", [(-4, 3), (3, -4), (20, 3), (3, 20), (-9, 40)])
def test_support_outside_the_image_loses_all_it_has(clip, corner):
    pixels = np.zeros((20, 20))
    assert ref.splat_one(pixels, 3.0, *corner, np.ones(4), clip) == 3.0
    assert not pixels.any()


def test_pixels_and_the_clipped_entry_sum_to_the_relevance_of_descriptors(problem):
    r2 = np.random.default_rng(4).standard_normal(GEOMETRY.n)
    kept, clipped = ref.splat_descriptor(r2, GEOMETRY.frames, 44, 57)
    assert clipped == 0
    assert kept.sum() == pytest.approx(r2.sum())
    lossy, clipped = ref.splat_descriptor(r2, GEOMETRY.frames, 44, 57, "drop")
    assert clipped != 0
    assert lossy.sum() + clipped == pytest.approx(r2.sum())


def test_flat_bins_in_the_interior_give_the_map_of_depth_descriptor():
    frames = GEOMETRY.frames
    low, high = (frames[:, :2] + sign * 2 * frames[:, 2:] for sign in (-1, 1))
    interior = frames[((low >= 0) & (high < (43, 56))).all(axis=1)]
    assert 0 < len(interior) < len(frames)
    r2 = np.random.default_rng(5).standard_normal(len(interior))
    coarse, _ = ref.splat_descriptor(r2, interior, 44, 57)
    fine, _ = ref.splat_bins(np.broadcast_to(r2[:, None, None] / 16, (len(r2), 4, 4)), interior, 44, 57)
    np.testing.assert_allclose(coarse, fine, atol=1e-15)


@pytest.mark.parametrize("splat", ["box_sym", "tri"])
def test_mirrored_frames_give_the_mirrored_map(splat):
    bins = np.random.default_rng(6).standard_normal((GEOMETRY.n, 4, 4))
    mirrored = GEOMETRY.frames * (1, -1, 1) + (0, 56, 0)
    pixels, _ = ref.splat_bins(bins, GEOMETRY.frames, 44, 57, splat)
    other, _ = ref.splat_bins(bins[:, :, ::-1], mirrored, 44, 57, splat)
    np.testing.assert_allclose(other[:, ::-1], pixels, atol=1e-14)


def test_cells_of_depth_vector_hold_the_pixels_whose_centres_lie_in_them():
    height, width = 11, 7
    expected = np.zeros((height, width))
    relevance = np.arange(1.0, 9)
    # Cell of 0-based pixel p among n on an axis: ceil((p + 1) n / length) - 1, in integers.
    cells = [
        (-(-(x + 1) * 2 // width) - 1) * 2 - (-(y + 1) * 2 // height) - 1
        for y, x in product(range(height), range(width))
    ]
    bands = [4 - (-(y + 1) * 3 // height) - 1 for y, _ in product(range(height), range(width))]
    for level in (cells, bands, [7] * (height * width)):
        expected += (relevance[level] / np.bincount(level)[level]).reshape(height, width)
    pixels, clipped = ref.splat_vector(relevance, PYRAMID, height, width)
    np.testing.assert_allclose(pixels, expected)
    assert clipped == 0


def test_cells_without_pixels_are_clipped():
    pixels, clipped = ref.splat_vector(np.array([1.0, 2.0, 4.0]), ((3, 1),), 2, 5)
    assert clipped == 1
    assert pixels.sum() == pytest.approx(6)


# ---- the whole walk ----


def test_each_depth_refines_the_one_above(problem):
    x, model, _ = problem
    fine = ref.explain(x, GEOMETRY, model)
    coarse = ref.explain(x, GEOMETRY, model, "descriptor")
    np.testing.assert_array_equal(coarse.relevance["descriptor"], fine.relevance["pca"].sum(axis=1))
    np.testing.assert_allclose(fine.relevance["bin"].sum(), fine.relevance["sift"].sum(), rtol=1e-9)
    assert list(fine.relevance) == ["vector", "pca", "descriptor", "sift", "bin"]


@pytest.mark.parametrize(
    ("option", "valid"),
    [
        ({"depth": "pixel"}, "'vector', 'descriptor', 'bin'"),
        ({"bias": "none"}, "'distribute', 'active', 'ignore'"),
        ({"pool_scale": "max"}, "'sum', 'mean'"),
        ({"eps_mode": "big"}, "'absolute', 'relative'"),
        ({"mean": "subtract"}, "'none', 'centered', 'bias'"),
        ({"zero_desc": "keep"}, "'drop', 'uniform'"),
        ({"splat": "gauss"}, "'box', 'box_sym', 'tri'"),
        ({"clip": "wrap"}, "'renormalise', 'drop'"),
    ],
)
def test_unknown_option_is_answered_with_the_valid_ones(problem, option, valid):
    x, model, _ = problem
    with pytest.raises(ValueError, match=f"must be one of {valid}$"):
        ref.explain(x, GEOMETRY, model, **option)
