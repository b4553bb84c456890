"""Tables are as exact as they say: float32 within 0.501 ulp of cos(position * inv_freq), float64 within 1 ulp.

The truth is mpmath's, of the exact product of the float64 position and the float64 inv_freq. Positions are random
(integers, 53-bit fractions, negative, up to an angle of 2^31) and adversarial: continued fractions of inv_freq * 2/pi
give the positions whose angles come nearest to a multiple of pi/2, where the reduction cancels most and the slow path
of csrc/kernels/sincos_exact.h has to run. An ulp is the distance between neighbouring floats at the true value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from mpmath.libmp import from_float, mpf_cos_sin, mpf_mul, mpf_sub, to_float

import posenc

FLOAT32_BOUND = 0.501  # measured: 0.5002; the polynomials allow 0.5003
FLOAT64_BOUND = 1.0  # measured: 0.77, below 2^24 and below 2^31 alike
LIMIT = 2.0**31  # |position| and |position * inv_freq| stay below
PRECISION = 130  # bits; mpmath's cos and sin are relative to their result, also where that is small
SLOW_PATH = 2.0**-60  # of the angle: r^2 < 2^-82 k, where sincos_exact.h mends, holds there for every k below 2^31
BASES = (1e2, 1e4, 5e5, 1e6, 1e7, 12345.678)
DTYPES = ((np.float32, 24, FLOAT32_BOUND), (np.float64, 53, FLOAT64_BOUND))

Truth = tuple[np.ndarray, np.ndarray]  # value = high + low; high is the nearest float64


def true_cos_sin(positions: np.ndarray, inv_freq: np.ndarray, scale: float = 1.0) -> tuple[Truth, Truth]:
    """Return scale * cos and scale * sin of the exact products."""
    p, w = np.broadcast_arrays(np.asarray(positions, np.float64), np.asarray(inv_freq, np.float64))
    values = np.empty((2, 2, p.size))
    factor = from_float(scale)
    for j, (a, b) in enumerate(zip(p.flat, w.flat, strict=True)):
        angle = mpf_mul(from_float(float(a)), from_float(float(b)))
        for i, value in enumerate(mpf_cos_sin(angle, PRECISION)):
            exact = mpf_mul(value, factor, PRECISION)
            values[i, 0, j] = high = to_float(exact, rnd="n")
            values[i, 1, j] = to_float(mpf_sub(exact, from_float(high), PRECISION), rnd="n")
    cos, sin = values.reshape(2, 2, *p.shape)
    return (cos[0], cos[1]), (sin[0], sin[1])


def ulp(truth: Truth, bits: int) -> np.ndarray:
    """Return the spacing of floats with that many bits at the true value."""
    high, low = truth
    mantissa, exponent = np.frexp(high)
    below_power = (np.abs(mantissa) == 0.5) & (high * low < 0)  # high was rounded up to a power of two
    return np.ldexp(1.0, np.maximum(exponent - below_power - bits, -149 if bits == 24 else -1074))


def worst_ulp(found: np.ndarray, truth: Truth, bits: int) -> float:
    high, low = truth
    return float(np.max(np.abs((found.astype(np.float64) - high) - low) / ulp(truth, bits), initial=0.0))


def assert_within(found: tuple[np.ndarray, np.ndarray], truth: tuple[Truth, Truth], bits: int, bound: float) -> None:
    for name, table, exact in zip(("cos", "sin"), found, truth, strict=True):
        worst = worst_ulp(table, exact, bits)
        assert worst <= bound, f"{name}: {worst} ulp"


def assert_tables_exact(positions: np.ndarray, inv_freq: np.ndarray) -> None:
    """Both dtypes, every position by every frequency."""
    positions, inv_freq = np.asarray(positions), np.asarray(inv_freq)
    truth = true_cos_sin(positions[:, None], inv_freq)
    for dtype, bits, bound in DTYPES:
        assert_within(posenc.rotary_table(positions, inv_freq, dtype=dtype), truth, bits, bound)


def random_positions(rng: np.random.Generator, limit: float, n: int) -> dict[str, np.ndarray]:
    """Integers uniform and uniform in the logarithm, fractions with all 53 bits, of either sign."""
    sign = rng.choice([-1.0, 1.0], n)
    return {
        "integers": rng.integers(-int(limit) + 1, int(limit), n),
        "small integers": np.floor(2 ** rng.uniform(0, math.log2(limit), n)).astype(np.int64),
        "fractions": rng.uniform(-limit, limit, n),
        "small fractions": sign * 2 ** rng.uniform(-40, math.log2(limit), n),
    }


@pytest.mark.parametrize("limit", [2**12, 2**24, 2**31])
@pytest.mark.parametrize("base", BASES)
def test_random_positions(base: float, limit: int) -> None:
    rng = np.random.default_rng([7, int(base), limit])
    inv_freq = posenc.Rope(128, layout="half", base=base).inv_freq
    for positions in random_positions(rng, limit, 25).values():
        assert_tables_exact(positions, inv_freq)


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_a_million_random_values(base: float) -> None:
    """340,000 cosines and sines a base, two million in all: `pytest -m slow tests/test_exactness.py` (12 s)."""
    rng = np.random.default_rng([19, int(base)])
    inv_freq = posenc.Rope(128, layout="half", base=base).inv_freq
    for limit in (2**17, 2**31):
        for positions in random_positions(rng, limit, 330).values():
            assert_tables_exact(positions, inv_freq)


def test_random_frequencies() -> None:
    """Frequencies from 2^-300 to 2^60, of either sign, and positions up to the limit of their angle; seed 11."""
    rng = np.random.default_rng(11)
    for exponent in (-300, -40, -8, -1, 0, 1, 7, 30, 60):
        inv_freq = rng.uniform(1, 2, 40) * rng.choice([-1.0, 1.0], 40) * 2.0**exponent
        largest = min(LIMIT, LIMIT / np.abs(inv_freq).max()) * 0.999
        assert_tables_exact(rng.uniform(-largest, largest, 20), inv_freq)
        assert_tables_exact(rng.uniform(-1, 1, 20) * min(largest, 8.0), inv_freq)


def convergents(x: mp.mpf, limit: int) -> Iterator[int]:
    """Denominators below limit of the continued fraction of x: the integers m that bring m * x nearest to integers."""
    before, now = 1, 0
    while True:
        whole = int(mp.floor(x))
        before, now = now, whole * now + before
        if now >= limit:
            return
        yield now
        if x == whole:
            return
        x = 1 / (x - whole)


def hard_positions(inv_freq: float, exponents: Iterable[int], limit: int) -> np.ndarray:
    """Positions m * 2^-e, m < limit, whose angle comes nearest to multiples of pi/2, and small multiples of them."""
    found = set()
    with mp.workprec(400):
        for e in exponents:
            for m in convergents(mp.mpf(inv_freq) * mp.ldexp(1, -e) * 2 / mp.pi, limit):
                multiples = (float(m * c) * 2.0**-e for c in (1, 2, 3, 5) if m * c < limit)
                found |= {p for p in multiples if p < LIMIT and 0.3 < p * inv_freq < LIMIT}
    return np.array(sorted(found))


def distances(positions: np.ndarray, inv_freq: float) -> np.ndarray:
    """How near each angle is to a multiple of pi/2, relative to the angle."""
    with mp.workprec(400):
        angles = [mp.mpf(float(p)) * mp.mpf(inv_freq) for p in positions]
        return np.array([float(abs(a - mp.nint(a * 2 / mp.pi) * mp.pi / 2) / a) for a in angles])


def assert_slow_path_needed(positions: np.ndarray, inv_freq: float) -> None:
    """Fast frequencies, whose angles get long, cancel best: 40 of 60 positions, down to 2^-75; slow ones: one."""
    near, fast = distances(positions, inv_freq), inv_freq > 2**-7
    assert np.count_nonzero(near < SLOW_PATH) >= (40 if fast else 1)
    assert near.min() < (2.0**-75 if fast else SLOW_PATH)


def hard_fractions(inv_freq: float) -> np.ndarray:
    """53-bit positions, those that cancel most."""
    positions = hard_positions(inv_freq, range(20, 56), 2**53)
    return positions[np.argsort(distances(positions, inv_freq))[:60]]


@pytest.mark.parametrize("base", [1e2, 1e4, 5e5, 1e7])
def test_hard_integer_positions(base: float) -> None:
    """Integers below 2^31, for each of 64 frequencies; some of them do come within 2^-60."""
    inv_freq = posenc.Rope(128, layout="half", base=base).inv_freq
    within = 0
    for w in inv_freq:
        positions = hard_positions(float(w), [0], 2**31)
        assert_tables_exact(positions.astype(np.int64), [w])
        within += np.count_nonzero(distances(positions, float(w)) < SLOW_PATH)
    assert within >= 4


@pytest.mark.parametrize("base", [1e2, 1e4, 5e5, 1e7])
def test_hard_fractional_positions(base: float) -> None:
    """m * 2^-e with m below 2^53 can cancel far more than an integer: the slow path's r is exact there too."""
    for w in posenc.Rope(128, layout="half", base=base).inv_freq[::9]:
        positions = hard_fractions(float(w))
        assert_slow_path_needed(positions, float(w))
        assert_tables_exact(np.concatenate([positions, -positions]), [w])


@pytest.mark.parametrize("inv_freq", [1.0, 0.25, 1 / 3, 7.7, 123.456, 1e6 / 3])
def test_hard_positions_of_given_frequencies(inv_freq: float) -> None:
    positions = hard_fractions(inv_freq)
    assert_slow_path_needed(positions, inv_freq)
    assert_tables_exact(positions, [inv_freq])
    assert_tables_exact(positions, [-inv_freq])


# pi/2 and its relatives rounded to float64, to 22 bits (the first piece of the reduction) and to 44 bits: k * pi/2 is
# what the position times these gives, until the rounding of the frequency itself shows
RELATIVES_OF_PI = [
    math.pi / 2,
    math.pi,
    2 * math.pi,
    math.pi / 4,
    float.fromhex("0x1.921fb0p+0"),
    float.fromhex("0x1.921fb54442cp+0"),
    -math.pi / 2,
]


@pytest.mark.parametrize("inv_freq", RELATIVES_OF_PI)
def test_frequencies_that_are_quarter_turns(inv_freq: float) -> None:
    """Nothing is left of the high part of the angle after the reduction; the low part is the result."""
    positions = [*range(-20, 21), *(2**e for e in range(5, 28)), *(3 * 2**e + 1 for e in range(5, 26))]
    assert_tables_exact(np.array(positions), [inv_freq])
    assert_tables_exact(np.array(positions) / 2, [inv_freq])


@pytest.mark.parametrize("base", [1e2, 1e4, 1e7])
def test_rows_in_a_run_have_the_bits_of_rows_alone(base: float) -> None:
    """Positions that count up, hard ones among them, against the same positions in another order; and the truth."""
    inv_freq = base ** (-np.arange(0, 38, 2) / 38)
    for hard in (0, *hard_positions(float(inv_freq[5]), range(8, 31), int(LIMIT))[-3:].astype(np.int64)):
        positions = np.arange(hard - 150, hard + 150)
        positions = positions[np.abs(positions) < LIMIT]
        shuffled = np.random.default_rng(0).permutation(len(positions))
        run, alone = posenc.rotary_table(positions, inv_freq), posenc.rotary_table(positions[shuffled], inv_freq)
        halves = [posenc.rotary_table(part, inv_freq) for part in (positions[:77], positions[77:])]
        for i, found in enumerate(run):
            np.testing.assert_array_equal(found[shuffled].view(np.int32), alone[i].view(np.int32))
            np.testing.assert_array_equal(found.view(np.int32), np.concatenate([h[i] for h in halves]).view(np.int32))
    assert_tables_exact(positions[130:170], inv_freq)


@pytest.mark.parametrize("pairs", [1, 2, 3, 5, 7, 8, 13, 40])
def test_hard_position_within_a_row(pairs: int) -> None:
    """A row is mended where it must be, whatever vectors it is made of: every other column stays exact."""
    ordinary = posenc.Rope(2 * pairs, layout="half").inv_freq * 0.7
    positions = hard_fractions(1.0)[:6]
    for column in range(pairs):
        inv_freq = ordinary.copy()
        inv_freq[column] = 1.0
        assert_tables_exact(positions[: 6 if pairs < 9 else 1], inv_freq)


def test_hard_positions_on_several_axes() -> None:
    """Rows that mix position axes go through the same slow path: each column has its own position."""
    hard, easy = hard_fractions(1.0)[:20], np.linspace(1, 1000, 20)
    inv_freq, axis_of_freq = np.array([1.0, 0.5, 1.0, 0.3, 1.0]), np.array([0, 1, 1, 0, 0])
    positions = np.stack([hard, easy])
    truth = true_cos_sin(positions[axis_of_freq].T, inv_freq)
    for dtype, bits, bound in DTYPES:
        tables = posenc.rotary_table(positions, inv_freq, axis_of_freq=axis_of_freq, dtype=dtype)
        assert_within(tables, truth, bits, bound)


SECTIONS = {  # pairs of an axis in stretches, long or short, in turns, and with some left over
    "thirds": [0] * 16 + [1] * 24 + [2] * 24,
    "halves": [0] * 20 + [1] * 20,
    "short": [0, 0, 1, 1, 1, 0, 2],
    "in turns": [0, 1, 2] * 20 + [0] * 4,
    "one that is not the first": [1] * 16,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sections", SECTIONS.values(), ids=list(SECTIONS))
def test_pairs_on_several_axes_have_the_bits_of_pairs_alone(sections: list[int], dtype: Any) -> None:
    """However rows of several axes are made, each pair is what a table of its own frequency and positions has."""
    axis_of_freq = np.array(sections)
    inv_freq = 10000.0 ** (-np.arange(len(sections)) / len(sections))
    counting = np.arange(300)
    for axes in (
        (counting, counting + 5, counting),
        (counting, counting // 7 + 2**20, counting % 7),
        (counting + 0.25, counting[::-1], counting / 3),
    ):
        positions = np.stack(axes[: max(sections) + 1])
        tables = posenc.rotary_table(positions, inv_freq, axis_of_freq=axis_of_freq, dtype=dtype)
        for i, axis in enumerate(sections):
            shuffled = np.random.default_rng(i).permutation(counting)
            alone = posenc.rotary_table(positions[axis, shuffled], inv_freq[i : i + 1], dtype=dtype)
            for table, column in zip(tables, alone, strict=True):
                assert table[shuffled, i].tobytes() == column[:, 0].tobytes()


def test_tiny_angles() -> None:
    """Cosine 1 and sine the angle, down to subnormal results, and zero at position 0; angles rounded once."""
    inv_freq = np.array([2.0**-e * 1.3 for e in (20, 60, 100, 126, 140, 148, 150, 200, 400)])
    assert_tables_exact(np.array([0.0, 1.0, -1.0, 0.7, 3.3, 1e5]), inv_freq)
    cos, sin = posenc.rotary_table([0], inv_freq)
    assert (cos == 1).all()
    assert (sin == 0).all()


@pytest.mark.parametrize("base", BASES)
def test_real_number_value(base: float) -> None:
    """cos(p * base**(-2i/d)) for the real power is met within half an ulp and inv_freq's rounding, p*inv_freq*2^-53."""
    rng = np.random.default_rng([13, int(base)])
    inv_freq = posenc.Rope(64, layout="half", base=base).inv_freq
    for limit in (2**12, 2**20, 2**31):
        positions = rng.integers(0, limit, 12)
        cos, sin = posenc.rotary_table(positions, inv_freq, dtype=np.float64)
        narrow = posenc.rotary_table(positions, inv_freq)
        for j, p in enumerate(positions):
            assert_real_value((cos[j], sin[j]), int(p), base, inv_freq, FLOAT64_BOUND * 2.0**-53)
            assert_real_value((narrow[0][j], narrow[1][j]), int(p), base, inv_freq, FLOAT32_BOUND * 2.0**-24)


def assert_real_value(
    row: tuple[np.ndarray, np.ndarray], position: int, base: float, inv_freq: np.ndarray, rounding: float
) -> None:
    """`rounding` is that of the table near 1; the rest is the rounding of inv_freq."""
    with mp.workdps(40):
        for i, w in enumerate(inv_freq):
            angle = position * mp.power(base, -mp.mpf(2 * i) / (2 * len(inv_freq)))
            allowed = position * float(w) * 2.0**-53 + rounding
            for value, exact in zip((row[0][i], row[1][i]), (mp.cos(angle), mp.sin(angle)), strict=True):
                assert abs(mp.mpf(float(value)) - exact) <= allowed


# YaRN's 0.1 * ln(s) + 1 for s = 32 and 40 (arXiv:2309.00071, section 3.4), LongRoPE's of Phi-3 128k, and others
SCALES = [1.3465735902799727, 1.3688879454113936, 1.1902380714238083, 0.1, -1.7, 1e-3, 3.0]


@pytest.mark.parametrize("scale", SCALES)
def test_scale_multiplies_before_the_rounding(scale: float) -> None:
    """A float32 table is scale * cos rounded once; a float32 product of rounded numbers would be off by up to 1 ulp."""
    rng = np.random.default_rng(17)
    positions = rng.integers(0, 2**20, 40)
    inv_freq = posenc.Rope(64, layout="half").inv_freq
    truth = true_cos_sin(positions[:, None], inv_freq, scale)
    assert_within(posenc.rotary_table(positions, inv_freq, scale=scale), truth, 24, FLOAT32_BOUND)
    wide = posenc.rotary_table(positions, inv_freq, scale=scale, dtype=np.float64)
    assert_within(wide, truth, 53, 2 * FLOAT64_BOUND)  # float64 has nothing wider to multiply in
    rounded_twice = posenc.rotary_table(positions, inv_freq)[0] * np.float32(scale)
    assert worst_ulp(rounded_twice, truth[0], 24) > 0.6
