"""Logarithms and powers whose last bit does not depend on the processor or the C library.

`math.log` and `**` call libm, whose result is off by up to about an ulp, differently from one machine to another. Here
decimal arithmetic (exact integers underneath) carries 40 digits, so the float64 returned is the nearest one.
"""

from decimal import Context, Decimal
from functools import lru_cache

_DIGITS = Context(prec=40)
TWO_PI = 6.283185307179586  # the float64 nearest to 2 pi


@lru_cache(maxsize=1024)
def log(x: float) -> float:
    """Return the natural logarithm of x > 0, correctly rounded."""
    return float(_DIGITS.ln(Decimal(x)))


@lru_cache(maxsize=1024)
def power(x: float, y: float) -> float:
    """Return x ** y for x > 0, correctly rounded."""
    return float(_DIGITS.exp(_DIGITS.multiply(Decimal(y), _DIGITS.ln(Decimal(x)))))


def power_of_two(exponent: float, numerator: int, denominator: int) -> float:
    """Return 2 ** (-exponent * numerator / denominator), correctly rounded."""
    x = _DIGITS.divide(_DIGITS.multiply(Decimal(exponent), numerator), denominator)
    return float(_DIGITS.exp(_DIGITS.multiply(-x, _DIGITS.ln(Decimal(2)))))
