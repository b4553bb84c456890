"""A Rope is a value: what it shows, how it compares, and the hooks for scaling and axes."""

import copy
import math
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import posenc
from posenc import _reference


@dataclass(frozen=True)
class Halved:
    """A scaling for these tests: half the frequencies, attention factor 1.5."""

    depends_on_length: bool = False

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> tuple[npt.NDArray[Any], float]:
        assert seq_len is None
        return base ** (-np.arange(0, rotary_dim, 2) / rotary_dim) / 2, 1.5


@dataclass(frozen=True)
class Stretched:
    """A scaling that depends on the length: frequencies divided by length / 16 beyond 16 tokens."""

    depends_on_length: bool = True

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> tuple[npt.NDArray[Any], float]:
        stretch = max(1.0, (seq_len or 0) / 16)
        return base ** (-np.arange(0, rotary_dim, 2) / rotary_dim) / stretch, 1.0

    def effective_length(self, seq_len: int) -> int:
        return max(seq_len, 16)


@dataclass(frozen=True)
class Claimed:
    """A scaling that answers what it was made with, right or wrong."""

    inv_freq: tuple[float, ...]
    attention_factor: float
    depends_on_length: bool = False

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> tuple[npt.NDArray[Any], float]:
        return np.array(self.inv_freq), self.attention_factor


ROPES = [
    posenc.Rope(64, layout="half"),
    posenc.Rope(64, layout="interleaved", base=5e5, rotary_dim=32, rotary_offset=16, precision="float32"),
    posenc.Rope(21, layout="half"),
    posenc.Rope(6, layout="interleaved_to_half", inv_freq=[1.0, -0.25, 0.0], axis_of_freq=[0, 1, 1]),
    posenc.Rope(8, layout="half", scaling=posenc.scaling.InverseFrequencies((1.0, 0.5, 0.25, 0.125), 1.25)),
]


@pytest.mark.parametrize("rope", ROPES, ids=repr)
def test_is_a_value(rope: posenc.Rope) -> None:
    rebuilt = eval(repr(rope), {"Rope": posenc.Rope, "InverseFrequencies": posenc.scaling.InverseFrequencies})
    for other in (rebuilt, pickle.loads(pickle.dumps(rope)), copy.deepcopy(rope)):
        assert other == rope
        assert hash(other) == hash(rope)
        assert np.array_equal(other.inv_freq, rope.inv_freq)
    assert len(set(ROPES)) == len(ROPES)
    assert rope != "a Rope"


def test_a_pickled_rope_rotates_the_same() -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 64), np.float32)
    rope = ROPES[1]
    assert np.array_equal(pickle.loads(pickle.dumps(rope))(x, inverse=True), rope(x, inverse=True))


def test_is_immutable() -> None:
    rope = ROPES[0]
    with pytest.raises(AttributeError, match="a Rope is immutable; make another one with a different base"):
        rope.base = 5.0
    with pytest.raises(AttributeError, match="immutable"):
        del rope.base
    with pytest.raises(ValueError, match="read-only"):
        rope.inv_freq[0] = 5.0


def test_shows_its_numbers() -> None:
    rope = posenc.Rope(4, layout="half", base=100.0)
    assert rope.inv_freq.tolist() == [1.0, 0.1]  # 100 ** 0, 100 ** -0.5
    assert rope.attention_factor == 1.0
    assert np.allclose(rope.wavelengths, [2 * math.pi, 20 * math.pi])
    assert posenc.Rope(4, layout="half", inv_freq=[0.0, 1.0]).wavelengths[0] == math.inf


def test_a_given_inv_freq_is_copied() -> None:
    given = np.array([1.0, 0.5])
    rope = posenc.Rope(4, layout="half", inv_freq=given)
    given[:] = 7.0
    assert rope.inv_freq.tolist() == [1.0, 0.5]


def test_rotary_dim_follows_from_what_is_given() -> None:
    assert posenc.Rope(64, layout="half", inv_freq=np.ones(8)).rotary_dim == 16
    assert posenc.Rope(64, layout="half", rotary_offset=16).rotary_dim == 48
    odd = posenc.Rope(5, layout="half", inv_freq=np.ones(3))
    assert (odd.rotary_dim, len(odd.inv_freq)) == (5, 3)


def test_scaling_hook() -> None:
    rope = posenc.Rope(8, layout="half", base=100.0, scaling=Halved())
    plain = posenc.Rope(8, layout="half", base=100.0)
    assert isinstance(Halved(), posenc.scaling.Scaling)
    assert np.allclose(rope.inv_freq, plain.inv_freq / 2, rtol=1e-15)
    assert rope.attention_factor == 1.5
    x = np.random.default_rng(2).standard_normal((3, 5, 8), np.float32)
    expected = _reference.rotate(x, np.arange(5), rope.inv_freq, "half", scale=1.5)
    assert np.allclose(rope(x), expected, rtol=0, atol=2e-6)
    assert np.allclose(rope(rope(x), inverse=True), x, rtol=0, atol=2e-6)  # the factor is divided out


@pytest.mark.parametrize(
    ("frequencies", "factor", "message"),
    [
        (np.ones(3), 1.0, "scaling must give 4 frequencies for rotary_dim 8, got 3"),
        (np.ones(4), 0.0, "attention_factor must be positive and finite, got 0.0"),
        (np.ones(4), math.nan, "attention_factor must be positive and finite, got nan"),
        (np.array([1.0, math.inf, 1.0, 1.0]), 1.0, "inv_freq must be finite, got inf"),
    ],
)
def test_a_wrong_scaling_is_refused(frequencies: npt.NDArray[Any], factor: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        posenc.Rope(8, layout="half", scaling=Claimed(tuple(frequencies.tolist()), factor))


def test_length_dependent_scaling_keeps_no_state() -> None:
    rope = posenc.Rope(8, layout="half", scaling=Stretched())
    x = np.random.default_rng(3).standard_normal((64, 8)).astype(np.float32)
    short = rope(x[:8])
    assert np.array_equal(short, posenc.Rope(8, layout="half")(x[:8]))
    assert np.array_equal(rope(x), rope.at(64)(x))
    assert np.array_equal(rope(x[:8]), short)  # a long call in between changed nothing
    assert np.array_equal(rope(x[:8], seq_len=64), rope.at(64)(x[:8]))
    for count in (32, np.int64(32)):
        assert np.array_equal(rope.table(count), rope.at(32).table(32))
    assert np.array_equal(rope(x[:8], offset=56), rope.at(64)(x[:8], offset=56))
    assert np.array_equal(rope(x[:8], positions=np.arange(56, 64)), rope.at(64)(x[:8], offset=56))
    for n in (8, 64):
        assert np.array_equal(rope.table(n)[0], rope.at(n).table(n)[0])
    assert rope.at(64).at(8) == rope.at(64)


def test_several_axes() -> None:
    axis_of_freq = [0, 1, 1, 2]
    rope = posenc.Rope(8, layout="half", axis_of_freq=axis_of_freq)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 3, 5, 8)).astype(np.float32)
    positions = rng.integers(0, 100, (3, 2, 5))
    expected = np.stack(
        [
            _reference.rotate(x[b], positions[:, b], rope.inv_freq, "half", axis_of_freq=np.array(axis_of_freq))
            for b in range(2)
        ]
    )
    assert np.allclose(rope(x, positions=positions), expected, rtol=0, atol=2e-6)
    assert np.array_equal(rope(x), posenc.Rope(8, layout="half")(x))  # text: the same position on every axis
    with pytest.raises(ValueError, match=r"positions must have shape \(axes, seq\) = \(3, 5\)"):
        rope(x, positions=np.arange(5))
