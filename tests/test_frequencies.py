"""inv_freq is the float64 nearest to base ** (-2i/rotary_dim), with no exception, against mpmath.

And with precision="float32" it is transformers' recipe, 1 / base ** (2i/rotary_dim), with every step rounded to float32
and rounded correctly. Nothing here comes from a library's pow, whose last bit differs between processors.
"""

from __future__ import annotations

from collections.abc import Iterable

import mpmath as mp
import numpy as np
import pytest

import posenc

DPS = 50  # far beyond the 2^-53 of a rounding; a value nearer to halfway than 1e-45 does not come up
REAL_BASES = (1e4, 5e5, 1e6, 1.5e5, 1.6e5, 1e7, 8e6, 2.5e5)  # Llama 2, 3; Qwen; gpt-oss; ModernBERT; Gemma 3 ..
ODD_BASES = (1e2, 123.456, 1e4 / 3, 10000.1, 98765.4321, 7654321.5, 1.0, 2.0, 0.5, 10.0)
EXTREME_BASES = (1e-3, 1e-300, 1e-12, 1e12, 1e38, 1e100, 1e300)
SOME_WIDTHS = (2, 4, 6, 10, 30, 64, 80, 96, 126, 128, 200, 256, 510, 512, 1022, 1024)


def nearest(value: mp.mpf, bits: int) -> float:
    """Return value rounded to that many bits, ties to even."""
    with mp.workprec(bits):
        return float(+value)


def nearest_float64(base: float, width: int) -> np.ndarray:
    with mp.workdps(DPS):
        log_base = mp.log(mp.mpf(base))
        return np.array([nearest(mp.exp(-2 * i * log_base / width), 53) for i in range(width // 2)])


def by_float32_recipe(base: float, width: int) -> np.ndarray:
    """1 / base ** (2i/width) as torch evaluates it on a float32 arange: base, quotient, power and reciprocal rounded.

    transformers 5.23, modeling_llama.py: inv_freq = 1.0 / (base ** (torch.arange(0, dim, 2, dtype=torch.float) / dim)).
    """
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    with mp.workdps(DPS):
        log_base = mp.log(mp.mpf(float(np.float32(base))))
        powers = [nearest(mp.exp(mp.mpf(float(e)) * log_base), 24) for e in exponents]
    return (np.float32(1) / np.array(powers, np.float32)).astype(np.float64)


def assert_none_wrong(found: np.ndarray, wanted: np.ndarray) -> None:
    """Bit for bit; a failure names the first frequency that is not."""
    assert found.shape == wanted.shape
    wrong = np.flatnonzero(found != wanted)
    i = int(wrong[0]) if len(wrong) else 0
    assert not len(wrong), f"{len(wrong)} of {len(found)}; inv_freq[{i}] is {found[i].hex()}, not {wanted[i].hex()}"


def made(base: float, head_dim: int, precision: str = "exact", **more: int) -> np.ndarray:
    return posenc.Rope(head_dim, layout="half", base=base, precision=precision, **more).inv_freq


def assert_bases_exact(bases: Iterable[float], widths: Iterable[int]) -> None:
    widths = tuple(widths)
    for base in bases:
        for width in widths:
            assert_none_wrong(made(base, width), nearest_float64(base, width))


@pytest.mark.parametrize("base", [1e4, *(pytest.param(b, marks=pytest.mark.broad) for b in (1.5e5, 5e5, 1e6))])
def test_every_width(base: float) -> None:
    """All even widths up to 512, and the larger ones in steps of 16."""
    assert_bases_exact([base], [*range(2, 513, 2), *range(528, 1025, 16)])


def test_real_bases() -> None:
    assert_bases_exact(REAL_BASES, SOME_WIDTHS)


def test_bases_that_no_model_has() -> None:
    assert_bases_exact(ODD_BASES, SOME_WIDTHS)


def test_extreme_bases() -> None:
    assert_bases_exact(EXTREME_BASES, SOME_WIDTHS)


def test_random_bases() -> None:
    """120 bases between 1e2 and 1e7, uniform in the logarithm, seed 1301."""
    rng = np.random.default_rng(1301)
    for base in 10 ** rng.uniform(2, 7, 120):
        assert_bases_exact([float(base)], [2 * int(rng.integers(1, 257))])


@pytest.mark.parametrize("head_dim", [1, 3, 21, 63, 127, 255])
def test_odd_head_dim_counts_the_appended_zero(head_dim: int) -> None:
    """The exponent's denominator is head_dim + 1."""
    assert_none_wrong(made(1e4, head_dim), nearest_float64(1e4, head_dim + 1))


def test_partial_width_is_the_denominator() -> None:
    """GPT-NeoX 20B rotates 24 of 96 elements (rotary_pct 0.25): exponents 2i/24, not 2i/96."""
    assert_none_wrong(made(1e4, 96, rotary_dim=24), nearest_float64(1e4, 24))
    assert_none_wrong(made(1e4, 192, rotary_dim=64, rotary_offset=128), nearest_float64(1e4, 64))


@pytest.mark.parametrize("base", [*REAL_BASES, 1e2, 123.5, 1.0, 0.5, 1e-3, 1e12, 1e30])
def test_float32_recipe(base: float) -> None:
    """Bases that float32 can hold, as those of models do; 1e-3, 1e12 and 1e30 are rounded to it first."""
    base = float(np.float32(base))
    for width in SOME_WIDTHS:
        assert_none_wrong(made(base, width, "float32"), by_float32_recipe(base, width))


@pytest.mark.parametrize("base", [10000.1, 150000.3, 1e7 + 0.5, 2.718281828])
def test_float32_recipe_rounds_its_base(base: float) -> None:
    """A base between two float32 numbers is rounded before it is raised to a power, as torch rounds a Python float."""
    for width in (64, 128, 256):
        assert_none_wrong(made(base, width, "float32"), by_float32_recipe(base, width))
