"""Every scaling by its formula in 40 digits, by numbers of its sources, by length, and as a value."""

from __future__ import annotations

import math
from typing import Any

import mpmath as mp
import numpy as np
import pytest

import posenc
from posenc import scaling
from test_scaling_transformers import RNG, SAME

# ---- the formulas, in 40 digits ----


def exact_series(width: int, base: Any) -> list[Any]:
    return [mp.power(base, -mp.mpf(2 * i) / width) for i in range(width // 2)]


def exact_ntk(width: int, base: float, growth: Any) -> list[Any]:
    return exact_series(width, mp.mpf(base) * mp.power(growth, mp.mpf(width) / (width - 2)))


def exact_llama3(width: int, base: float, s: float, lo: float, hi: float, length: int) -> list[Any]:
    def one(f: Any) -> Any:
        w = 2 * mp.pi / f
        if w < length / mp.mpf(hi):
            return f
        if w > length / mp.mpf(lo):
            return f / s
        t = (length / w - lo) / (mp.mpf(hi) - lo)
        return (1 - t) * f / s + t * f

    return [one(f) for f in exact_series(width, base)]


def exact_ramp(width: int, base: float, length: int, fast: float, slow: float, truncate: bool = True) -> list[Any]:
    low, high = (width * mp.log(length / (2 * mp.pi * n)) / (2 * mp.log(base)) for n in (fast, slow))
    if truncate:
        low, high = mp.floor(low), mp.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    return [min(max((i - low) / (high - low), 0), 1) for i in range(width // 2)]


def exact_yarn(width: int, base: float, s: float, length: int, truncate: bool = True) -> list[Any]:
    ramp = exact_ramp(width, base, length, 32, 1, truncate)
    return [t * f / s + (1 - t) * f for t, f in zip(ramp, exact_series(width, base), strict=True)]


def exact_by_parts(width: int, base: float, s: float, length: int) -> list[Any]:
    first, second = exact_ramp(width, base, length, 1.25, 0.75), exact_ramp(width, base, length, 16, 2)
    series, ntk = exact_series(width, base), exact_ntk(width, base, s)
    blend = [t * f / s + (1 - t) * g for t, f, g in zip(first, series, ntk, strict=True)]
    return [t * b + (1 - t) * f for t, b, f in zip(second, blend, series, strict=True)]


def exact_mixed(width: int, base: float, s: float, b: float) -> list[Any]:
    a = mp.log(s) / mp.power(mp.mpf(width) / 2, b)
    return [f / mp.exp(a * mp.power(i + 1, b)) for i, f in enumerate(exact_series(width, base))]


FORMULAS = [
    (scaling.Linear(4.0), lambda w, b: [f / 4 for f in exact_series(w, b)]),
    (scaling.NTK(8.0), lambda w, b: exact_ntk(w, b, 8)),
    (scaling.NTKByParts(8.0, 2048), lambda w, b: exact_by_parts(w, b, 8, 2048)),
    (scaling.Llama3(), lambda w, b: exact_llama3(w, b, 8, 1, 4, 8192)),
    (scaling.Yarn(16.0, 4096), lambda w, b: exact_yarn(w, b, 16, 4096)),
    (scaling.Yarn(16.0, 4096, truncate=False), lambda w, b: exact_yarn(w, b, 16, 4096, False)),
    (scaling.DiffusersNTK(8.0), lambda w, b: exact_series(w, 8 * b)),
    (scaling.VllmNTK(8.0), lambda w, b: [f / mp.power(8, mp.mpf(2) / w) for f in exact_series(w, 8 * b)]),
    (scaling.VllmNTK(8.0, 0.75), lambda w, b: exact_mixed(w, b, 8, 0.75)),
    (scaling.KerasDynamic(8.0), lambda w, b: [f / mp.power(8, mp.mpf(w) / (w - 2)) for f in exact_series(w, b)]),
]
BY_LENGTH = [
    (scaling.DynamicNTK(2.0, 2048), 9000, lambda w, b: exact_ntk(w, b, mp.mpf(2 * 9000) / 2048 - 1)),
    (scaling.DynamicNTK(2.0, 2048), 2048, exact_series),
    (scaling.DynamicLinear(2048), 9000, lambda w, b: [f * 2048 / 9000 for f in exact_series(w, b)]),
    (scaling.DynamicLinear(2048, 8.0), 9000, lambda w, b: [f / 8 for f in exact_series(w, b)]),
    (scaling.DynamicYarn(2048), 2048, exact_series),
    (scaling.DynamicYarn(2048), 9000, lambda w, b: exact_yarn(w, b, mp.mpf(9000) / 2048, 2048)),
    (scaling.DynamicYarn(2048, 8.0), 9000, lambda w, b: exact_yarn(w, b, 8, 2048)),
]


def assert_near(found: np.ndarray, wanted: list[Any], ulps: float) -> None:
    worst = max(abs((mp.mpf(float(f)) - w) / w) for f, w in zip(found, wanted, strict=True))
    assert worst < ulps * 2**-52


@pytest.mark.parametrize(("ours", "formula"), FORMULAS, ids=repr)
def test_formula(ours: Any, formula: Any) -> None:
    with mp.workdps(40):
        for width, base in ((64, 1e4), (128, 5e5)):
            assert_near(ours.frequencies(width, base)[0], formula(width, base), 8)


@pytest.mark.parametrize(("ours", "seq_len", "formula"), BY_LENGTH, ids=repr)
def test_formula_by_length(ours: Any, seq_len: int, formula: Any) -> None:
    with mp.workdps(40):
        for width, base in ((64, 1e4), (128, 5e5)):
            assert_near(ours.frequencies(width, base, seq_len)[0], formula(width, base), 8)


def test_ntk_keeps_the_first_and_divides_the_last() -> None:
    plain, scaled = (posenc.Rope(128, layout="half", scaling=s).inv_freq for s in (None, scaling.NTK(8.0)))
    assert scaled[0] == plain[0]
    assert plain[-1] / scaled[-1] == pytest.approx(8.0, rel=1e-14)


def test_vllm_ntk_changes_the_first() -> None:
    """0.968 at factor 8 and width 128: 8 ** (-2/128)."""
    assert scaling.VllmNTK(8.0).frequencies(128, 1e4)[0][0] == pytest.approx(0.96803, abs=1e-5)


# ---- attention factors ----


@pytest.mark.parametrize(
    ("rule", "mscale", "mscale_all_dim", "wanted"),
    [
        ("transformers", 0.707, 0.0, 1.3465735902799727),  # reads neither: 0.1 ln 32 + 1
        ("deepseek", 0.707, 0.0, 1.2450275283279407),  # 0.0707 ln 32 + 1
        ("transformers", 1.0, 1.0, 1.0),  # DeepSeek-V3
        ("deepseek", 1.0, 1.0, 1.0),
        ("deepseek", None, None, 1.3465735902799727),
        ("ggml", None, None, 1.3465735902799727),
        ("telechat3", None, None, 1.2426015131959809),  # 0.07 ln 32 + 1
    ],
)
def test_mscale_rules(rule: str, mscale: float | None, mscale_all_dim: float | None, wanted: float) -> None:
    yarn = scaling.Yarn(32.0, 4096, mscale=mscale, mscale_all_dim=mscale_all_dim, mscale_rule=rule)
    assert yarn.attention() == pytest.approx(wanted, rel=1e-14)


def test_attn_factor_multiplies_and_attention_factor_replaces() -> None:
    assert scaling.Yarn(32.0, 4096, attn_factor=2.0).attention() == pytest.approx(2 * 1.3465735902799727, rel=1e-15)
    assert scaling.Yarn(32.0, 4096, attention_factor=2.0).attention() == 2.0


def test_longrope_attention() -> None:
    """sqrt(1 + ln 32 / ln 4096), the scaling factor that Phi-3-mini-128k's own code computes."""
    lists = ((1.0,) * 4, (2.0,) * 4, 4096)
    assert scaling.LongRope(*lists, factor=32.0).attention(long=True) == pytest.approx(math.sqrt(1 + 5 / 12), rel=1e-15)
    assert scaling.LongRope(*lists, factor=1.0).attention(long=True) == 1.0
    phi3_small = scaling.LongRope(*lists, short_mscale=1.1, long_mscale=1.3)
    assert (phi3_small.attention(long=False), phi3_small.attention(long=True)) == (1.1, 1.3)


# ---- length ----

LENGTHS = [s for s, _, _ in BY_LENGTH] + [scaling.LongRope((1.0,) * 32, (4.0,) * 32, 2048, factor=8.0)]


@pytest.mark.parametrize("ours", LENGTHS, ids=repr)
def test_a_long_call_never_changes_a_short_one(ours: Any) -> None:
    """Short, long, short again, on one object: the bits of a fresh one."""
    rope = posenc.Rope(64, layout="half", scaling=ours)
    q = RNG.standard_normal((1, 2, 40, 64)).astype(np.float32)
    for positions in (np.arange(40), np.arange(8960, 9000), np.arange(40), 2049 - np.arange(40), np.arange(40)):
        fresh = posenc.Rope(64, layout="half", scaling=ours)(q, positions=positions)
        again = rope(q, positions=positions)
        assert np.array_equal(again, fresh)
        assert np.array_equal(again, rope.at(int(positions.max()) + 1)(q, positions=positions))


@pytest.mark.parametrize("ours", LENGTHS[:1] + LENGTHS[2:3] + LENGTHS[-1:], ids=repr)
def test_seq_len_decides(ours: Any) -> None:
    rope = posenc.Rope(64, layout="half", scaling=ours)
    q = RNG.standard_normal((1, 2, 40, 64)).astype(np.float32)
    long = rope(q, seq_len=9000)
    assert np.array_equal(long, rope.at(9000)(q))
    assert not np.array_equal(long, rope(q))


def test_longrope_switch() -> None:
    short, long = (1.0,) * 4, (4.0,) * 4
    for switch, seq_len, divisor in (("length", 10, 1), ("length", 11, 4), ("short", 11, 1), ("long", 1, 4)):
        ours = scaling.LongRope(short, long, 10, factor=2.0, switch=switch)
        assert ours.frequencies(8, 1e4, seq_len)[0][0] == 1 / divisor
        assert ours.depends_on_length == (switch == "length")


# ---- as values ----

EVERY = [s for s, _ in SAME] + [s for s, _ in FORMULAS] + LENGTHS
EVERY += [scaling.Periods((1.0, 2.0)), scaling.Divisors((1.0, 2.0)), scaling.InverseFrequencies((1.0, -0.5), 1.5)]


@pytest.mark.parametrize("ours", EVERY, ids=repr)
def test_values(ours: Any) -> None:
    assert isinstance(ours, scaling.Scaling)
    assert eval(repr(ours), vars(scaling)) == ours
    assert hash(eval(repr(ours), vars(scaling))) == hash(ours)
    with pytest.raises(AttributeError):
        ours.factor = 3.0


def test_given_frequencies() -> None:
    assert scaling.Periods((1.0, 4.0, math.inf)).frequencies(6, 1e4)[0].tolist() == [1.0, 0.25, 0.0]
    assert scaling.Divisors([1, 2]).frequencies(4, 1e4)[0].tolist() == [1.0, 0.005]
    inverse = scaling.InverseFrequencies(np.array([1.0, -0.5]), attention_factor=2)
    assert (inverse.frequencies(4, 1e4)[0].tolist(), inverse.frequencies(4, 1e4)[1]) == ([1.0, -0.5], 2.0)


def test_proportional_keeps_the_exponent_of_the_whole_width() -> None:
    """Gemma 4: a quarter of the pairs of a head of 512 turn, with exponents over 512."""
    inv_freq, factor = scaling.Proportional(0.25).frequencies(512, 1e6)
    plain = posenc.Rope(512, layout="half", base=1e6).inv_freq
    assert np.array_equal(inv_freq[:64], plain[:64])
    assert not inv_freq[64:].any()
    assert factor == 1.0


# ---- names and lengths ----


def test_names() -> None:
    assert scaling.by_name("deepseek:yarn", 32.0, 4096) == scaling.Yarn(32.0, 4096, mscale_rule="deepseek")
    assert scaling.by_name("vllm:ntk", factor=8.0) != scaling.by_name("ntk", factor=8.0)
    assert {type(s).__name__ for s in EVERY} <= set(scaling.__all__)
    assert not set(scaling.NAMES) & set(scaling.REFUSED)
    with pytest.raises(ValueError, match=r"scaling must be one of 'linear', .*, got 'ntk-aware'"):
        scaling.by_name("ntk-aware")


@pytest.mark.parametrize("ours", LENGTHS, ids=repr)
def test_effective_length(ours: Any) -> None:
    """The frequencies of a length are those of its effective one; and short lengths share one."""
    assert isinstance(ours, scaling.LengthScaling)
    for seq_len in (1, 100, 2047, 2048, 2049, 9000, 16384, 16385, 10**6):
        wanted, factor = ours.frequencies(64, 1e4, seq_len)
        found, same_factor = ours.frequencies(64, 1e4, ours.effective_length(seq_len))
        assert np.array_equal(found, wanted)
        assert factor == same_factor
    assert ours.effective_length(1) == ours.effective_length(2048)


def test_a_length_scaling_needs_an_effective_length() -> None:
    class Half:
        depends_on_length = True

        def frequencies(self, *_: Any) -> tuple[np.ndarray, float]:
            return np.ones(4), 1.0

    with pytest.raises(TypeError, match="scaling must be None or a scaling of "):
        posenc.Rope(8, layout="half", scaling=Half())


def test_llama3_step_at_the_boundary() -> None:
    """A wavelength of exactly L / low_freq_factor, here 2 pi of the first pair: interpolated, as in vLLM."""
    length = next(n for n in range(10, 1000) if n / (n / math.tau) == math.tau)
    step = scaling.Llama3(4.0, length / math.tau, length / math.tau, length)
    assert step.frequencies(4, 1e4)[0].tolist() == [0.25, 0.0025]
