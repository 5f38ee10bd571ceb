"""Types of the C kernels' binding; fvlrp/_kernels.pyx documents what each function does."""

from collections.abc import Mapping, Sequence
from typing import Literal, Never, Protocol, TypeAlias, TypeVar, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

_Reals: TypeAlias = NDArray[np.float32 | np.float64]
_Doubles: TypeAlias = NDArray[np.float64]
_Floats: TypeAlias = NDArray[np.float32]
_Bytes: TypeAlias = NDArray[np.uint8]
_Described: TypeAlias = NDArray[np.uint8 | np.float32 | np.float64]
_Longs: TypeAlias = NDArray[np.int64]
_Moments: TypeAlias = tuple[_Doubles, _Doubles, _Doubles]
_Room: TypeAlias = tuple[_Reals, NDArray[np.uint16], _Reals]
# What `Encoded` holds, which must be float32, with the begin and end of each row in the place of indptr.
_Coded: TypeAlias = tuple[_Reals | None, _Longs, _Longs, NDArray[np.uint16], _Reals]
_Pair: TypeAlias = Sequence[int]
_Sign: TypeAlias = Literal[-1, 0, 1, 2]
_Array = TypeVar("_Array")
_Element = TypeVar("_Element", bound=np.float32 | np.float64 | np.int64 | np.int32 | np.uint16 | np.uint8 | np.bool)

class _Grid(Protocol):
    """What a geometry.Scale says."""

    @property
    def first(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def bin_size(self) -> int: ...

U8: np.dtype[np.uint8]
F32: np.dtype[np.float32]
F64: np.dtype[np.float64]
REALS: tuple[np.dtype[np.float32], np.dtype[np.float64]]
WINDOWS: Mapping[str, int]
ANGLES: Mapping[str, int]
MEANS: Mapping[str, int]
FUNCTIONS: Mapping[str, int]

def take(
    array: _Array, name: str, shape: Sequence[int | None], dtypes: Sequence[DTypeLike], writable: bool = False
) -> _Array: ...
def aligned(shape: int | Sequence[int], dtype: type[_Element] | np.dtype[_Element]) -> NDArray[_Element]: ...
def isa() -> str: ...
def isas() -> list[str]: ...
def select(name: str | None = None) -> None: ...

# ---- dense SIFT

def sift(
    grey: _Floats,
    grid: _Grid,
    values: _Described,
    zeroed: _Bytes,
    begin: int,
    end: int,
    *,
    sigma: float,
    window: str,
    window_size: float,
    contrast_threshold: float,
    angles: str,
) -> None: ...
def sift_pixels(
    grey: _Floats,
    grid: _Grid,
    relevance: _Reals,
    pixels: _Doubles,
    *,
    sigma: float,
    window: str,
    window_size: float,
    contrast_threshold: float,
    angles: str,
) -> float: ...

# ---- projection, mixture, Fisher vector, relevance

class Encoded:
    y: _Reals | None
    indptr: _Longs
    index: NDArray[np.uint16]
    gamma: _Reals
    def __init__(self, y: _Reals | None, indptr: _Longs, index: NDArray[np.uint16], gamma: _Reals) -> None: ...

@final
class Model:
    @property
    def dtype(self) -> np.dtype[np.float32] | np.dtype[np.float64]: ...
    @property
    def dims(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def components(self) -> int: ...
    def __init__(
        self,
        basis: _Doubles | None,
        mean: _Doubles | None,
        priors: _Doubles | None,
        means: _Doubles | None,
        variances: _Doubles | None,
        gate: float = 1e-6,
        dtype: DTypeLike = ...,
    ) -> None: ...
    def __reduce__(self) -> Never: ...
    def pad(self, y: _Described) -> _Reals: ...
    def project(self, x: _Described, rows: _Longs | None = None) -> _Reals: ...
    def posteriors(self, y: _Reals, loglik: bool = False) -> tuple[Encoded, _Doubles | None]: ...
    def encode(
        self, x: _Described, rows: _Longs | None = None, room: _Room | None = None
    ) -> tuple[Encoded, _Moments]: ...
    def capacity(self, n: int) -> int: ...
    def room(self, lengths: Sequence[int]) -> list[_Room]: ...
    def pool(self, encoded: Encoded) -> _Moments: ...
    def exchange(
        self,
        rows: _Longs,
        group: _Longs,
        group_cells: _Longs,
        before: _Coded,
        after: _Coded,
        sums: _Doubles,
        stale: _Bytes,
    ) -> None: ...
    def tables(self, shares: _Doubles, member: _Bytes, out: _Reals) -> None: ...
    def relevance(
        self,
        x: _Described,
        rows: _Longs | None,
        encoded: Encoded,
        tables: _Reals,
        epsilon: float,
        mean: str = "none",
        total: _Doubles | None = None,
        pca: _Reals | None = None,
        bins: _Reals | None = None,
        sift: _Reals | None = None,
        absorbed: _Doubles | None = None,
        bias: _Doubles | None = None,
    ) -> None: ...

# ---- the whole Fisher vector, splat

def merge(
    parts: Sequence[tuple[int, float, _Moments]], member: _Bytes, priors: _Doubles, dims: int
) -> tuple[_Doubles, _Doubles]: ...
def scores(coef: _Reals, x: _Reals, out: _Doubles) -> None: ...  # float32: TypeError otherwise
def normalise(sums: _Doubles) -> _Doubles: ...
def normalise_intra(sums: _Doubles, least: float) -> _Doubles: ...
def roots(
    sums: _Doubles, coef: _Floats, stale: _Bytes, squares: _Doubles, sizes: _Doubles, products: _Doubles
) -> None: ...
def shares(
    relevance: _Doubles,
    sums: _Doubles,
    counts: _Longs,
    epsilon: _Doubles,
    spread: _Doubles | None = None,
    out: _Doubles | None = None,
) -> tuple[_Doubles, tuple[float, float, float]]: ...
def splat(
    values: _Reals,
    spacing: int,
    first: int,
    step: int,
    weight_y: _Doubles,
    weight_x: _Doubles,
    taps: _Doubles,
    lead: int,
    pixels: _Doubles,
) -> None: ...

# ---- dense products, convolutions, relevance of dense layers and pools

def product(
    a: _Reals, b: _Reals, out: _Reals, bias: _Reals | None = None, add: bool = False, sign: _Sign = 0
) -> _Reals: ...
def convolve(
    a: _Reals,
    x: _Reals,
    kernel: _Pair,
    stride: _Pair,
    pads: Sequence[int],
    dilation: _Pair,
    rows: _Pair,
    cols: int,
    out: _Reals,
    bias: _Reals | None = None,
    add: bool = False,
    sign: _Sign = 0,
    bounds: tuple[float, float] | None = None,
) -> _Reals: ...
def winograd(
    a: _Reals,
    x: _Reals,
    pads: Sequence[int],
    rows: _Pair,
    cols: int,
    out: _Reals,
    bias: _Reals | None = None,
    add: bool = False,
    sign: _Sign = 0,
    other: _Reals | None = None,
    doubt: float = 0,
    whole: _Reals | None = None,
) -> _Reals: ...  # float32: TypeError otherwise
def grouped(
    a: _Reals,
    x: _Reals,
    kernel: _Pair,
    stride: _Pair,
    pads: Sequence[int],
    dilation: _Pair,
    rows: _Pair,
    cols: int,
    out: _Reals,
    bias: _Reals | None = None,
    add: bool = False,
    sign: _Sign = 0,
    other: _Reals | None = None,
    bounds: tuple[float, float] | None = None,
) -> _Reals: ...
def grouped_back(
    a: _Reals,
    share: _Reals,
    out: _Reals,
    kernel: _Pair,
    stride: _Pair,
    pads: Sequence[int],
    dilation: _Pair,
    rows: _Pair,
    sign: _Sign = 0,
    other: _Reals | None = None,
) -> _Reals: ...
def alive(r: _Reals) -> NDArray[np.bool]: ...
def grouped_alpha_beta(
    a: _Reals,
    x: _Reals,
    bias: _Reals | None,
    r: _Reals,
    z: _Reals,
    out: _Reals,
    kernel: _Pair,
    stride: _Pair,
    pads: Sequence[int],
    dilation: _Pair,
    alpha: float,
    beta: float,
    gamma: float = -1.0,
) -> tuple[_Doubles, _Doubles]: ...
def dense_sums(weight: _Reals, rows: _Longs, above: _Reals, below: _Reals | None = None) -> tuple[_Reals, _Reals]: ...
def dense_back(
    weight: _Reals, rows: _Longs, positive: _Reals, negative: _Reals, up: _Reals, down: _Reals | None = None
) -> None: ...
def dense_alpha_beta(
    weight: _Reals,
    rows: _Longs,
    above: _Reals,
    below: _Reals | None,
    bias: _Reals | None,
    r: _Reals,
    alpha: float,
    beta: float,
    up: _Reals,
    down: _Reals | None = None,
) -> tuple[_Doubles, _Doubles]: ...
def alpha_beta(
    r: _Reals,
    z: _Reals | None,
    positive: _Reals,
    alpha: float,
    beta: float,
    weak: float,
    negative: _Reals | None = None,
    gamma: float = -1.0,
    halves: bool = False,
) -> tuple[_Reals, _Reals | None, _Doubles, _Doubles, _Longs | None]: ...
def max_pool(x: _Reals, kernel: _Pair, stride: _Pair, pads: Sequence[int], dilation: _Pair, out: _Reals) -> None: ...
def max_pool_back(
    x: _Reals, y: _Reals, r: _Reals, kernel: _Pair, stride: _Pair, pads: Sequence[int], dilation: _Pair, out: _Reals
) -> None: ...
def join(terms: Sequence[_Reals], r: _Reals, alpha: float, beta: float, gamma: float = -1.0) -> list[_Reals]: ...

# ---- elementwise functions and normalisation of rows

def activate(function: str, x: _Reals, out: _Reals | None = None) -> _Reals: ...
def softmax(x: _Reals, out: _Reals | None = None) -> _Reals: ...
def layer_norm(
    x: _Reals,
    weight: _Reals | None,
    bias: _Reals | None,
    epsilon: float,
    out: _Reals | None = None,
    root_mean_square: bool = False,
) -> tuple[_Reals, _Doubles, _Doubles]: ...
