"""The constants of the sine and cosine kernels are what their comments say, derived again with mpmath.

csrc/kernels/sincos_exact.h holds pi/2 cut into pieces and the coefficients of four polynomials; the essay at the top of
csrc/kernels/sincos.inc.h says how they were found. Here both are computed anew and compared bit by bit with the
literals in the header, and the properties that the reduction rests on are checked of the literals themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import mpmath as mp
import pytest

HEADER = Path(__file__).resolve().parents[1] / "csrc" / "kernels" / "sincos_exact.h"
HEX = r"-?0x1(?:\.[0-9a-f]*)?p[+-]?\d+"
PIECE_BITS = 22
FAST_PIECES, EXACT_PIECES = 4, 8
LARGEST_QUARTER = 2**31  # |angle| < 2^31 and pi/2 > 1, so quarter turns stay below it
DPS = 60


@pytest.fixture(scope="module")
def header() -> str:
    """Return the text of the header, with comments removed; fail clearly where the sources are not there."""
    if not HEADER.is_file():
        pytest.fail(f"{HEADER} is missing: this test reads the C sources, run it from a source tree")
    return re.sub(r"/\*.*?\*/", "", HEADER.read_text(encoding="utf-8"), flags=re.S)


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    """Compute with 60 decimal digits."""
    with mp.workdps(DPS):
        yield


def defined(header: str, name: str) -> float:
    found = re.findall(rf"^#define {name}\s+({HEX})\s*$", header, flags=re.M)
    assert len(found) == 1, f"{name} is defined {len(found)} times in {HEADER.name}"
    return float.fromhex(found[0])


def family(header: str, letter: str) -> list[float]:
    """Return PE_<letter>1, PE_<letter>2, .., from 0 on for S and C, and nothing left out."""
    names = re.findall(rf"^#define (PE_{letter}\d)\b", header, flags=re.M)
    assert names == [f"PE_{letter}{i + (letter not in 'SC')}" for i in range(len(names))]
    return [defined(header, name) for name in names]


def half_pi_array(header: str) -> list[float]:
    body = re.search(r"pe_half_pi\[8\]\s*=\s*\{(.*?)\}", header, flags=re.S)
    assert body is not None, f"pe_half_pi[8] is not in {HEADER.name}"
    return [float.fromhex(text) for text in re.findall(HEX, body[1])]


def cut_half_pi(count: int) -> list[mp.mpf]:
    """Pi/2 cut into multiples of 2^-21, 2^-43, 2^-65, .. of at most 22 bits each, rounded down."""
    rest, pieces = mp.pi / 2, []
    for i in range(count):
        unit = mp.ldexp(1, -(PIECE_BITS * (i + 1) - 1))
        pieces.append(mp.floor(rest / unit) * unit)
        rest -= pieces[-1]
    return pieces


def sine_part(z: mp.mpf) -> mp.mpf:
    """Return (sin(r)/r - 1) / r^2 for z = r^2."""
    if z < mp.mpf(10) ** -12:  # Maclaurin, where the quotient would cancel; the next term is below 1e-40
        return -mp.mpf(1) / 6 + z / 120 - z**2 / 5040
    return (mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z


def cosine_part(z: mp.mpf) -> mp.mpf:
    """Return (cos(r) - 1 + r^2/2) / r^4 for z = r^2."""
    if z < mp.mpf(10) ** -12:
        return mp.mpf(1) / 24 - z / 720 + z**2 / 40320
    return (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2


def fit(function: Callable[[mp.mpf], mp.mpf], terms: int) -> tuple[list[mp.mpf], mp.mpf]:
    """Return the coefficients of a Chebyshev fit in z on [0, (pi/4)^2 * 1.0001], lowest first, and its error."""
    end = (mp.pi / 4) ** 2 * mp.mpf("1.0001")
    coefficients, error = mp.chebyfit(function, [0, end], terms, error=True)
    return list(reversed(coefficients)), error


def assert_same_bits(found: list[float], wanted: list[float]) -> None:
    assert [x.hex() for x in found] == [float(x).hex() for x in wanted]


# letter of the constants, what they fit, how many, the error of the fit that sincos.inc.h states
FITS = [
    ("S", sine_part, 4, "3e-11"),
    ("C", cosine_part, 4, "2.4e-12"),
    ("L", sine_part, 7, "1.2e-20"),
    ("K", cosine_part, 6, "1.3e-18"),
]


def in_quarter_turns(letter: str, fitted: list[mp.mpf]) -> list[float]:
    """Return the coefficients of the powers of t, r = t*pi/2, of r*(1 + z*fit) and 1 + z*(-1/2 + z*fit), z = r^2."""
    leading, power = ([mp.mpf(1)], 1) if letter == "S" else ([mp.mpf(-1) / 2], 2)
    return [float(c * (mp.pi / 2) ** (power + 2 * i)) for i, c in enumerate(leading + fitted)]


@pytest.mark.parametrize(("letter", "function", "terms", "bound"), FITS)
def test_polynomials(header: str, letter: str, function: Callable[[mp.mpf], mp.mpf], terms: int, bound: str) -> None:
    """Every coefficient is the float64 nearest to that of the Chebyshev fit, whose error is what the essay says."""
    fitted, error = fit(function, terms)
    wanted = in_quarter_turns(letter, fitted) if letter in "SC" else [float(c) for c in fitted]
    assert_same_bits(family(header, letter), wanted)
    assert error < mp.mpf(bound)


def evaluate(coefficients: list[float], z: mp.mpf) -> mp.mpf:
    return mp.polyval([mp.mpf(c) for c in reversed(coefficients)], z)


def worst_errors(sine: list[float], cosine: list[float], points: int = 400) -> tuple[mp.mpf, mp.mpf]:
    """Largest relative errors of sin r and cos r for |r| <= pi/4, with the literals and no other rounding.

    Of r*(1 + z*sine(z)) and 1 + z*(-1/2 + z*cosine(z)), z = r^2; lists of five, S and C, are of quarter turns t:
    t*sine(t^2) and 1 + t^2*cosine(t^2).
    """
    radii = [mp.pi / 4 * i / points for i in range(1, points + 1)]
    if len(sine) == len(cosine) == 5:
        turns = [r / (mp.pi / 2) for r in radii]
        sines = [t * evaluate(sine, t**2) for t in turns]
        cosines = [1 + t**2 * evaluate(cosine, t**2) for t in turns]
    else:
        sines = [(1 + r**2 * evaluate(sine, r**2)) * r for r in radii]
        cosines = [1 - r**2 / 2 + r**4 * evaluate(cosine, r**2) for r in radii]
    by_sine = [x / mp.sin(r) - 1 for x, r in zip(sines, radii, strict=True)]
    by_cosine = [x / mp.cos(r) - 1 for x, r in zip(cosines, radii, strict=True)]
    return max(map(abs, by_sine)), max(map(abs, by_cosine))


def assert_polynomials_within(sine: list[float], cosine: list[float], sine_bits: int, cosine_bits: int) -> None:
    by_sine, by_cosine = worst_errors(sine, cosine)
    assert by_sine < mp.ldexp(1, -sine_bits)
    assert by_cosine < mp.ldexp(1, -cosine_bits)


def test_rounded_coefficients_are_good_enough(header: str) -> None:
    """Relative errors of the polynomials as they stand: half an ulp is 2^-25 for float32 results, 2^-54 for float64."""
    assert_polynomials_within(family(header, "S"), family(header, "C"), 35, 39)  # measured 2^-35.6 and 2^-39.5
    assert_polynomials_within(family(header, "L"), family(header, "K"), 57, 59)  # measured 2^-57.1 and 2^-59.4


def test_rows_turned_are_made_again_in_time(header: str) -> None:
    """What both ways may miss, in units of a float64's last place, is less than what is made again.

    A turn adds its own error (a float64 ulp each of cos and sin, below 1) and the roundings of two products and two
    sums, 2^-53 of the length that each two of them have at any scale; 256 rows are fifteen turns by a strip of sixteen,
    three by four and one more, from a first row that is as near as a turn and whose scaling is rounded too. The other
    way errs by its polynomials, and by roundings of which 2^-51 is more than enough.
    """
    own, rounded = mp.sqrt(2) * mp.ldexp(1, -53), mp.ldexp(1, -53)
    run = own + rounded + 19 * (own + 2 * rounded)
    assert run < mp.mpf(2) ** mp.mpf("-46.9")
    relative = run / defined(header, "PE_RUN_LEAST")
    alone = max(worst_errors(family(header, "S"), family(header, "C"))) + mp.ldexp(1, -51)
    assert (relative + alone) * mp.ldexp(1, 53) < defined(header, "PE_RUN_DOUBT")


def test_small_sines_are_as_good_as_their_cosines() -> None:
    """In the first eighth of a turn, away from zero, a sine's relative error stays below 2^-45.

    A turn makes s*c' + c*s' of terms of one sign: the larger of their relative errors, and two roundings. c and c' are
    above cos(3/4); the turn's own c' and s' are within an ulp.
    """
    ulp, cosine = mp.ldexp(1, -53), mp.mpf(2) ** mp.mpf("-46.9") / mp.cos(mp.mpf(3) / 4)
    sine = 2 * ulp
    for _ in range(19):
        sine = max(sine + 2 * ulp / mp.cos(mp.mpf(3) / 4), cosine + 2 * ulp) + 2 * ulp
    assert sine < mp.ldexp(1, -45)


def test_pieces_of_half_pi(header: str) -> None:
    """Three pieces of 22 bits and the float64 nearest to the rest; eight of 22 bits for the exact reduction."""
    pieces = cut_half_pi(EXACT_PIECES)
    rest = mp.pi / 2 - sum(pieces[: FAST_PIECES - 1])
    assert_same_bits(family(header, "P"), [float(x) for x in (*pieces[: FAST_PIECES - 1], rest)])
    assert_same_bits(half_pi_array(header), [float(x) for x in pieces])


def assert_products_exact(piece: float) -> None:
    """A piece times any quarter-turn count has at most 53 bits."""
    numerator, _ = piece.as_integer_ratio()
    assert numerator.bit_length() + (LARGEST_QUARTER - 1).bit_length() <= 53


def test_products_with_quarter_turns_are_exact(header: str) -> None:
    for piece in (*family(header, "P")[:3], *half_pi_array(header)):
        assert_products_exact(piece)


def assert_sums_to_half_pi(pieces: list[float], bound: mp.mpf) -> None:
    assert abs(mp.fsum(mp.mpf(x) for x in pieces) - mp.pi / 2) < bound


def test_pieces_sum_to_half_pi(header: str) -> None:
    """Four pieces miss pi/2 by less than 2^-122, eight by less than 2^-175, the unit of the last."""
    assert_sums_to_half_pi(family(header, "P"), mp.mpf(2) ** -122)
    assert_sums_to_half_pi(half_pi_array(header), mp.mpf(2) ** -175)


def test_two_over_pi_and_magic(header: str) -> None:
    """2/pi in two float64; 1.5 * 2^52 has unit 1 whatever number below 2^51 is added."""
    high = defined(header, "PE_TWO_OVER_PI")
    assert high == float(2 / mp.pi)
    assert defined(header, "PE_TWO_OVER_PI_LOW") == float(2 / mp.pi - mp.mpf(high))
    assert defined(header, "PE_MAGIC") == 1.5 * 2**52


def test_cancelled_turns_are_noticed_in_time(header: str) -> None:
    """Not mended is |t| >= 2^-31, whose error is below 2^-105 of the angle: at most 2^-42 of t. Smaller are seen."""
    least = mp.mpf(defined(header, "PE_LEAST_TURN"))
    assert mp.ldexp(2 * mp.mpf(LARGEST_QUARTER) / mp.pi, -105) / least < mp.ldexp(1, -42)
    sine = mp.sin(least * mp.pi / 2)
    assert sine * (1 + mp.ldexp(1, -23)) < defined(header, "PE_LEAST_SINE")


def test_cancellation_is_noticed_in_time(header: str) -> None:
    """Not mended is r^2 >= 2^-82 |k|; there the error of four pieces, 2^-106 of the angle, is at most 2^-48 of r."""
    cancelled = defined(header, "PE_CANCELLED")
    assert cancelled == 2.0**-82
    k = mp.mpf(LARGEST_QUARTER)
    assert mp.ldexp(k * mp.pi / 2, -106) / mp.sqrt(cancelled * k) < mp.ldexp(1, -48)
