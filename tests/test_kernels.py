"""Every Fisher kernel against its NumPy twin, on every instruction set, in both number types.

float64 is held to 1e-11 of the sum of the absolute values that add up to a number; float32 to what its rounding allows
(stated at each test). Inputs of a kernel under test are the twin's own, so that one kernel's error is not another's.
"""

from functools import cache
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
import pytest
import reference

from fvlrp import _kernels
from fvlrp.fisher.geometry import Geometry

TYPES = ("float32", "float64")
INPUTS = 128
FIRST = dict(zip(TYPES, (2e-6, 1e-13), strict=True))  # of a sum of products: a few roundings of 1.2e-7 or 2.2e-16
ROWS = 0, 1, 5, 97, 300  # tiles have 96
DIMS = 2, 5, 33, 80
COMPONENTS = 1, 3, 16, 256
CASES = list(product(ROWS, DIMS, COMPONENTS))
CHOICES = list(product(("uint8", "float32", "float64"), (0.0, 1e-6, 1e-2), (False, True), (False, True)))


pytestmark = pytest.mark.usefixtures("one_blas_thread")


class Problem(NamedTuple):
    x: np.ndarray  # descriptors
    rows: np.ndarray | None  # which of them, in an order of their own
    basis: np.ndarray
    mean: np.ndarray | None
    priors: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    gate: float

    @property
    def mixture(self):
        return self.priors, self.means, self.variances

    @property
    def chosen(self):
        return self.x if self.rows is None else self.x[self.rows]

    def model(self, dtype):
        return _kernels.Model(self.basis, self.mean, *self.mixture, self.gate, dtype)


@cache
def orthonormal(dims):
    return np.linalg.qr(np.random.default_rng(dims).standard_normal((INPUTS, dims)))[0].T


@cache
def problem(n, dims, components, kind="uint8", gate=1e-6, mean=False, subset=False, seed=0):
    """Descriptors sparse on 0..255, and components so broad that several share a descriptor."""
    rng = np.random.default_rng([seed, dims, components])
    x = rng.gamma(0.4, 60.0, (300, INPUTS)).clip(0, 255)
    x = np.floor(x).astype(np.uint8) if kind == "uint8" else x.astype(kind)
    basis = orthonormal(dims)
    centre = x.mean(axis=0, dtype=np.float64) if mean else None
    y = reference.project(x, basis, centre)
    means = y.mean(axis=0) + 0.25 * y.std(axis=0) * rng.standard_normal((components, dims))
    variances = y.var(axis=0) * rng.uniform(0.8, 1.3, means.shape)
    priors = rng.dirichlet(np.full(components, 5.0))
    rows = rng.permutation(300)[:n] if subset else None
    return Problem(x if subset else x[:n], rows, basis, centre, priors, means, variances, gate)


def by_case(test):
    """Run `test` for every (n, D, K), each with some of the other choices, by lot: one item for each (D, K)."""
    picks = np.random.default_rng(0).permutation(len(CASES)) % len(CHOICES)
    cases = [(*case, *CHOICES[pick]) for case, pick in zip(CASES, picks, strict=True)]

    def over_n(dims, components, dtype, isa):
        for case in cases:
            if case[1:3] != (dims, components):
                continue
            try:
                test(case, dtype)
            except AssertionError as error:
                error.add_note(f"in the case {case}")
                raise

    over_n.__name__, over_n.__doc__ = test.__name__, test.__doc__
    over_n = pytest.mark.parametrize("components", COMPONENTS)(over_n)
    over_n = pytest.mark.parametrize("dims", DIMS)(over_n)
    return pytest.mark.parametrize("dtype", TYPES)(over_n)


@cache
def forward(case):
    p = problem(*case)
    y = reference.project(p.chosen, p.basis, p.mean)
    return y, *reference.posteriors(y, *p.mixture)


def sparse(model, y, gamma):
    """Encoded rows of given numbers, in the model's type."""
    rows, index = np.nonzero(gamma)
    indptr = np.r_[0, np.cumsum(np.bincount(rows, minlength=len(y)))].astype(np.int64)
    return _kernels.Encoded(model.pad(y), indptr, index.astype(np.uint16), gamma[rows, index].astype(model.dtype))


def dense(encoded, components):
    gamma = np.zeros((len(encoded.y), components))
    gamma[np.repeat(np.arange(len(encoded.y)), np.diff(encoded.indptr)), encoded.index] = encoded.gamma
    return gamma


def assert_close(got, expected, magnitude, tolerance):
    """Equal to `tolerance` of `magnitude`, the sum of the absolute values that add up to each number."""
    assert got.shape == expected.shape
    error = np.abs(got.astype(np.float64) - expected)
    worst = np.max(error / np.maximum(magnitude, 1e-300), initial=0)
    assert (error <= tolerance * magnitude).all(), f"{worst:.2e} of the magnitude, {tolerance:.0e} allowed"


def distance(got, expected):
    """Relative, in the 2-norm."""
    return np.linalg.norm(got.astype(np.float64) - expected) / max(np.linalg.norm(expected), 1e-300)


def assert_same_bits(got, expected):
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got.view(f"u{got.itemsize}"), expected.view(f"u{expected.itemsize}"))


# ---- projection, posteriors, pooled sums -----------------------------------------------------------------------------


@by_case
def test_projection_is_that_of_the_equation(case, dtype):
    p = problem(*case)
    expected, _, _ = forward(case)
    y = p.model(dtype).project(p.x, p.rows)
    magnitude = np.abs(p.chosen - (0.0 if p.mean is None else p.mean)) @ np.abs(p.basis).T
    assert_close(y[:, : len(p.basis)], expected, magnitude, FIRST[dtype])
    assert not y[:, len(p.basis) :].any()


@pytest.mark.parametrize("bits", (8, 16, 24))
@pytest.mark.parametrize("inputs", (1, 31, 128, 160, 161, 200, 333))
@pytest.mark.parametrize("n, dims", ((1, 80), (16, 3), (40, 33), (97, 80)))
def test_a_float32_projection_has_float32s_accuracy_at_any_depth(n, dims, inputs, bits, isa):
    """Tiles multiply numbers in pieces of 8 bits: none that a number has may be missing or out of place."""
    rng = np.random.default_rng(inputs)
    basis = rng.standard_normal((dims, inputs)).astype(np.float32).astype(np.float64)
    fraction, exponent = np.frexp(rng.standard_normal((n, inputs)) * np.exp(rng.uniform(-3, 3, inputs)))
    x = np.ldexp(np.round(fraction * 2**bits), exponent - bits).astype(np.float32)
    got = _kernels.Model(basis, None, None, None, None).project(x)
    magnitude = np.abs(x).astype(np.float64) @ np.abs(basis.T)
    assert np.sqrt(np.mean(((got[:, :dims] - x.astype(np.float64) @ basis.T) / magnitude) ** 2)) <= 1e-7
    assert not got[:, dims:].any()


@pytest.mark.parametrize("inputs", (4, 6, 128, 512, 516))
@pytest.mark.parametrize("n, dims", ((1, 80), (4, 1), (6, 97), (203, 33)))
def test_a_float32_projection_of_bytes_rounds_the_basis_and_the_result(n, dims, inputs, isa):
    """Products of whole numbers take its place where they are quicker: every digit and every row must be there."""
    rng = np.random.default_rng([inputs, dims])
    basis = rng.standard_normal((dims, inputs)) * 10 ** rng.uniform(-6, 6, (dims, 1))
    basis[rng.random((dims, inputs)) < 0.2] = 0
    basis[0] = -np.abs(basis[0]).max()  # the lowest that a number of 8 bits may have to hold
    basis[dims // 2 :: 5] = 0
    x = rng.integers(0, 256, (2 * n, inputs), np.uint8)
    x[n // 2] = 255
    rows = np.sort(rng.choice(2 * n, n, False)).astype(np.int64)
    model = _kernels.Model(basis, None, None, None, None)
    for chosen in (rows, None):
        wide = (x if chosen is None else x[chosen]).astype(np.float64)
        got, expected = model.project(x, chosen), wide @ basis.T
        size = wide.sum(axis=1)[:, None] * np.abs(basis).max(axis=1)
        whole = isa == "vnni" and inputs % 4 == 0 and inputs <= 512  # else sums run in float
        assert (np.abs(got[:, :dims] - expected) <= (2.0**-23 if whole else 2.0**-15) * size).all()
        assert np.sqrt(np.mean(((got[:, :dims] - expected) / np.maximum(size, 1e-300)) ** 2)) <= 2.0**-25 or not whole
        assert not got[:, dims:].any()


@pytest.mark.parametrize("odd", (np.nan, np.inf, -np.inf))
def test_a_row_of_the_basis_that_is_not_finite_gives_no_finite_values(odd, isa):
    basis = np.random.default_rng(0).standard_normal((20, 128))
    basis[3, 7], basis[4, 0] = odd, 2 * odd
    got = _kernels.Model(basis, None, None, None, None).project(np.full((7, 128), 200, np.uint8))
    assert not np.isfinite(got[:, 3:5]).any()
    assert np.isfinite(np.delete(got, (3, 4), axis=1)).all()


@pytest.mark.parametrize("size", (1e-45, 3e-39, 1e-37, 1e-30, 1e30))
def test_a_basis_of_any_size_projects_bytes(size, isa):
    basis = np.random.default_rng(0).uniform(-1, 1, (5, 128)) * size
    x = np.random.default_rng(1).integers(0, 256, (9, 128), np.uint8)
    got = _kernels.Model(basis, None, None, None, None).project(x)[:, :5]
    tiniest = 2.0**-149  # of a float
    allowed = 2.0**-20 * np.abs(basis).max() + tiniest
    assert (np.abs(got - x @ basis.T) <= allowed * x.sum(axis=1, dtype=float)[:, None] + tiniest).all()


@by_case
def test_posteriors_and_log_likelihood_are_those_of_the_equation(case, dtype):
    """To 1e-4 absolute in float32: exponents of some hundred, of 24 bits each. Measured: at most 3e-5."""
    p = problem(*case)
    y, expected, loglik = forward(case)
    model = p.model(dtype)
    encoded, logs = model.posteriors(model.pad(y), loglik=True)
    gamma = dense(encoded, len(p.priors))
    tolerance = {"float32": 1e-4, "float64": 1e-11}[dtype]
    kept = gamma > 0
    np.testing.assert_allclose(gamma[kept], expected[kept], rtol=0, atol=tolerance)
    # A posterior at the gate may fall on either side of it, by rounding; one farther off may not.
    near = {"float32": 1e-2, "float64": 1e-9}[dtype]
    assert (expected[~kept] <= p.gate * (1 + near)).all()
    assert (expected[kept] >= p.gate * (1 - near)).all()
    np.testing.assert_allclose(logs, loglik, rtol={"float32": 1e-5, "float64": 1e-12}[dtype])
    assert all((np.diff(encoded.index[a:b].astype(int)) > 0).all() for a, b in pairwise(encoded.indptr))


@pytest.mark.parametrize("dims, components", ((80, 256), (80, 100), (16, 65), (97, 64), (128, 300)))
@pytest.mark.parametrize("stretch", (0.05, 1.0, 4.0, 25.0))
def test_no_component_above_the_gate_is_missed(dims, components, stretch, isa):
    """Float products may be preceded by quicker ones that say which components matter: none that do may be left out.

    Near the mixture, far from it, and under variances of very different sizes, among many components.
    """
    rng = np.random.default_rng([dims, components])
    means = rng.standard_normal((components, dims)) * 30
    variances = (30 * 10 ** rng.uniform(-0.7, 0.7, (components, dims))) ** 2
    priors = rng.dirichlet(np.full(components, 2.0))
    y = (stretch * 30 * rng.standard_normal((500, dims)) + means.mean(axis=0)).astype(np.float32)
    model = _kernels.Model(None, None, priors, means, variances, 1e-6, "float32")
    encoded, logs = model.posteriors(model.pad(y), loglik=True)
    expected, loglik = reference.posteriors(y.astype(np.float64), priors, means, variances)
    gamma, sizes = dense(encoded, components), np.abs(loglik)[:, None]  # of exponents, which have 24 bits
    assert (np.abs(gamma - expected)[gamma > 0] <= np.broadcast_to(1e-6 * sizes + 1e-5, gamma.shape)[gamma > 0]).all()
    assert (expected * (gamma == 0) <= 1e-6 * (1 + 1e-2 + 1e-6 * sizes)).all()
    np.testing.assert_allclose(logs, loglik, rtol=1e-5)


@pytest.mark.parametrize("far", (3e3, 1e5))
@pytest.mark.parametrize("components", (16, 256))
@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_a_constant_column_keeps_every_posterior(far, components, dtype, isa):
    """Its variance, to be told from the square of its mean, is beyond the digits of a double."""
    rng = np.random.default_rng(0)
    means, variances = rng.standard_normal((components, 16)) * 30, np.full((components, 16), 900.0)
    means[:, 5], variances[:, 5] = far, 1e-9
    priors = rng.dirichlet(np.full(components, 2.0))
    y = (means[rng.integers(0, components, 200)] + rng.standard_normal((200, 16)) * 30).astype(dtype)
    y[:, 5] = far
    model = _kernels.Model(None, None, priors, means, variances, 1e-6, dtype)
    encoded, logs = model.posteriors(y, True)
    expected, loglik = reference.posteriors(y.astype(np.float64), priors, means, variances)
    gamma = dense(encoded, components)
    close, gate = {"float32": (1e-3, 1e-3), "float64": (1e-6, components * 1e-6)}[dtype]  # which leaves out so much
    np.testing.assert_allclose(gamma.sum(axis=1), 1, atol=gate)
    np.testing.assert_allclose(gamma, expected, atol=close)
    if dtype == "float64":
        np.testing.assert_allclose(logs, loglik, rtol=1e-9)


def test_the_smallest_variances_give_valid_posteriors(isa):
    """The inverses of two of them together are beyond a double."""
    means, variances = np.array([[1.0, 2.0], [1.0, 4.0]]), np.array([[1e-308, 1.0], [1e-308, 1.0]])
    model = _kernels.Model(None, None, np.array([0.5, 0.5]), means, variances, 1e-6, "float64")
    encoded, _ = model.posteriors(model.pad(np.array([[1.0, 2.0], [1.0, 3.0]])))
    near = 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(dense(encoded, 2), [[near, 1 - near], [0.5, 0.5]], rtol=1e-12)


@pytest.mark.parametrize("repeated", (2, 8, 40))
def test_duplicate_columns_lose_only_components_next_to_the_gate(repeated, isa):
    rng = np.random.default_rng(repeated)
    means = np.repeat(rng.standard_normal((256, 80 // repeated)) * 30, repeated, axis=1)
    variances = np.repeat((30 * 10 ** rng.uniform(-0.3, 0.3, (256, 80 // repeated))) ** 2, repeated, axis=1)
    y = np.repeat(30 * rng.standard_normal((500, 80 // repeated)), repeated, axis=1).astype(np.float32)
    model = _kernels.Model(None, None, np.full(256, 1 / 256), means, variances, 1e-6, "float32")
    encoded, _ = model.posteriors(y)
    expected, _ = reference.posteriors(y.astype(np.float64), np.full(256, 1 / 256), means, variances)
    gamma = dense(encoded, 256)
    assert (expected[gamma == 0] <= 1e-4).all()
    np.testing.assert_allclose(gamma[gamma > 0], expected[gamma > 0], atol=1e-3)


@by_case
def test_pooled_sums_are_those_of_the_equation(case, dtype):
    """To 1e-5 of the sums in float32: at most 256 rows are added before they are merged in float64."""
    p = problem(*case)
    y, gamma, _ = forward(case)
    gamma = np.where(gamma < p.gate, 0, gamma)
    model = p.model(dtype)
    sums = model.pool(sparse(model, y, gamma))
    deviations = np.sqrt(p.variances)
    sizes = [(np.abs(y)[:, None] + np.abs(p.means)) / deviations] if len(y) * p.means.size < 1e6 else None
    for i, (got, expected) in enumerate(zip(sums, reference.moments(y, gamma, p.means, p.variances), strict=True)):
        assert got.dtype == np.float64
        assert distance(got, expected) <= {"float32": 1e-5, "float64": 1e-12}[dtype]
        if sizes and dtype == "float64":
            magnitude = np.einsum("lk,lk...->k...", gamma, sizes[0] ** i if i else np.ones_like(gamma))
            assert_close(got, expected, magnitude, 1e-13)


@by_case
def test_fused_encoding_equals_its_three_steps(case, dtype):
    """Rows to the bit. Sums to rounding: where the arrays prove short, encoding goes on in a new run of rows."""
    p = problem(*case)
    model = p.model(dtype)
    encoded, sums = model.encode(p.x, p.rows)
    y = model.project(p.x, p.rows)
    steps, nothing = model.posteriors(y)
    assert nothing is None
    assert_same_bits(encoded.y, y)
    for name in ("indptr", "index", "gamma"):
        assert_same_bits(getattr(encoded, name), getattr(steps, name))
    for got, expected in zip(sums, model.pool(steps), strict=True):
        assert distance(got, expected) <= {"float32": 1e-6, "float64": 1e-13}[dtype]


# ---- relevance -------------------------------------------------------------------------------------------------------

TARGETS = 3
LEVELS = np.array([1, 0, 0, 1, 0, 1], np.uint8)  # pyramid cells that the finest cell lies in


@cache
def shares(case):
    """Shares of every target, (targets, cells, 2KD), of random relevance over sums with a stabiliser of 100."""
    p = problem(*case)
    rng = np.random.default_rng(len(p.priors))
    r3 = rng.standard_normal((TARGETS, len(LEVELS), 2 * p.means.size))
    sums = 300 * rng.standard_normal(r3.shape)
    return reference.stabilised(r3, sums, np.abs(sums), 100.0)


def tables_of(model, p, shares):
    out = np.full((len(shares), len(p.priors), 3, model.stride), np.nan, model.dtype)
    for share, table in zip(shares, out, strict=True):
        model.tables(share.reshape(len(share), 2, *p.means.shape), LEVELS, table)
    return out


@cache
def backward(case):
    """Eqs. 5-6 of every target, (targets, n, D), and the gated posteriors they are of."""
    p = problem(*case)
    y, gamma, _ = forward(case)
    gamma = np.where(gamma < p.gate, 0, gamma)
    cells = np.tile(np.flatnonzero(LEVELS), (len(y), 1))
    one = [reference.relevance_per_dimension(y, gamma, cells, share, *p.mixture) for share in shares(case)]
    return np.array(one).reshape(TARGETS, *y.shape), gamma


def outputs(model, p):
    """Arrays for every kind of result, full of a number that no kernel writes."""
    n, dims = len(p.x), model.dims
    shapes = {"total": (), "pca": (dims,), "bins": (16,), "sift": (INPUTS,)}
    out = {
        name: np.full((TARGETS, n, *shape), -777.0, np.float64 if name == "total" else model.dtype)
        for name, shape in shapes.items()
    }
    return out | {"absorbed": np.full(TARGETS, 5.0), "bias": np.full(TARGETS, -3.0)}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("components", COMPONENTS)
@pytest.mark.parametrize("dims", DIMS)
def test_tables_are_the_terms_of_the_fisher_vector_as_polynomials(dims, components, dtype, isa):
    case = (0, dims, components)
    p = problem(*case)
    model = p.model(dtype)
    z = np.random.default_rng(0).normal(0, 2, (4, *p.means.shape))
    y = p.means + np.sqrt(p.variances) * z
    for share, table in zip(shares(case), tables_of(model, p, shares(case)), strict=True):
        merged = share[LEVELS == 1].sum(axis=0).reshape(2, *p.means.shape)
        by = 1 / np.sqrt(p.priors)[:, None]
        expected = merged[0] * by * z + merged[1] * by / np.sqrt(2) * (z**2 - 1)
        c = table.astype(np.float64)[:, :, :dims]
        parts = c.swapaxes(0, 1)[:, None] * y ** np.arange(3)[:, None, None, None]
        assert_close(parts.sum(axis=0), expected, np.abs(parts).sum(axis=0), {"float32": 2e-7, "float64": 1e-13}[dtype])
        assert not table[:, :, dims:].any()


@by_case
def test_relevance_of_the_projection_is_that_of_eqs_5_and_6(case, dtype):
    """To 1e-6 in float32 of the terms of the polynomials in y, which cancel; 1e-4 of the relevance of many rows."""
    p = problem(*case)
    expected, gamma = backward(case)
    model = p.model(dtype)
    encoded, tables, out = sparse(model, forward(case)[0], gamma), tables_of(model, p, shares(case)), outputs(model, p)
    model.relevance(p.x, p.rows, encoded, tables, 100.0, pca=out["pca"], total=out["total"])
    rows = np.arange(len(p.x)) if p.rows is None else p.rows
    y = np.abs(forward(case)[0])
    for t in range(TARGETS):
        c = np.tensordot(gamma, np.abs(tables[t, :, :, : model.dims].astype(np.float64)), 1)
        size = c[:, 0] + c[:, 1] * y + c[:, 2] * y**2
        unit = {"float32": 1e-6, "float64": 1e-13}[dtype]
        assert_close(out["pca"][t, rows], expected[t], size, unit)
        assert_close(out["total"][t, rows], expected[t].sum(axis=1), size.sum(axis=1), unit)
        if len(y) > 5:
            assert distance(out["pca"][t, rows], expected[t]) <= {"float32": 1e-4, "float64": 1e-11}[dtype]
    others = np.setdiff1d(np.arange(len(p.x)), rows)
    assert (out["pca"][:, others] == -777).all() and (out["total"][:, others] == -777).all()


BACK = [
    pytest.param(n, dims, kind, mean, treatment, epsilon, id=f"{n}-{dims}-{kind}-{mean}-{treatment}-{epsilon}")
    for i, (mean, treatment, epsilon, dims) in enumerate(
        product((False, True), ("none", "centered", "bias"), (0.0, 1.0, 100.0), (2, 5, 33, 80))
    )
    for n, kind in [((300, 97, 5, 1)[i % 4], ("uint8", "float32", "float64")[i % 3])]
]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n, dims, kind, mean, treatment, epsilon", BACK)
def test_relevance_of_descriptors_is_that_of_eq_1(n, dims, kind, mean, treatment, epsilon, dtype, isa):
    """Through the projection, given the kernel's own relevance per dimension.

    The error allowed grows with a denominator's condition, sum |z_ij| / (|z_j| + epsilon): a unit in the last place of
    z_j moves R_j / z_j by that much.
    """
    p = problem(n, dims, 16, kind, 1e-6, mean, n % 2 == 1)
    case = (n, dims, 16, kind, 1e-6, mean, n % 2 == 1)
    model = p.model(dtype)
    encoded, _ = model.encode(p.x, p.rows)
    out = outputs(model, p)
    model.relevance(p.x, p.rows, encoded, tables_of(model, p, shares(case)), epsilon, treatment, **out)
    rows = np.arange(len(p.x)) if p.rows is None else p.rows

    x = p.chosen.astype(np.float64)
    m = np.zeros(INPUTS) if p.mean is None else p.mean
    xhat = x - m if treatment == "centered" else x
    width = x + np.abs(m) if treatment == "centered" else x  # what cancels in xhat
    offset = -p.basis @ m if treatment == "bias" else np.zeros(dims)
    z = xhat @ p.basis.T + offset
    unit = {"float32": 1e-6, "float64": 1e-14}[dtype]
    condition = 1 + (width @ np.abs(p.basis).T + np.abs(offset)) / (np.abs(z) + epsilon)
    for t in range(TARGETS):
        r = out["pca"][t, rows].astype(np.float64)
        back = reference.back_project(r, x, p.basis, p.mean, epsilon, treatment)
        quotient = np.abs(r) / (np.abs(z) + epsilon) * condition
        size = width * (quotient @ np.abs(p.basis))
        assert_close(out["sift"][t, rows], back.sift, size, unit)
        bins = reference.spatial_bins(back.sift).reshape(n, 16)
        assert_close(out["bins"][t, rows], bins, reference.spatial_bins(size).reshape(n, 16), unit)
        assert abs(out["absorbed"][t] - 5 - back.absorbed.sum()) <= unit * (5 + epsilon * quotient.sum())
        assert abs(out["bias"][t] + 3 - back.mean.sum()) <= unit * (3 + (quotient @ np.abs(offset)).sum())
        if epsilon == 100 and dtype == "float32":
            assert distance(out["sift"][t, rows], back.sift) <= 1e-4
    others = np.setdiff1d(np.arange(len(p.x)), rows)
    assert (out["bins"][:, others] == -777).all() and (out["sift"][:, others] == -777).all()


@pytest.mark.parametrize("epsilon", (0.0, 100.0))
@pytest.mark.parametrize("treatment", ("none", "centered", "bias"))
def test_descriptors_relevance_is_kept_or_accounted_for(treatment, epsilon, isa):
    case = (97, 33, 16, "uint8", 1e-6, True)
    p = problem(*case)
    x = p.x.copy()
    x[::7] = 0  # zeroed descriptors: what nothing can take counts as absorbed
    model = p.model("float64")
    out = outputs(model, p)
    out["absorbed"][:], out["bias"][:] = 0, 0
    encoded, _ = model.encode(x)
    model.relevance(x, None, encoded, tables_of(model, p, shares(case)), epsilon, treatment, **out)
    for t in range(TARGETS):
        r = out["pca"][t]
        back = reference.back_project(r, x, p.basis, p.mean, epsilon, treatment)
        size = np.abs(r).sum() + np.abs(out["sift"][t]).sum() + abs(out["bias"][t])
        assert abs(out["total"][t].sum() - r.sum()) <= 1e-13 * size
        assert abs(out["bins"][t].sum() + out["absorbed"][t] + out["bias"][t] - r.sum()) <= 1e-12 * size
        np.testing.assert_allclose(out["sift"][t], back.sift, atol=1e-11 * np.abs(back.sift).max())
        assert (treatment == "centered") == out["bins"][t][::7].any()


def test_a_sum_of_zero_takes_the_positive_stabiliser_in_both_dtypes(isa):
    """sgn(0) = +1: z = 1 - 1 = 0, exactly, is stabilised to +epsilon, and passes its relevance on."""
    basis = np.zeros((1, INPUTS))
    basis[0, :2] = 1, -1
    x = np.zeros((1, INPUTS), np.uint8)
    x[0, :2] = 8
    for dtype, sign in product(TYPES, (1.0, -1.0)):
        model = _kernels.Model(sign * basis, None, np.ones(1), np.array([[3.0]]), np.ones((1, 1)), 0.0, dtype)
        encoded, _ = model.encode(x)
        table = np.zeros((1, 1, 3, model.stride), model.dtype)
        table[0, 0, 0, 0] = 50
        sift, absorbed = np.empty((1, 1, INPUTS), dtype), np.zeros(1)
        model.relevance(x, None, encoded, table, 100.0, sift=sift, absorbed=absorbed)
        assert sift[0, 0, :2].tolist() == [sign * 4.0, sign * -4.0]  # 8 * 50 / 100
        assert absorbed == 50
        model.relevance(x, None, encoded, table, 0.0, sift=sift, absorbed=absorbed)
        assert not sift.any() and absorbed == 100  # 0/0 := 0, and the ledger names it


def test_without_a_stabiliser_a_sum_of_rounding_error_passes_no_relevance(isa):
    """0.1 + 0.2 - 0.3 is 6e-17 in float64: no divisor."""
    basis = np.zeros((1, INPUTS))
    basis[0, :3] = 0.1, 0.2, -0.3
    x = np.zeros((1, INPUTS), np.uint8)
    x[0, :3] = 1
    for dtype in TYPES:
        model = _kernels.Model(basis, None, np.ones(1), np.array([[3.0]]), np.ones((1, 1)), 0.0, dtype)
        encoded, _ = model.encode(x)
        table = np.zeros((1, 1, 3, model.stride), model.dtype)
        table[0, 0, 0, 0] = 50
        sift, absorbed = np.empty((1, 1, INPUTS), dtype), np.zeros(1)
        model.relevance(x, None, encoded, table, 0.0, sift=sift, absorbed=absorbed)
        assert not sift.any() and absorbed == 50


def test_the_sign_of_a_denominator_is_that_of_its_sum_in_double(isa):
    """z = 8 - 8 (1 + 1e-9) is 0 in float32 but negative: its stabiliser is -100, and a jump of 200 hangs on it."""
    basis = np.zeros((1, INPUTS))
    basis[0, :2] = 1, -1 - 1e-9
    x = np.zeros((1, INPUTS), np.uint8)
    x[0, :2] = 8
    for dtype in TYPES:
        model = _kernels.Model(basis, None, np.ones(1), np.array([[3.0]]), np.ones((1, 1)), 0.0, dtype)
        encoded, _ = model.encode(x)
        table = np.zeros((1, 1, 3, model.stride), model.dtype)
        table[0, 0, 0, 0] = 50
        sift = np.empty((1, 1, INPUTS), dtype)
        model.relevance(x, None, encoded, table, 100.0, sift=sift)
        np.testing.assert_allclose(sift[0, 0, :2], [-4.0, 4.0], rtol=1e-6)


def test_one_target_alone_is_bit_identical_to_the_same_among_others(isa):
    case = (97, 80, 16, "uint8", 1e-6, True)
    p = problem(*case)
    model = p.model("float32")
    encoded, _ = model.encode(p.x)
    tables, together = tables_of(model, p, shares(case)), outputs(model, p)
    model.relevance(p.x, None, encoded, tables, 100.0, "centered", **together)
    for t in range(TARGETS):
        alone = {name: a[t : t + 1].copy() for name, a in outputs(model, p).items()}
        model.relevance(p.x, None, encoded, tables[t : t + 1], 100.0, "centered", **alone)
        for name, array in alone.items():
            assert_same_bits(array, together[name][t : t + 1])


@pytest.mark.parametrize("treatment", ("none", "centered", "bias"))
@pytest.mark.parametrize("with_mean", (False, True))
@pytest.mark.parametrize("dims, components", ((80, 256), (33, 16)))
@pytest.mark.parametrize("dtype", TYPES)
def test_descriptors_projected_again_give_the_bits_of_those_that_were_kept(
    dtype, dims, components, with_mean, treatment, isa
):
    case = (131, dims, components, "uint8", 1e-6, with_mean)
    p = problem(*case)
    model = p.model(dtype)
    rows = np.random.default_rng(1).permutation(131)[:101].astype(np.int64)
    encoded, _ = model.encode(p.x, rows)
    tables = tables_of(model, p, shares(case))
    kept, again = outputs(model, p), outputs(model, p)
    model.relevance(p.x, rows, encoded, tables, 100.0, treatment, **kept)
    model.relevance(p.x, rows, changed(encoded, y=None), tables, 100.0, treatment, **again)
    for name, array in kept.items():
        assert np.abs(array).max() > 0 or name == "bias"
        assert_same_bits(again[name], array)


def test_sums_of_descriptors_that_were_not_kept_are_refused(made):
    _, model, encoded, _ = made
    with pytest.raises(ValueError, match=r"encoded\.y must be there"):
        model.pool(changed(encoded, y=None))


def test_aligned_arrays_begin_with_a_cache_line():
    for shape, dtype in (((3, 5, 7), np.float32), ((2, 0), np.float64), ((1,), np.uint8)):
        array = _kernels.aligned(shape, dtype)
        assert array.shape == shape and array.dtype == dtype and array.flags.c_contiguous and array.flags.writeable
        assert array.size == 0 or array.ctypes.data % 64 == 0


# ---- bits and pieces -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims, components", ((80, 256), (33, 16), (5, 3)))
@pytest.mark.parametrize("dtype", TYPES)
def test_the_bits_of_a_row_do_not_depend_on_its_position_in_a_tile(dtype, dims, components, isa):
    case = (300, dims, components, "float32", 1e-6, True)
    p = problem(*case)
    model = p.model(dtype)
    whole, _ = model.encode(p.x)
    _, logs = model.posteriors(whole.y, loglik=True)
    tables, results = tables_of(model, p, shares(case)), outputs(model, p)
    results["absorbed"] = results["bias"] = None
    model.relevance(p.x, None, whole, tables, 100.0, "bias", **results)

    order = np.random.default_rng(0).permutation(300)
    edges = [0, 1, 3, 8, 14, 109, 205, 302]
    for begin, end in pairwise(edges):
        rows = order[begin:end].astype(np.int64)
        encoded, _ = model.encode(p.x, rows)
        assert_same_bits(encoded.y, whole.y[rows])
        for i, row in enumerate(rows):
            piece, same = slice(*encoded.indptr[i : i + 2]), slice(*whole.indptr[row : row + 2])
            assert_same_bits(encoded.index[piece], whole.index[same])
            assert_same_bits(encoded.gamma[piece], whole.gamma[same])
        assert_same_bits(model.posteriors(encoded.y, loglik=True)[1], logs[rows])
        pieces = outputs(model, p)
        pieces["absorbed"] = pieces["bias"] = None
        model.relevance(p.x, rows, encoded, tables, 100.0, "bias", **pieces)
        for name in ("total", "pca", "bins", "sift"):
            assert_same_bits(pieces[name][:, rows], results[name][:, rows])


@pytest.mark.parametrize("n, components", ((1, 256), (47, 256), (97, 256), (300, 256), (42, 41)))
@pytest.mark.parametrize("dtype", TYPES)
def test_rows_of_more_entries_than_were_expected_are_all_kept(dtype, n, components, isa):
    """Components so alike that every posterior survives, where room for 40 a row was made; 42 x 41 are one too many."""
    p = problem(n, 33, components, "uint8", 1e-6, True, True)
    means, variances = np.tile(p.means[:1], (components, 1)), np.tile(4 * p.variances[:1], (components, 1))
    priors = np.arange(1, components + 1) / np.arange(1, components + 1).sum()
    model = _kernels.Model(p.basis, p.mean, priors, means, variances, 1e-6, dtype)
    encoded, sums = model.encode(p.x, p.rows)
    resumed, logs = model.posteriors(encoded.y, loglik=True)
    y = reference.project(p.chosen, p.basis, p.mean)
    tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
    for part in (encoded, resumed):
        np.testing.assert_array_equal(part.indptr, components * np.arange(n + 1))
        np.testing.assert_array_equal(part.index.reshape(n, components), np.tile(np.arange(components), (n, 1)))
        np.testing.assert_allclose(part.gamma.reshape(n, components), np.tile(priors, (n, 1)), rtol=tolerance)
    np.testing.assert_allclose(logs, reference.posteriors(y, priors, means, variances)[1], rtol=tolerance)
    assert_close(encoded.y[:, :33], y, np.abs(p.chosen - p.mean) @ np.abs(p.basis).T, FIRST[dtype])
    expected = reference.moments(y, np.tile(priors, (n, 1)), means, variances)
    for got, want in zip(sums, expected, strict=True):
        assert distance(got, want) <= tolerance


@pytest.mark.parametrize("dtype", TYPES)
def test_instruction_sets_differ_by_rounding_alone(dtype):
    """Products are fused with sums in some and not in others: 2e-5 relative in the 2-norm in float32, 1e-12 in float64.

    float32 differs most in the posteriors, by 5e-5 absolute, hence in all that follows from them.
    """
    case = (300, 80, 256, "uint8", 1e-6, True)
    p, before, all_of = problem(*case), _kernels.isa(), {}
    try:
        for name in _kernels.isas():
            _kernels.select(name)
            model = p.model(dtype)
            encoded, sums = model.encode(p.x)
            out = outputs(model, p)
            model.relevance(p.x, None, encoded, tables_of(model, p, shares(case)), 100.0, "centered", **out)
            all_of[name] = {"gamma": dense(encoded, 256), "s1": sums[1], "s2": sums[2], **out}
    finally:
        _kernels.select(before)
    best = all_of.pop(_kernels.isas()[0])
    for results in all_of.values():
        assert np.abs(results["gamma"] - best["gamma"]).max() <= {"float32": 5e-5, "float64": 1e-12}[dtype]
        for key, array in results.items():
            assert distance(array, best[key].astype(np.float64)) <= {"float32": 2e-5, "float64": 1e-12}[dtype], key


def test_instruction_sets_are_chosen_by_name(isa):
    assert _kernels.isa() == isa
    with pytest.raises(ValueError, match="must be one of"):
        _kernels.select("v9")
    assert _kernels.isa() == isa


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bad", (np.nan, np.inf, -np.inf))
@pytest.mark.parametrize("components", (16, 256))
def test_rows_with_nan_affect_no_other_rows(bad, components, dtype, isa):
    case = (97, 33, components, "float32", 1e-6, True)
    p = problem(*case)
    model = p.model(dtype)
    clean, _ = model.encode(p.x)
    x = p.x.copy()
    spoilt = np.array([0, 5, 40, 95, 96])
    x[spoilt, 3] = bad
    fine = np.setdiff1d(np.arange(97), spoilt)
    with np.errstate(invalid="ignore"):
        encoded, sums = model.encode(x)
        out = outputs(model, p)
        model.relevance(x, None, encoded, tables_of(model, p, shares(case)), 0.0, **out)
    np.testing.assert_array_equal(dense(encoded, components)[fine], dense(clean, components)[fine])
    assert not dense(encoded, components)[spoilt].any()
    assert all(np.isfinite(s).all() for s in sums)
    assert all(np.isfinite(out[name][:, fine]).all() for name in ("total", "pca", "bins", "sift"))


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.fixture
def made():
    """A model, its descriptors and arguments of `relevance` that are in order."""
    p = problem(5, 5, 3)
    model = p.model("float32")
    encoded, _ = model.encode(p.x)
    return p, model, encoded, np.zeros((2, 3, 3, model.stride), np.float32)


@pytest.mark.parametrize(
    "spoil, error, words",
    (
        (lambda x: x[:, :127], ValueError, r"x must have shape \(any, 128\), got \(5, 127\)"),
        (lambda x: x[0], ValueError, "x must have shape"),
        (lambda x: x.astype(np.float16), TypeError, "x must be an array of uint8 or float32 or float64, got float16"),
        (lambda x: x.astype(">f4"), TypeError, "x must be an array of"),
        (lambda x: x.tolist(), TypeError, "got list"),
        (lambda x: np.asfortranarray(x), ValueError, "x must be C-contiguous"),
        (lambda x: np.repeat(x, 2, axis=0)[::2], ValueError, "x must be C-contiguous"),
    ),
)
def test_descriptors_of_the_wrong_shape_are_refused(made, spoil, error, words):
    p, model, encoded, tables = made
    x = spoil(p.x)
    for call in (
        lambda: model.project(x),
        lambda: model.encode(x),
        lambda: model.relevance(x, None, encoded, tables, 1.0),
    ):
        with pytest.raises(error, match=words):
            call()


@pytest.mark.parametrize(
    "rows, error, words",
    (
        (np.array([0, 5]), IndexError, r"rows must lie in 0..4, got 0..5"),
        (np.array([-1]), IndexError, r"rows must lie in 0..4, got -1..-1"),
        (np.array([0, 1], np.int32), TypeError, "rows must be an array of int64"),
        (np.array([[0, 1]]), ValueError, "rows must have shape"),
        (np.arange(5)[::2], ValueError, "rows must be C-contiguous"),
        ([0, 1], TypeError, "rows must be an array of int64, got list"),
    ),
)
def test_rows_out_of_range_or_form_are_refused(made, rows, error, words):
    p, model, encoded, tables = made
    for call in (
        lambda: model.project(p.x, rows),
        lambda: model.encode(p.x, rows),
        lambda: model.relevance(p.x, rows, encoded, tables, 1.0),
    ):
        with pytest.raises(error, match=words):
            call()


def changed(encoded, **parts):
    return _kernels.Encoded(*(parts.get(name, getattr(encoded, name)) for name in ("y", "indptr", "index", "gamma")))


@pytest.mark.parametrize(
    "change, error, words",
    (
        (lambda e: {"indptr": e.indptr + 1}, ValueError, "indptr must rise from 0"),
        (lambda e: {"indptr": np.r_[e.indptr[:-1], len(e.index) + 1]}, ValueError, "indptr must rise from 0"),
        (lambda e: {"indptr": e.indptr[[0, 2, 1, 3, 4, 5]]}, ValueError, "indptr must rise from 0"),
        (lambda e: {"indptr": e.indptr[:-1]}, ValueError, r"indptr must have shape \(6\), got \(5,\)"),
        (lambda e: {"indptr": e.indptr.astype(np.int32)}, TypeError, "indptr must be an array of int64"),
        (lambda e: {"index": np.full_like(e.index, 3)}, ValueError, "index must lie below 3, got 3"),
        (lambda e: {"index": e.index.astype(np.int64)}, TypeError, "index must be an array of uint16"),
        (lambda e: {"gamma": e.gamma[:-1]}, ValueError, "gamma must have shape"),
        (lambda e: {"gamma": e.gamma.astype(np.float64)}, TypeError, "gamma must be an array of float32"),
        (lambda e: {"y": e.y[:, :5]}, ValueError, "y must have shape"),
        (lambda e: {"y": e.y.astype(np.float64)}, TypeError, "y must be an array of float32"),
    ),
)
def test_inconsistent_encoded_rows_are_refused(made, change, error, words):
    p, model, encoded, tables = made
    foreign = changed(encoded, **change(encoded))
    with pytest.raises(error, match=words):
        model.pool(foreign)
    with pytest.raises(error, match=words):
        model.relevance(p.x, None, foreign, tables, 1.0)


@pytest.mark.parametrize(
    "change, error, words",
    (
        ({"tables": np.zeros((2, 3, 3, 5), np.float32)}, ValueError, "tables must have shape"),
        ({"tables": np.zeros((2, 3, 3, 16))}, TypeError, "tables must be an array of float32"),
        ({"rows": np.arange(4)}, ValueError, "encoded holds 5 rows, but rows selects 4"),
        ({"epsilon": -1.0}, ValueError, "."),
        ({"epsilon": np.nan}, ValueError, "."),
        ({"mean": "sideways"}, ValueError, "mean must be one of 'none', 'centered', 'bias', got 'sideways'"),
        ({"total": np.zeros((2, 4))}, ValueError, "total must have shape"),
        ({"total": np.zeros((2, 5), np.float32)}, TypeError, "total must be an array of float64"),
        ({"pca": np.zeros((2, 5, 16), np.float32)}, ValueError, "pca must have shape"),
        ({"bins": np.zeros((2, 5, 16))}, TypeError, "bins must be an array of float32"),
        ({"sift": np.zeros((2, 5, 128), np.float32, order="F")}, ValueError, "sift must be C-contiguous"),
        ({"absorbed": np.zeros(3)}, ValueError, "absorbed must have shape"),
        ({"bias": np.zeros(1)}, ValueError, "bias must have shape"),
    ),
)
def test_relevance_refuses_arrays_of_mismatched_shapes(made, change, error, words):
    p, model, encoded, tables = made
    arguments = {"x": p.x, "rows": None, "encoded": encoded, "tables": tables, "epsilon": 1.0} | change
    with pytest.raises(error, match=words):
        model.relevance(**arguments)


def frozen(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def test_read_only_inputs_are_accepted(isa):
    case = (97, 5, 3, "float32", 1e-6, True, True)
    p = problem(*case)
    model = p.model("float32")
    free, _ = model.encode(p.x, p.rows)
    fixed = Problem(*(frozen(a) if isinstance(a, np.ndarray) else a for a in p))
    locked = fixed.model("float32")
    encoded, _ = locked.encode(fixed.x, fixed.rows)
    encoded = _kernels.Encoded(*(frozen(a) for a in (encoded.y, encoded.indptr, encoded.index, encoded.gamma)))
    np.testing.assert_array_equal(locked.posteriors(encoded.y)[0].gamma, free.gamma)
    locked.pool(encoded)
    tables, got, expected = frozen(tables_of(locked, p, frozen(shares(case)))), outputs(model, p), outputs(model, p)
    locked.relevance(fixed.x, fixed.rows, encoded, tables, 100.0, **got)
    model.relevance(p.x, p.rows, free, tables, 100.0, **expected)
    for name in got:
        assert_same_bits(got[name], expected[name])


@pytest.mark.parametrize("name", ("total", "pca", "bins", "sift", "absorbed", "bias"))
def test_outputs_must_be_writable(made, name):
    p, model, encoded, _ = made
    tables = np.zeros((TARGETS, 3, 3, model.stride), np.float32)
    with pytest.raises(ValueError, match=f"{name} must be writable"):
        model.relevance(p.x, None, encoded, tables, 1.0, **{name: frozen(outputs(model, p)[name])})


def test_tables_refuse_mismatched_arrays(made):
    _, model, _, _ = made
    shares, member, out = np.zeros((2, 2, 3, 5)), np.ones(2, np.uint8), np.zeros((3, 3, 16), np.float32)
    for arguments, words in (
        ((shares[:, :, :2], member, out), "shares must have shape"),
        ((shares, member[:1], out), "member must have shape"),
        ((shares, member, out[:, :, :5]), "out must have shape"),
        ((shares, member, frozen(out)), "out must be writable"),
    ):
        with pytest.raises(ValueError, match=words):
            model.tables(*arguments)


@pytest.mark.parametrize(
    "change, words",
    (
        ({"basis": np.zeros(128)}, "basis must have shape"),
        ({"mean": np.zeros(5)}, r"mean must have shape \(128\), got \(5,\)"),
        ({"basis": np.zeros((4, 128))}, r"basis must have shape \(5, any\), got \(4, 128\)"),
        ({"priors": np.ones(2)}, r"priors must have shape \(3\), got \(2,\)"),
        ({"means": np.zeros(3)}, "means must have shape"),
        ({"variances": np.ones((3, 4))}, r"variances must have shape \(3, 5\), got \(3, 4\)"),
        ({"variances": np.zeros((3, 5))}, "variances must be positive"),
        ({"variances": np.full((3, 5), np.nan)}, "variances must be positive"),
        ({"priors": np.array([1.0, 0.0, 0.0])}, "priors must be positive"),
        ({"gate": -1.0}, "."),
        ({"gate": np.nan}, "."),
    ),
)
def test_a_model_with_mismatched_parts_is_refused(change, words):
    p = problem(5, 5, 3)
    parts = dict(zip(("basis", "mean", "priors", "means", "variances"), (p.basis, None, *p.mixture), strict=True))
    with pytest.raises(ValueError, match=words):
        _kernels.Model(**(parts | {"gate": 1e-6} | change))


def test_a_model_without_a_mixture_only_projects():
    p = problem(5, 5, 3)
    model = _kernels.Model(p.basis, None, None, None, None, dtype="float64")
    np.testing.assert_allclose(model.project(p.x)[:, :5], reference.project(p.x, p.basis), rtol=1e-12, atol=1e-10)
    with pytest.raises(ValueError):
        model.encode(p.x)
    with pytest.raises(ValueError):
        model.posteriors(model.project(p.x))


# ---- splats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("real", TYPES)
@pytest.mark.parametrize("clip", ("renormalise", "drop"))
@pytest.mark.parametrize("kernel", ("box", "box_sym", "tri"))
@pytest.mark.parametrize("size", (1, 3, 4, 7, 10))
@pytest.mark.parametrize("bins", (1, 4))
def test_splat_equals_adding_one_value_after_another(bins, size, kernel, clip, real, isa):
    """Supports overlap, and leave a small odd image on all sides; what is there already is added to."""
    height, width, step, first = 47, 39, 5, size // 4
    spacing = size if bins == 4 else 1
    rows, cols = ((length - 1 - first - spacing * (bins - 1)) // step + 1 for length in (height, width))
    rng = np.random.default_rng(size)
    values = rng.standard_normal((rows, cols, bins, bins)).astype(real)
    taps, lead = reference.splat_kernel(kernel, size)
    expected = rng.standard_normal((height, width))
    pixels, before, lost, magnitude = expected.copy(), expected.sum(), 0.0, np.abs(expected)
    for (r, c, iy, ix), value in np.ndenumerate(values.astype(np.float64)):
        y, x = first + step * r + spacing * iy + lead, first + step * c + spacing * ix + lead
        lost += reference.splat_one(expected, value, y, x, taps, clip)
        reference.splat_one(magnitude, abs(value), y, x, taps, clip)

    def weight(count, length):
        at = first + step * np.arange(count)[:, None] + spacing * np.arange(bins) + lead
        inside = [[taps[max(-a, 0) : max(length - a, 0)].sum() for a in row] for row in at]
        return 1 / (np.array(inside) if clip == "renormalise" else np.full(at.shape, taps.sum()))

    _kernels.splat(values, spacing, first, step, weight(rows, height), weight(cols, width), taps, lead, pixels)
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=1e-12 * magnitude.max())
    total = values.sum(dtype=np.float64)
    assert abs(pixels.sum() - before - total + lost) <= 1e-12 * magnitude.sum()
    assert (lost != 0) == (clip == "drop" and len(taps) > 1)


@pytest.mark.parametrize("lead", (-60, -17, -1, 0, 4, 60))
@pytest.mark.parametrize("taps", (np.ones(12), np.full(7, 0.5), np.arange(1.0, 10.0), np.ones(1)), ids=len)
def test_splats_kernel_may_lie_on_either_side_of_its_point_or_outside_the_image(taps, lead, isa):
    values = np.random.default_rng(0).standard_normal((4, 3, 2, 2))
    expected, pixels, ones = np.zeros((29, 23)), np.zeros((29, 23)), np.ones((4, 2))
    for (r, c, iy, ix), value in np.ndenumerate(values):
        for (v, along_y), (u, along_x) in product(enumerate(taps), repeat=2):
            y, x = 1 + 6 * r + 5 * iy + lead + v, 1 + 6 * c + 5 * ix + lead + u
            if 0 <= y < 29 and 0 <= x < 23:
                expected[y, x] += value * along_y * along_x
    _kernels.splat(values, 5, 1, 6, ones, ones[:3], taps, lead, pixels)
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=1e-12 * (1 + np.abs(values).sum() * taps.max() ** 2))


@pytest.mark.parametrize("clip", ("renormalise", "drop"))
@pytest.mark.parametrize("kernel", ("box", "box_sym", "tri"))
def test_splat_of_a_geometrys_scales_is_the_references(kernel, clip, isa):
    geometry = Geometry(41, 53, bin_sizes=(4, 7), step=6)
    relevance = np.random.default_rng(0).standard_normal((geometry.n, 4, 4))
    expected, _ = reference.splat_bins(relevance, geometry.frames, 41, 53, kernel, clip)
    pixels = np.zeros((41, 53))
    for scale in geometry.scales:
        taps, lead = reference.splat_kernel(kernel, scale.bin_size)
        weights = []
        for axis, length in ((0, 41), (1, 53)):
            at = scale.corners(axis)[:, None] + scale.bin_size * np.arange(4) + lead
            inside = np.array([[taps[max(-a, 0) : max(length - a, 0)].sum() for a in row] for row in at])
            weights.append(1 / (inside if clip == "renormalise" else np.full(at.shape, taps.sum())))
        values = relevance[scale.slice].reshape(scale.rows, scale.cols, 4, 4)
        _kernels.splat(values, scale.bin_size, scale.first, scale.step, *weights, taps, lead, pixels)
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=1e-12 * np.abs(relevance).sum())


def test_splat_refuses_points_outside_and_mismatched_arrays():
    values, ones, taps = np.zeros((2, 2, 4, 4)), np.ones((2, 4)), np.ones(3)
    good = [values, 3, 1, 4, ones, ones, taps, -1, np.zeros((15, 15))]
    _kernels.splat(*good)
    for at, bad, error, words in (
        (0, values.astype(np.float16), TypeError, "values must be an array of float32 or float64"),
        (0, np.zeros((2, 2, 4, 3)), ValueError, "values must have shape"),
        (1, 4, ValueError, "."),  # the last point leaves the image
        (2, -1, ValueError, "."),
        (3, 0, ValueError, "."),
        (4, np.ones((2, 3)), ValueError, "weight_y must have shape"),
        (5, np.ones((3, 4)), ValueError, "weight_x must have shape"),
        (6, np.ones(0), ValueError, "."),
        (8, np.zeros((14, 15)), ValueError, "."),
        (8, np.zeros((15, 15), np.float32), TypeError, "pixels must be an array of float64"),
        (8, frozen(np.zeros((15, 15))), ValueError, "pixels must be writable"),
    ):
        with pytest.raises(error, match=words):
            _kernels.splat(*good[:at], bad, *good[at + 1 :])


# ---- photographs -----------------------------------------------------------------------------------------------------

PYRAMID = ((2, 2), (3, 1), (1, 1))
CELLS = 8


class Photographs(NamedTuple):
    x: np.ndarray  # descriptors of one
    cells: np.ndarray
    model: reference.Model  # mixture of both, a random classifier
    gamma: np.ndarray  # not gated
    sums: np.ndarray
    relevance: dict  # epsilon -> (n, D)
    shares: dict  # epsilon -> (cells, 2KD)


@pytest.fixture(scope="module")
def photographs():
    """Descriptors of two photographs, a mixture of 64 components fitted to them, and Eqs. 3-6 of one in float64."""
    data = pytest.importorskip("skimage.data")
    transform = pytest.importorskip("skimage.transform")
    from fvlrp.fisher.gmm import DiagonalGMM
    from fvlrp.fisher.sift import DenseSIFT

    greys = [
        transform.resize(photo @ [0.2989, 0.587, 0.114] / 255, (150, 200), anti_aliasing=True).astype(np.float32)
        for photo in (data.astronaut(), data.chelsea())
    ]
    one, other = (DenseSIFT(step=4).extract(grey) for grey in greys)
    both = np.concatenate([one.values, other.values]).astype(np.float64)
    basis = np.linalg.svd(both - both.mean(axis=0), full_matrices=False)[2][:80]
    gmm = DiagonalGMM(64, max_iter=10, random_state=0).fit((both @ basis.T).astype(np.float32))
    mixture = gmm.weights_, gmm.means_, gmm.covariances_
    rng = np.random.default_rng(0)
    coef, intercept = rng.standard_normal(CELLS * 2 * 64 * 80), 0.3
    model = reference.Model(basis, None, *mixture, coef, intercept)

    y = reference.project(one.values, basis)
    free, _ = reference.posteriors(y, *mixture)
    gamma = np.where(free < model.gate, 0, free)
    cells = one.geometry.cells(PYRAMID)
    sums = reference.pooled(y, gamma, cells, CELLS, *mixture)
    r3, _ = reference.linear_relevance(reference.normalise(sums), coef, intercept, sums)
    counts = np.bincount(cells.ravel(), minlength=CELLS)
    relevance, shares = {}, {}
    for epsilon in (100.0, 1.0):
        shares[epsilon], _ = reference.shares(r3.reshape(CELLS, -1), sums, np.abs(sums), counts, epsilon)
        relevance[epsilon] = reference.relevance_per_dimension(y, gamma, cells, shares[epsilon], *mixture)
    return Photographs(one.values, cells, model, free, sums, relevance, shares)


@pytest.mark.parametrize("dtype", TYPES)
def test_float32_relevance_of_a_photograph_equals_float64_within_tolerance(photographs, dtype, isa):
    """Forward and backward in the kernels' own numbers, sums and all, on real descriptors.

    The sums S cancel, and relevance divides by them: a stabiliser of 100 tames that, one of 1 hardly.
    """
    p = photographs
    r, gate = p.model, p.model.gate
    model = _kernels.Model(r.basis, None, r.priors, r.means, r.variances, gate, dtype)
    finest, number = np.unique(p.cells, axis=0, return_inverse=True)
    by = 1 / np.sqrt(r.priors)[:, None]
    sums, parts = np.zeros((CELLS, 2, *r.means.shape)), []
    for i, cell in enumerate(finest):
        rows = np.flatnonzero(number.ravel() == i)
        encoded, (s0, s1, s2) = model.encode(p.x, rows)
        gamma = dense(encoded, len(r.priors))
        assert np.abs(gamma - np.where(gamma > 0, p.gamma[rows], 0)).max() <= {"float32": 1e-4, "float64": 1e-9}[dtype]
        sums[cell] += s1 * by, (s2 - s0[:, None]) * by / np.sqrt(2)
        parts.append((rows, encoded))
    assert distance(sums.reshape(CELLS, -1), p.sums) <= {"float32": 1e-5, "float64": 1e-11}[dtype]

    sums = sums.reshape(CELLS, -1)
    r3, _ = reference.linear_relevance(reference.normalise(sums), r.coef, r.intercept, sums)
    counts = np.bincount(p.cells.ravel(), minlength=CELLS)
    for epsilon, allowed in ((100.0, 5e-4), (1.0, 5e-3)):
        share, _ = reference.shares(r3.reshape(CELLS, -1), sums, np.abs(sums), counts, epsilon)
        pca = np.empty((1, *p.relevance[epsilon].shape), dtype)
        for cell, (rows, encoded) in zip(finest, parts, strict=True):
            member = np.zeros(CELLS, np.uint8)
            member[cell] = 1
            table = np.empty((1, len(r.priors), 3, model.stride), dtype)
            model.tables(share.reshape(CELLS, 2, *r.means.shape), member, table[0])
            model.relevance(p.x, rows, encoded, table, 100.0, pca=pca)
        assert distance(pca[0], p.relevance[epsilon]) <= (allowed if dtype == "float32" else 1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("treatment", ["none", "centered", "bias"])
@pytest.mark.parametrize(("n", "dims", "components", "targets"), [(130, 33, 7, 5), (300, 80, 256, 10)])
def test_many_targets_equal_each_one_alone(n, dims, components, targets, dtype, treatment, isa):
    # From three targets on, bins come from matrices that targets share; ten large tables go in several groups.
    rng = np.random.default_rng(5)
    basis = np.linalg.qr(rng.normal(size=(128, dims)))[0].T
    x = rng.integers(0, 200, (n, 128)).astype(np.uint8)
    mean = None if treatment == "none" else rng.uniform(0, 30, 128)
    y = (x - (0 if mean is None else mean)) @ basis.T
    model = _kernels.Model(
        basis,
        mean,
        np.full(components, 1 / components),
        y[:components],
        np.tile(y.var(0), (components, 1)),
        1e-6,
        dtype,
    )
    encoded, _ = model.encode(x)
    tables = rng.normal(size=(targets, components, 3, model.stride)).astype(dtype)
    together, absorbed, past = np.zeros((targets, n, 16), dtype), np.zeros(targets), np.zeros(targets)
    model.relevance(x, None, encoded, tables, 100.0, treatment, bins=together, absorbed=absorbed, bias=past)
    for t in range(targets):
        alone, one, other = np.zeros((1, n, 16), dtype), np.zeros(1), np.zeros(1)
        model.relevance(x, None, encoded, tables[t : t + 1], 100.0, treatment, bins=alone, absorbed=one, bias=other)
        size = np.abs(alone).max()
        assert np.abs(together[t] - alone[0]).max() <= (1e-5 if dtype == np.float32 else 1e-13) * size
        assert absorbed[t] == one[0] and past[t] == other[0]


@pytest.mark.parametrize(
    "cells, components, dims", ((8, 5, 7), (1, 1, 1), (3, 16, 24), (0, 4, 4), (2, 0, 3), (2, 3, 0))
)
def test_intra_normalisation_equals_its_twin(cells, components, dims, isa):
    random = np.random.default_rng(cells + dims)
    sums = random.standard_normal((cells, 2, components, dims)) * random.uniform(0, 1e4, (cells, 1, components, 1))
    sums[:, :, 1:2] = 0
    sums[:, :, 2:3] *= 1e-9  # its sum of |S| is below the least
    sums.flags.writeable = False
    got = _kernels.normalise_intra(sums, 1.0)
    if sums.size:
        expected = reference.normalise(sums.reshape(cells, -1), "intra", components)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-15)
    assert got.shape == (sums.size,)


def test_intra_normalisation_refuses_mismatched_arrays():
    for least in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError):
            _kernels.normalise_intra(np.zeros((1, 2, 1, 1)), least)
    with pytest.raises(ValueError, match=r"sums must have shape \(any, 2, any, any\)"):
        _kernels.normalise_intra(np.zeros((1, 3, 1, 1)), 1.0)
    with pytest.raises(TypeError, match="sums must be an array of float64"):
        _kernels.normalise_intra(np.zeros((1, 2, 1, 1), np.float32), 1.0)


def test_exchanged_sums_and_their_roots_equal_the_twin(isa):
    rng = np.random.default_rng(3)
    n, dims, components, cells = 70, 21, 6, 4
    priors, means = rng.dirichlet(np.ones(components)), rng.normal(size=(components, dims))
    variances = rng.uniform(0.5, 2, (components, dims))
    model = _kernels.Model(None, None, priors, means, variances, 1e-6, np.float32)
    exact = _kernels.Model(None, None, priors, means, variances, 1e-6, np.float64)
    group_cells = np.array([[0, 3], [1, 3], [2, 3]])
    sides, expected, rows = [], np.zeros((cells, 2, components, dims)), rng.permutation(n)
    group = rng.integers(2, size=n)
    for sign, order in ((-1, rows), (1, np.arange(n))):
        y = rng.normal(size=(n, dims)).astype(np.float32)
        found = model.posteriors(model.pad(y))[0]
        dense = np.zeros((n, components))
        dense[np.repeat(np.arange(n), np.diff(found.indptr)), found.index] = found.gamma
        of = dense[order], group_cells[group], cells, priors, means, variances
        expected += sign * reference.pooled(y[order].astype(np.float64), *of).reshape(expected.shape)
        sides.append((found.y, found.indptr[:-1].copy(), found.indptr[1:].copy(), found.index, found.gamma))
    sums, stale = np.zeros_like(expected), np.zeros((cells, components), np.uint8)
    exact.exchange(rows, group, group_cells, *sides, sums, stale)
    np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(stale.astype(bool), expected.any(axis=(1, 3)))
    coef = rng.normal(size=sums.shape).astype(np.float32)
    squares, sizes, products = np.full((3, cells, components), 7.0)
    _kernels.roots(sums, coef, stale, squares, sizes, products)
    left = ~expected.any(axis=(1, 3))  # not stale: kept
    for got, terms in ((squares, sums**2), (sizes, np.abs(sums)), (products, coef * reference.signed_sqrt(sums))):
        np.testing.assert_allclose(got, np.where(left, 7, terms.sum(axis=(1, 3))), rtol=1e-5, atol=1e-5)
    assert left.any() and not stale.any()
    for bad in (np.full(n, n), np.full(n, -1)):
        with pytest.raises(ValueError):
            exact.exchange(bad, group, group_cells, *sides, sums, stale)
        with pytest.raises(ValueError):
            exact.exchange(rows, bad, group_cells, *sides, sums, stale)


# ---- the whole vector ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("components", "dims"), [(1, 1), (3, 5), (7, 16), (33, 80)])
def test_merged_sums_are_those_over_all_descriptors_of_each_pyramid_cell(components, dims, isa):
    rng = np.random.default_rng(components)
    member = np.array([[1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]], np.uint8)  # of the last finest cell, none
    priors, variances = rng.dirichlet(np.ones(components)), rng.uniform(0.5, 2, (components, dims))
    means = rng.standard_normal((components, dims))
    parts, y, gamma, cells = [], [], [], []
    for finest, times, n in ((0, 1, 9), (1, 4, 1), (0, 1, 5), (2, 1, 7), (3, 2, 3)):
        of, posteriors = rng.standard_normal((n, dims)), rng.dirichlet(np.ones(components), n)
        z = (of[:, None] - means) / np.sqrt(variances)
        moments = posteriors.sum(axis=0), *(np.einsum("nk,nkd->kd", posteriors, z**power) for power in (1, 2))
        parts.append((finest, times, moments))
        for _ in range(times):
            y.append(of)
            gamma.append(posteriors)
            cells += [np.flatnonzero(member[finest])] * n
    sums, occupancy = _kernels.merge(parts, member, priors, dims)
    for cell in range(3):
        inside = np.array([cell in found for found in cells])
        arguments = np.concatenate(y)[inside], np.concatenate(gamma)[inside], np.zeros((inside.sum(), 1), int), 1
        expected = reference.pooled(*arguments, priors, means, variances).reshape(2, components, dims)
        np.testing.assert_allclose(sums[cell], expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
        np.testing.assert_allclose(occupancy[cell], arguments[1].sum(axis=0), rtol=1e-12)


def test_merge_refuses_moments_of_mismatched_shapes():
    member, priors, good = np.ones((2, 3), np.uint8), np.ones(4), (np.ones(4), np.ones((4, 5)), np.ones((4, 5)))
    assert _kernels.merge([], member, priors, 5)[0].shape == (3, 2, 4, 5)
    assert not _kernels.merge([], member, priors, 5)[0].any()
    for part, error, words in (
        ((2, 1, good), ValueError, "."),  # a finest cell that is not there
        ((-1, 1, good), ValueError, "."),
        ((0, 1, (np.ones(3), *good[1:])), ValueError, r"parts\[0\].s0 must have shape"),
        ((0, 1, (good[0], np.ones((4, 6)), good[2])), ValueError, r"parts\[0\].s1 must have shape"),
        ((0, 1, (*good[:2], np.ones((4, 5), np.float32))), TypeError, r"parts\[0\].s2 must be an array of float64"),
    ):
        with pytest.raises(error, match=words):
            _kernels.merge([part], member, priors, 5)


@pytest.mark.parametrize("length", (0, 1, 15, 33, 2048, 5000))
@pytest.mark.parametrize("n", (0, 1, 2, 3, 8, 21))
def test_scores_are_dot_products_for_any_number_of_rows(n, length, isa):
    rng = np.random.default_rng(length + n)
    coef, x = rng.standard_normal((n, length), np.float32), rng.standard_normal(length, np.float32)
    out, alone = np.full(n, np.nan), np.full(n, np.nan)
    _kernels.scores(coef, x, out)
    for i in range(n):
        _kernels.scores(coef[i : i + 1], x, alone[i : i + 1])
    sizes = np.abs(coef).astype(np.float64) @ np.abs(x).astype(np.float64)
    assert (np.abs(out - coef.astype(np.float64) @ x.astype(np.float64)) <= 1e-6 * sizes).all()
    assert np.array_equal(out, alone)
