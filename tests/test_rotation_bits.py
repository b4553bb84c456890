"""Given the same tables, a rotation has the bits of torch eager, and 16-bit types are rounded once from float32.

Every product and every sum is rounded by itself, in the order a*cos - b*sin, b*cos + a*sin. Two witnesses: a NumPy
computation in float32 with its own rounding to 16 bits, and torch's eager forms (doubled tables with rotate_half, the
interleaved stack, Meta's complex product). 16-bit types are tested exhaustively: every one of the 65,536 patterns as
first and as second member of a pair, at each of several angles.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

import posenc

if not os.environ.get("CI"):  # there, a missing package is a failure
    pytest.importorskip("torch", reason='needs torch: pip install ".[test]"')

import torch

Array = np.ndarray
LAYOUTS = ("half", "interleaved", "interleaved_to_half")
HALVES = ("float16", "bfloat16")
TORCH_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
WIDTHS = (2, 4, 6, 8, 14, 16, 18, 30, 32, 34, 62, 64, 66, 80, 96, 128, 130, 256)

# cos, sin: quarter turns, Pythagorean ones, small and subnormal sines, an attention factor above and far above 1
ANGLES = [
    (1.0, 0.0),
    (0.0, 1.0),
    (-1.0, 0.0),
    (0.0, -1.0),
    (0.6, 0.8),
    (-0.28, 0.96),
    (0.9999999, -4.4e-4),
    (0.70710677, 0.70710677),
    (1.0, 1e-40),
    (0.7853982, -1.0986123),
    (256.5, 77.25),
]


def table(angle: tuple[float, float], pairs: int) -> tuple[Array, Array]:
    cos, sin = (np.full((1, pairs), value, np.float32) for value in angle)
    return cos, sin


# ---- the witness in NumPy ----


def split(x: Array, layout: str) -> tuple[Array, Array]:
    middle = x.shape[-1] // 2
    return (x[..., :middle], x[..., middle:]) if layout == "half" else (x[..., 0::2], x[..., 1::2])


def join(first: Array, second: Array, layout: str) -> Array:
    if layout == "interleaved":
        return np.stack([first, second], -1).reshape(*first.shape[:-1], -1)
    return np.concatenate([first, second], -1)


def turned(x: Array, cos: Array, sin: Array, layout: str) -> Array:
    """Rotate float32 or float64, each operation rounded by itself; overflow and invalid results are part of it."""
    a, b = split(x, layout)
    with np.errstate(all="ignore"):
        return join(a * cos - b * sin, b * cos + a * sin, layout)


def widened(patterns: Array, kind: str) -> Array:
    """Return the float32 values of 16-bit patterns."""
    if kind == "float16":
        return patterns.view(np.float16).astype(np.float32)
    return (patterns.astype(np.uint32) << 16).view(np.float32)


def narrowed(x: Array, kind: str) -> Array:
    """Return the patterns of float32 values rounded to nearest, ties to even; a NaN gives a quiet NaN."""
    if kind == "float16":
        with np.errstate(all="ignore"):
            return x.astype(np.float16).view(np.uint16)
    bits = x.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16)


def as_kind(patterns: Array, kind: str) -> Array:
    return patterns.view(np.float16 if kind == "float16" else ml_dtypes.bfloat16)


def assert_same_patterns(found: Array, wanted: Array) -> None:
    """Bit for bit, except that a NaN may be any NaN. Zeros count with their sign."""
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    with np.errstate(invalid="ignore"):  # ml_dtypes widens a signalling NaN to look at it
        nan = np.isnan(found), np.isnan(wanted)
    assert np.array_equal(*nan), "a NaN came up or got lost"
    word = f"u{found.itemsize}"
    differ = (np.ascontiguousarray(found).view(word) != np.ascontiguousarray(wanted).view(word)) & ~nan[0]
    first = tuple(np.argwhere(differ)[0]) if differ.any() else None
    assert first is None, f"{differ.sum()} differ, the first at {first}: {found[first]!r}, not {wanted[first]!r}"


# ---- the witnesses in torch ----


def rotate_half(x: torch.Tensor) -> torch.Tensor:  # transformers, modeling_llama.py
    middle = x.shape[-1] // 2
    return torch.cat((-x[..., middle:], x[..., :middle]), dim=-1)


def eager_half(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    return x * torch.cat((cos, cos), -1) + rotate_half(x) * torch.cat((sin, sin), -1)


def eager_interleaved(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:  # modeling_cohere.py
    swapped = torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)
    return x * cos.repeat_interleave(2, -1) + swapped * sin.repeat_interleave(2, -1)


def eager_to_half(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:  # modeling_deepseek_v3.py
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


EAGER: dict[str, Callable[..., torch.Tensor]] = {
    "half": eager_half,
    "interleaved": eager_interleaved,
    "interleaved_to_half": eager_to_half,
}


def complex_product(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Meta's Llama: apply_rotary_emb, x (batch, seq, heads, dim), tables (seq, dim/2)."""
    freqs_cis = torch.complex(cos, sin)[None, :, None, :]
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * freqs_cis).flatten(-2)


def random_case(seed: int, shape: tuple[int, ...], dtype: type = np.float32) -> tuple[Array, Array, Array]:
    """x of magnitudes from 2^-20 to 2^20, and tables (seq, pairs) for x (.., seq, dim)."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(shape) * 2.0 ** rng.integers(-20, 21, shape)).astype(dtype)
    positions = rng.integers(0, 2**20, shape[-2])
    cos, sin = posenc.Rope(shape[-1], layout="half").table(positions, dtype=dtype)
    return x, cos, sin


# ---- float32 and float64 ----


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bits_of_numpy_and_torch_eager(layout: str, dtype: type) -> None:
    """Widths with and without tails; seeds are the widths."""
    for width in WIDTHS:
        x, cos, sin = random_case(width, (2, 3, 11, width), dtype)
        found = posenc.apply_rotary_emb(x, cos, sin, layout=layout)
        assert_same_patterns(found, turned(x, cos, sin, layout))
        theirs = EAGER[layout](*map(torch.from_numpy, (x, cos, sin)))
        assert_same_patterns(found, theirs.numpy())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bits_with_rows_made_in_the_call(layout: str) -> None:
    """A Rope turns as its own tables do."""
    for width in WIDTHS:
        x, _, _ = random_case(width, (2, 3, 11, width))
        rope = posenc.Rope(width, layout=layout, base=5e5)
        cos, sin = rope.table(np.arange(100, 111))
        assert_same_patterns(rope(x, offset=100), turned(x, cos, sin, layout))


@pytest.mark.parametrize("pairs", [8, 16, 24, 32, 40, 48, 64, 96, 128])
def test_bits_of_the_complex_product(pairs: int) -> None:
    """Whole vectors of complex64: any number of pairs that eight divides, so any rotary_dim that 16 divides."""
    x, cos, sin = random_case(pairs, (2, 5, 7, 2 * pairs))
    x = np.ascontiguousarray(x.transpose(0, 2, 1, 3))  # (batch, seq, heads, dim)
    found = posenc.apply_rotary_emb(x, cos, sin, layout="interleaved", seq_axis=-3)
    assert_same_patterns(found, complex_product(*map(torch.from_numpy, (x, cos, sin))).numpy())


def assert_fused(theirs: Array, product: Array, addend: Array) -> None:
    """Theirs is product + addend with the product exact, one of float32 by float32: rounded once, at the end."""
    exact = product + addend.astype(np.float64)
    assert np.all(np.abs(theirs - exact) <= 0.500001 * np.spacing(np.abs(theirs)).astype(np.float64))


def assert_complex_remainder(x: Array, cos: Array, sin: Array, found: Array, theirs: Array) -> None:
    """What differs lies behind the last whole vector, and is fma(a, cos, -(b*sin)) or fma(a, sin, b*cos)."""
    pairs = cos.shape[-1]
    shape = (*x.shape[:-1], pairs, 2)
    a, b = np.moveaxis(x.reshape(shape), -1, 0)
    c, s = (np.broadcast_to(t[None, :, None, :], a.shape) for t in (cos, sin))
    differ = found.reshape(shape) != theirs.reshape(shape)
    assert not differ[..., : pairs - pairs % 8, :].any()
    real, imaginary = np.moveaxis(differ, -1, 0)
    wide = a.astype(np.float64)
    assert_fused(theirs.reshape(shape)[..., 0][real], (wide * c)[real], -(b * s)[real])
    assert_fused(theirs.reshape(shape)[..., 1][imaginary], (wide * s)[imaginary], (b * c)[imaginary])


@pytest.mark.parametrize("pairs", [1, 2, 3, 5, 7, 9, 12, 15, 20, 31, 63])
def test_complex_product_of_other_widths(pairs: int) -> None:
    """Behind the last multiple of eight pairs torch's loop may fuse one product into the sum, where there is FMA."""
    x, cos, sin = random_case(pairs, (2, 5, 7, 2 * pairs))
    x = np.ascontiguousarray(x.transpose(0, 2, 1, 3))
    found = posenc.apply_rotary_emb(x, cos, sin, layout="interleaved", seq_axis=-3)
    theirs = complex_product(*map(torch.from_numpy, (x, cos, sin))).numpy()
    assert_complex_remainder(x, cos, sin, found, theirs)


def test_complex_product_of_a_small_magnitude() -> None:
    """The witness of `assert_fused` can say no: a value one unit further away is none of the two."""
    product, addend = np.array([1.0 + 2.0**-24]), np.array([2.0**-40], np.float32)
    assert_fused(np.array([1 + 2.0**-23], np.float32), product, addend)
    with pytest.raises(AssertionError):
        assert_fused(np.array([1 + 2.0**-22], np.float32), product, addend)


SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -2.5, 3e38, -3e38, 1e-38, 1e-40, -1e-45, 2**-149, 65504.0]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("angle", ANGLES)
def test_special_float32_values(layout: str, angle: tuple[float, float]) -> None:
    """Every pair of zeros of both signs, infinities, NaN, subnormals and the largest numbers."""
    values = np.array(SPECIAL, np.float32)
    a, b = (m.ravel() for m in np.meshgrid(values, values))
    x = join(a, b, "half" if layout == "half" else "interleaved")[None]
    cos, sin = table(angle, len(a))
    found = posenc.apply_rotary_emb(x, cos, sin, layout=layout)
    assert_same_patterns(found, turned(x, cos, sin, layout))
    assert_same_patterns(found, EAGER[layout](*map(torch.from_numpy, (x, cos, sin))).numpy())


# ---- 16 bits ----


def every_pattern(stir: int) -> Array:
    """(1024, 1, 128) in halves: each pattern once as first member of a pair, once as second; `stir` says with which."""
    first = np.arange(65536, dtype=np.uint32)
    second = (first * 40503 + 7919 * stir + 1) % 65536  # odd multiplier: a permutation
    return np.concatenate([first.reshape(1024, 1, 64), second.reshape(1024, 1, 64)], -1).astype(np.uint16)


def arranged(patterns: Array, layout: str) -> Array:
    """The same pairs as that layout reads them."""
    a, b = split(patterns, "half")
    return join(a, b, "half" if layout == "half" else "interleaved")


def test_every_pattern_is_there() -> None:
    first, second = split(every_pattern(3), "half")
    assert len(np.unique(first)) == len(np.unique(second)) == 65536


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_pattern_is_rounded_once(layout: str, kind: str) -> None:
    """Against float32 in NumPy, rounded by NumPy (float16) or by the bits (bfloat16)."""
    for stir, angle in enumerate(ANGLES):
        patterns = arranged(every_pattern(stir), layout)
        cos, sin = table(angle, 64)
        found = posenc.apply_rotary_emb(as_kind(patterns, kind), cos, sin, layout=layout)
        wanted = narrowed(turned(widened(patterns, kind), cos, sin, layout), kind)
        assert_same_patterns(found, as_kind(wanted, kind))


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_pattern_as_torch_rounds(layout: str, kind: str) -> None:
    """Against torch: widened with .float(), turned eagerly, narrowed with .to(dtype)."""
    for stir, angle in enumerate(ANGLES):
        patterns = arranged(every_pattern(stir + 100), layout)
        x = torch.from_numpy(patterns.view(np.int16)).view(TORCH_DTYPES[kind])
        cos, sin = map(torch.from_numpy, table(angle, 64))
        found = posenc.apply_rotary_emb(x, cos, sin, layout=layout)
        assert found.dtype == x.dtype
        wanted = EAGER[layout](x.float(), cos, sin).to(x.dtype)
        assert_same_patterns(*(as_kind(t.view(torch.int16).numpy(), kind) for t in (found, wanted)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_of_ml_dtypes_and_of_torch(layout: str) -> None:
    """The same bits, NaNs included: one kernel, two containers."""
    for stir, angle in enumerate(ANGLES):
        patterns = arranged(every_pattern(stir + 200), layout)
        cos, sin = table(angle, 64)
        ours = posenc.apply_rotary_emb(patterns.view(ml_dtypes.bfloat16), cos, sin, layout=layout)
        tensor = torch.from_numpy(patterns.view(np.int16)).view(torch.bfloat16)
        theirs = posenc.apply_rotary_emb(tensor, torch.from_numpy(cos), torch.from_numpy(sin), layout=layout)
        assert np.array_equal(ours.view(np.int16), theirs.view(torch.int16).numpy())


@pytest.mark.parametrize("kind", HALVES)
def test_nan_stays_nan_and_comes_from_nothing_else(kind: str) -> None:
    """At (0.6, 0.8) a pair gives NaN where a member is one, or where infinities meet."""
    patterns = every_pattern(5)
    cos, sin = table((0.6, 0.8), 64)
    found = posenc.apply_rotary_emb(as_kind(patterns, kind), cos, sin, layout="half").astype(np.float32)
    a, b = split(widened(patterns, kind), "half")
    none = ~np.isnan(a) & ~np.isnan(b)
    both_infinite = np.isinf(a) & np.isinf(b)
    for result, nan in zip(split(found, "half"), (both_infinite & (a == b), both_infinite & (a != b)), strict=True):
        assert np.array_equal(np.isnan(result), ~none | nan)


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("nan", [0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x7FC00000, 0x7F80FFFF])
def test_nan_of_the_tables_is_not_rounded_away(kind: str, nan: int) -> None:
    """Payloads of all ones would carry into the sign, payloads in low bits alone would vanish."""
    for pairs in (1, 7, 32):
        cos = np.full((1, pairs), nan, np.uint32).view(np.float32)
        x = as_kind(narrowed(np.ones((1, 2 * pairs), np.float32), kind), kind)
        found = posenc.apply_rotary_emb(x, cos, np.zeros((1, pairs), np.float32), layout="half")
        assert np.isnan(found.astype(np.float32)).all()


@pytest.mark.parametrize("kind", HALVES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tails_of_16_bits(layout: str, kind: str) -> None:
    """Widths with and without tails, an inner range at an odd offset, in place; random patterns, seeds are widths."""
    for width in WIDTHS:
        rng = np.random.default_rng(width)
        patterns = rng.integers(0, 65536, (3, 5, width + 3), dtype=np.uint16)
        rotated = patterns[..., 1 : 1 + width]
        _, cos, sin = random_case(width, (5, width))
        wanted = patterns.copy()
        wanted[..., 1 : 1 + width] = narrowed(turned(widened(rotated.copy(), kind), cos, sin, layout), kind)
        x = as_kind(patterns.copy(), kind)
        fresh = posenc.apply_rotary_emb(x, cos, sin, layout=layout, rotary_offset=1)
        posenc.apply_rotary_emb(x, cos, sin, layout=layout, rotary_offset=1, out=x)
        for found in (fresh, x):
            assert_same_patterns(found, as_kind(wanted, kind))
            for outside in (np.s_[..., :1], np.s_[..., 1 + width :]):  # NaNs pass through unchanged
                assert np.array_equal(found.view(np.uint16)[outside], patterns[outside])


@pytest.mark.parametrize(("kind", "step"), [("float16", 2.0**-10), ("bfloat16", 2.0**-7)])
def test_rounding_is_to_nearest_even(kind: str, step: float) -> None:
    """Literals: 1 turned by a cosine of 1 + half a step is a tie and stays 1 (even); 1 + 3/2 steps goes up to 1 + 2."""
    cos = np.array([[1 + step / 2, 1 + step / 2 + 2**-23, 1 + 3 * step / 2, 1 + 3 * step / 2 - 2**-23]], np.float32)
    x = as_kind(narrowed(np.array([[1, 1, 1, 1, 0, 0, 0, 0]], np.float32), kind), kind)
    found = posenc.apply_rotary_emb(x, cos, np.zeros((1, 4), np.float32), layout="half")
    assert found[0, :4].astype(np.float64).tolist() == [1, 1 + step, 1 + 2 * step, 1 + step]
