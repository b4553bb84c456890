"""xPos about an explicit centre: the formula, the peers that take the centre from the length, and where it ends."""

from __future__ import annotations

import os
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import posenc
from conftest import assert_refused, assert_same_bits
from posenc import _reference, _series
from posenc.xpos import XPos

if not os.environ.get("CI"):  # there, a missing package is a failure
    for package in ("torch", "rotary_embedding_torch"):
        pytest.importorskip(package, reason=f'needs {package}: pip install ".[test]"')

import torch
from rotary_embedding_torch import RotaryEmbedding

reproducible = settings(derandomize=True, deadline=None, max_examples=40)


def normal(seed: int, *shape: int, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def formula(
    x: np.ndarray, positions: np.ndarray, rope: posenc.Rope, exponent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """x as the oracle rotates it, and what each element is multiplied by: ((2i + 0.4 r) / (1.4 r)) ** exponent."""
    r = rope.rotary_dim
    zeta = (2 * np.arange(r // 2) + 0.4 * r) / (1.4 * r)
    turned = _reference.rotate(x, positions, rope.inv_freq, rope.layout, rotary_offset=rope.rotary_offset)
    scale = np.ones((len(positions), x.shape[-1]))
    powers = zeta ** exponent[:, None]
    scale[:, rope.rotary_offset : rope.rotary_offset + r] = _reference.join_pairs(powers, powers, rope.layout)
    return turned, scale


def assert_close(found: Any, wanted: Any, tolerance: float) -> None:
    """Off by at most a tolerance of the largest element of each row."""
    assert found.shape == wanted.shape
    largest = np.max(np.abs(wanted), axis=-1, keepdims=True)
    assert np.max(np.abs(np.asarray(found, np.float64) - wanted) / largest) <= tolerance


def test_zeta() -> None:
    """r = 8: (2i + 3.2) / 11.2."""
    assert XPos(posenc.Rope(8, layout="half")).zeta.tolist() == [16 / 56, 26 / 56, 36 / 56, 46 / 56]


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_formula(layout: str, dtype: Any) -> None:
    rope = posenc.Rope(24, layout=layout, rotary_dim=16, rotary_offset=4, base=5e5)
    q, k = normal(1, 3, 9, 24, dtype=dtype), normal(2, 2, 9, 24, dtype=dtype)
    positions = np.array([0, 1, 2.5, 100, 300, 301, 1000, 2047, 4000])
    found = XPos(rope, scale_base=400.0, centre=512.5)(q, k, positions=positions)
    exponent = (positions - 512.5) / 400
    for y, x, e in zip(found, (q, k), (exponent, -exponent), strict=True):
        assert y.dtype == dtype
        turned, scale = formula(x, positions, rope, e)
        assert_close(y / scale, turned, 1e-13 if dtype is np.float64 else 4e-7)


def test_scale_against_mpmath() -> None:
    """Off by at most 2**-52 * (2 + |ln scale|), as documented."""
    xpos = XPos(posenc.Rope(6, layout="half"), centre=1000)
    positions = np.array([0, 1, 999, 1000, 1001, 30_000, 250_000.5])
    found = xpos.scale(positions)
    with mpmath.workdps(40):
        for row, p in zip(found, positions, strict=True):
            for i, value in enumerate(row.tolist()):
                exact = (mpmath.mpf(20 * i + 24) / 84) ** (mpmath.mpf(p - 1000) / 512)
                assert abs(value / exact - 1) <= 2.0**-52 * (2 + abs(mpmath.log(exact)))


@given(
    m=st.integers(0, 3000),
    n=st.integers(0, 3000),
    by=st.integers(-3000, 3000),
    centre=st.floats(-2000, 2000),
    layout=st.sampled_from(["half", "interleaved", "interleaved_to_half"]),
)
@reproducible
def test_only_the_distance_matters(m: int, n: int, by: int, centre: float, layout: str) -> None:
    """q.k is the same at (m, n) and (m + by, n + by), and about any centre that both share."""
    rope = posenc.Rope(32, layout=layout)
    q, k = normal(3, 1, 32), normal(4, 1, 32)
    products = []
    for about, move in ((0.0, 0), (0.0, by), (centre, 0), (centre, by)):
        xpos = XPos(rope, centre=about)
        products.append((xpos.queries(q, positions=[m + move]) * xpos.keys(k, positions=[n + move])).sum())
    size = np.linalg.norm(q) * np.linalg.norm(k) * max(1.0, 0.2857 ** ((m - n) / 512))
    assert np.max(np.abs(np.array(products) - products[0])) <= 1e-11 * size


def test_decoding_has_the_bits_of_a_prefill() -> None:
    xpos = XPos(posenc.Rope(16, layout="half"), centre=64)
    q, k = normal(5, 2, 4, 12, 16, dtype=np.float32), normal(6, 2, 2, 12, 16, dtype=np.float32)
    whole = xpos(q, k, offset=np.array([3, 100]))
    for j in range(12):
        one = slice(j, j + 1)
        step = xpos(q[:, :, one], k[:, :, one], offset=np.array([3 + j, 100 + j]))
        for y, wanted in zip(step, whole, strict=True):
            assert_same_bits(y, wanted[:, :, one])
    assert_same_bits(xpos.queries(q, offset=np.array([3, 100])), whole[0])
    assert_same_bits(xpos.keys(k, positions=np.arange(12) + np.array([[3], [100]])), whole[1])


def test_callers_memory() -> None:
    """In place over NumPy and torch, strided and in 16 bits; the result is the caller's own object."""
    xpos = XPos(posenc.Rope(8, layout="interleaved"), centre=10)
    q = normal(7, 5, 3, 8, dtype=np.float32).transpose(1, 0, 2)
    wanted = xpos(q, q[:2])
    k = q[:2].copy()
    found = xpos(q, k, out=(q, k))
    assert found[0] is q
    assert found[1] is k
    for y, x in zip(found, wanted, strict=True):
        assert_same_bits(y, x)
    t = torch.from_numpy(normal(8, 3, 5, 8)).to(torch.bfloat16)
    in_float32 = xpos.queries(t.float(), offset=7)
    assert xpos.queries(t, offset=7, out=t) is t
    assert_same_bits(t, in_float32.to(torch.bfloat16))


# ---- peers, which take the centre from the length ----


def torchscale(x: torch.Tensor, offset: int, downscale: bool, scale_base: int = 512) -> torch.Tensor:
    """The formula of torchscale's XPOS.forward (component/xpos_relative_position.py) for x of (batch, seq, dim).

    The scales start at min_pos = -(length + offset) // 2 and the angles at 0; both end with the sequence.
    """
    length, dim = x.shape[1:]
    low = -(length + offset) // 2
    zeta = (torch.arange(0, dim, 2) + 0.4 * dim) / (1.4 * dim)
    scale = zeta ** (torch.arange(low, length + offset + low) / scale_base)[:, None]
    angles = torch.arange(length + offset).float()[:, None] * 10000 ** -(torch.arange(dim // 2) / (dim // 2))
    scale, angles = (1 / scale if downscale else scale)[-length:], angles[-length:]
    sin, cos = (t.repeat_interleave(2, 1) for t in (angles.sin() * scale, angles.cos() * scale))
    paired = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
    return x * cos + paired * sin


@pytest.mark.parametrize(("length", "offset"), [(7, 0), (8, 0), (1, 40), (5, 100)])
def test_torchscale(length: int, offset: int) -> None:
    """Its centre is (length + offset + 1) // 2."""
    q, k = (torch.from_numpy(normal(seed, 2, length, 32, dtype=np.float32)) for seed in (9, 10))
    xpos = XPos(posenc.Rope(32, layout="interleaved"), centre=(length + offset + 1) // 2)
    found = xpos(q, k, offset=offset)
    for y, x, downscale in zip(found, (q, k), (False, True), strict=True):
        assert_close(y.numpy(), torchscale(x, offset, downscale).double().numpy(), 4e-6)


@pytest.mark.parametrize("length", [64, 65, 1000])
def test_rotary_embedding_torch(length: int) -> None:
    """Its centre in a prefill is length // 2."""
    q, k = (torch.from_numpy(normal(seed, 1, 2, length, 64, dtype=np.float32)) for seed in (11, 12))
    wanted = RotaryEmbedding(64, use_xpos=True).rotate_queries_and_keys(q, k)
    found = XPos(posenc.Rope(64, layout="interleaved"), centre=length // 2)(q, k)
    for y, x in zip(found, wanted, strict=True):
        assert_close(y.numpy(), x.detach().double().numpy(), 1e-4)  # its angles are float32: off by 1000 * 2**-24


def test_rotary_embedding_torch_decodes_about_two_centres() -> None:
    """With cached keys its query is centred on its own length, 1 // 2 = 0, and the keys on theirs.

    So a decode step differs from the prefill of the same tokens: pair i by zeta[i] ** (length // 2 / 512).
    """
    length = 200
    q, k = (torch.from_numpy(normal(seed, 1, 1, length, 64, dtype=np.float32)) for seed in (13, 14))
    peer = RotaryEmbedding(64, use_xpos=True, cache_if_possible=False)
    step_q, step_k = peer.rotate_queries_with_cached_keys(q[:, :, -1:], k)
    rope = posenc.Rope(64, layout="interleaved")
    by_zero, by_half = XPos(rope, centre=0), XPos(rope, centre=length // 2)
    assert_close(by_zero.queries(q, offset=0)[:, :, -1:].numpy(), step_q.detach().double().numpy(), 1e-4)
    assert_close(by_half.keys(k).numpy(), step_k.detach().double().numpy(), 1e-4)

    theirs = (step_q * step_k).sum(-1).detach().numpy()
    prefill = peer.rotate_queries_and_keys(q, k)
    wanted = (prefill[0][:, :, -1:] * prefill[1]).sum(-1).detach().numpy()
    ours = (by_half.queries(q)[:, :, -1:] * by_half.keys(k)).sum(-1).numpy()
    size = np.abs(wanted).max()
    assert np.abs(ours - wanted).max() < 1e-4 * size
    assert 0.05 * size < np.abs(theirs - wanted).max() < 0.3 * size


# ---- where it ends ----


@pytest.mark.parametrize(
    ("dtype", "farthest", "exponent"),
    [(np.float16, 3966, 14), (np.float32, 35_694, 126), (np.float64, 289_519, 1022)],
)
def test_far_positions_are_an_error(dtype: Any, farthest: int, exponent: int) -> None:
    """The last position with finite numbers of full precision, by (2 / 7) ** (p / 512) = 2 ** -exponent; the next."""
    assert farthest == int(512 * exponent / np.log2(3.5))
    xpos = XPos(posenc.Rope(8, layout="half"), centre=100)
    q, k = np.ones((2, 1, 8), dtype)
    for sign in (1, -1):
        for y in xpos(q, k, positions=[100 + sign * farthest]):
            assert np.isfinite(y).all()
            assert (y != 0).any()
        message = f"positions are too far from centre 100 for {np.dtype(dtype)}: at {100 + sign * (farthest + 1)}"
        far = [100 + sign * (farthest + 1)]
        assert_refused(ValueError, message, lambda far=far: xpos(q, k, positions=far, out=(q, k)), q, k)


def test_wide_exponents_of_bfloat16() -> None:
    xpos = XPos(posenc.Rope(8, layout="half"))
    assert torch.isfinite(xpos.keys(torch.ones(1, 8, dtype=torch.bfloat16), offset=35_000)).all()
    with pytest.raises(ValueError, match="for bfloat16: at 36000"):
        xpos.keys(torch.ones(1, 8, dtype=torch.bfloat16), offset=36_000)


def test_refusals() -> None:
    rope = posenc.Rope(8, layout="half")
    for error, message, call in (
        (TypeError, "rope must be a posenc.Rope, got 8", lambda: XPos(8)),
        (ValueError, "scale_base must be positive and finite, got 0", lambda: XPos(rope, scale_base=0)),
        (ValueError, "centre must be finite, got nan", lambda: XPos(rope, centre=np.nan)),
        (
            ValueError,
            "rope must have one position axis, got 2",
            lambda: XPos(posenc.Rope(8, layout="half", axis_of_freq=[0, 1, 0, 1])),
        ),
        (
            ValueError,
            "rope must have frequencies that do not depend on the length",
            lambda: XPos(posenc.Rope(8, layout="half", scaling=posenc.scaling.DynamicNTK(2.0, 16))),
        ),
    ):
        assert_refused(error, message, call)


def test_nothing_is_written_before_all_is_checked() -> None:
    xpos = XPos(posenc.Rope(8, layout="half"))
    q, k = normal(15, 3, 8, dtype=np.float32), normal(16, 4, 8, dtype=np.float32)
    assert_refused(ValueError, "k must have", lambda: xpos(q, k, out=(q, k)), q, k)
    assert_refused(TypeError, "k must", lambda: xpos(q, [1.0], out=(q, k)), q, k)
    assert_refused(ValueError, "positions must have shape", lambda: xpos(q, q, positions=[1, 2], out=(q, k[:3])), q, k)


def test_is_a_value() -> None:
    xpos = XPos(posenc.Rope(8, layout="half"), centre=5)
    assert eval(repr(xpos), {"XPos": XPos, "Rope": posenc.Rope}) == xpos
    assert hash(xpos) == hash(XPos(posenc.Rope(8, layout="half"), 512.0, 5.0))
    assert xpos != XPos(posenc.Rope(8, layout="half"))


# ---- the series below it ----


def test_logarithms_and_powers_of_arrays() -> None:
    """Within 2 units in the last place of mpmath, over their whole range; seed 17."""
    rng = np.random.default_rng(17)
    wide = np.exp(rng.uniform(-600, 600, 300))
    near_one = 1 + np.concatenate([rng.uniform(-0.3, 0.42, 300), rng.uniform(-1e-6, 1e-6, 50)])
    numbers = np.concatenate([wide, near_one, np.arange(2.0, 100)])
    exponents = np.concatenate([rng.uniform(-700, 700, 300), rng.uniform(-1, 1, 300), [0.0, -0.0]])
    with mpmath.workdps(40):
        for found, exact, inputs in (
            (_series.log, mpmath.log, numbers),
            (_series.exp, mpmath.exp, exponents),
        ):
            for x, y in zip(inputs.tolist(), found(inputs).tolist(), strict=True):
                assert abs(mpmath.mpf(y) - exact(x)) <= 2 * np.spacing(abs(y))
    assert _series.log(1.0) == 0.0
    assert _series.exp(0.0) == 1.0


def test_helpers_say_no() -> None:
    with pytest.raises(AssertionError):
        assert_close(np.ones(3) + 2e-6, np.ones(3), 5e-7)
