"""For the tests of other projects: checks that raise with a diagnosis, and hypothesis strategies.

The asserts are the checks of `posenc.checks`; with pytest they are fixtures too, of the same names. pytest and
hypothesis are imported by what needs them.

>>> from posenc.testing import assert_rope_matches
>>> rope = posenc.Rope(64, layout="half")
>>> assert_rope_matches(lambda x, positions: rope(x, positions=positions), rope)
>>> assert_rope_matches(lambda x, positions: rope(x, positions=positions + 1), rope)
Traceback (most recent call last):
    ...
AssertionError: rope matches: FAILS
...
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from posenc.rotary import Rope

#: assert -> the check that it is
CHECKS = {
    "assert_rope": "check_rope",
    "assert_rope_matches": "rope_matches",
    "assert_relative": "relative",
    "assert_isometry": "isometry",
    "assert_offset_equals_prefill": "offset_equals_prefill",
    "assert_packed_equals_separate": "packed_equals_separate",
    "assert_left_padding": "left_padding",
    "assert_attention_decays": "position_sanity_check",
    "assert_explained": "explain_mismatch",
}


def _asserting(name: str) -> Callable[..., None]:
    """Return a check as a function that raises AssertionError with its report; the check is loaded when called."""

    def run(*arguments: Any, **parameters: Any) -> None:
        __tracebackhide__ = True
        check = getattr(importlib.import_module("posenc.checks"), CHECKS[name])
        report = check(*arguments, **parameters)
        if not report.ok:
            raise AssertionError(str(report))

    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"""Raise AssertionError with the report unless `posenc.checks.{CHECKS[name]}` finds nothing wrong.

    Parameters
    ----------
    *arguments, **parameters
        Those of the check.

    Raises
    ------
    AssertionError
        Its text is the report: what failed, the largest difference, the first bad index, and the diagnosis.
    """
    return run


assert_rope = _asserting("assert_rope")
assert_rope_matches = _asserting("assert_rope_matches")
assert_relative = _asserting("assert_relative")
assert_isometry = _asserting("assert_isometry")
assert_offset_equals_prefill = _asserting("assert_offset_equals_prefill")
assert_packed_equals_separate = _asserting("assert_packed_equals_separate")
assert_left_padding = _asserting("assert_left_padding")
assert_attention_decays = _asserting("assert_attention_decays")
assert_explained = _asserting("assert_explained")


# ---- hypothesis strategies

LAYOUTS = ("half", "interleaved", "interleaved_to_half")
BASES = (1e2, 1e4, 5e5, 1e6, 1e7, 123.4)


def ropes(*, layout: str | None = None, max_pairs: int = 40, odd: bool = True) -> SearchStrategy[Rope]:
    """Return a hypothesis strategy of Ropes: every layout, partial ranges inside a head, odd heads, both precisions.

    Parameters
    ----------
    layout : str, optional
        Only this one.
    max_pairs : int
        The most pairs of a head.
    odd : bool
        Whether heads of odd length are among them.

    Returns
    -------
    hypothesis.strategies.SearchStrategy
    """
    from hypothesis import strategies as st

    from posenc.rotary import Rope

    max_pairs, odd = check.integer("max_pairs", max_pairs, 1), check.flag("odd", odd)
    if layout is not None:
        check.choice("layout", layout, LAYOUTS)

    @st.composite
    def draw_rope(draw: st.DrawFn) -> Rope:
        pairs, before, behind = draw(st.integers(1, max_pairs)), draw(st.integers(0, 5)), draw(st.integers(0, 9))
        is_odd = odd and draw(st.booleans())
        where: dict[str, Any] = {} if is_odd else {"rotary_dim": 2 * pairs, "rotary_offset": before}
        return Rope(
            2 * pairs - 1 if is_odd else before + 2 * pairs + behind,
            layout=layout or draw(st.sampled_from(LAYOUTS)),
            base=draw(st.sampled_from(BASES)),
            precision=draw(st.sampled_from(["exact", "float32"])),
            **where,
        )

    return draw_rope()


def position_ids(seq: int, *, most: int = 131071) -> SearchStrategy[Any]:
    """Return a hypothesis strategy of int64 positions of shape (seq,): counting from anywhere, packed, or at random.

    Parameters
    ----------
    seq : int
        Tokens.
    most : int
        The largest position.

    Returns
    -------
    hypothesis.strategies.SearchStrategy
    """
    from hypothesis import strategies as st

    seq, most = check.integer("seq", seq, 1), check.integer("most", most, 0)
    packed = st.integers(1, min(seq, most + 1)).map(lambda length: np.arange(seq, dtype=np.int64) % length)
    anywhere = st.lists(st.integers(0, most), min_size=seq, max_size=seq).map(lambda rows: np.array(rows, np.int64))
    if seq > most + 1:  # no room to count
        return st.one_of(packed, anywhere)
    counting = st.integers(0, most + 1 - seq).map(lambda start: np.arange(start, start + seq, dtype=np.int64))
    return st.one_of(counting, packed, anywhere)


def heads(rope: Any, *, seq: int, count: int = 2, dtype: Any = np.float32) -> SearchStrategy[Any]:
    """Return a hypothesis strategy of normal random input of shape (1, count, seq, head_dim).

    Parameters
    ----------
    rope : object with head_dim
    seq, count : int
        Tokens and heads.
    dtype : NumPy dtype

    Returns
    -------
    hypothesis.strategies.SearchStrategy
    """
    from hypothesis import strategies as st

    if not hasattr(rope, "head_dim"):
        raise TypeError(f"rope must have a head_dim, got {check.shown(rope)}")
    shape = (1, check.integer("count", count, 1), check.integer("seq", seq, 0), rope.head_dim)
    return st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).standard_normal(shape).astype(dtype))
