"""Sinusoidal tables: literals from the papers' and systems' own code, exact numbers, and the peers as they run."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

import posenc
from conftest import assert_same_bits
from posenc import _reference
from posenc.additive import CONVENTIONS, Convention, conventions, mlx
from test_exactness import FLOAT32_BOUND, FLOAT64_BOUND, true_cos_sin, worst_ulp

table = posenc.sinusoidal_table
PECULIAR = [Convention("cos_sin", "dim"), Convention("interleaved", "half", "zero"), mlx(cos_first=True)]


# ---- literals ----


def test_the_paper() -> None:
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i + 1) = cos of it: arXiv:1706.03762, section 3.5."""
    wanted = [[math.sin(3), math.cos(3), math.sin(3 / 10**2), math.cos(3 / 10**2)]]
    np.testing.assert_allclose(table([3], 4), wanted, rtol=6e-8)


def test_an_odd_paper_has_one_more_sine() -> None:
    wanted = [
        [
            math.sin(7),
            math.cos(7),
            math.sin(7 / 10 ** (8 / 5)),
            math.cos(7 / 10 ** (8 / 5)),
            math.sin(7 / 10 ** (16 / 5)),
        ]
    ]
    np.testing.assert_allclose(table([7], 5), wanted, rtol=1e-6)


LITERALS: dict[str, list[float]] = {
    # exponents 0, 1/3, 2/3, 1 of 10000: tensor2tensor's get_timing_signal_1d, fairseq's get_embedding
    "tensor2tensor": [
        *(math.sin(2 / 10 ** (4 * i / 3)) for i in range(4)),
        *(math.cos(2 / 10 ** (4 * i / 3)) for i in range(4)),
    ],
    "fairseq": [
        *(math.sin(2 / 10 ** (4 * i / 3)) for i in range(4)),
        *(math.cos(2 / 10 ** (4 * i / 3)) for i in range(4)),
    ],
    # exponents 0, 1/4, 2/4, 3/4
    "concatenated": [*(math.sin(2 / 10**i) for i in range(4)), *(math.cos(2 / 10**i) for i in range(4))],
    "cos_first": [*(math.cos(2 / 10**i) for i in range(4)), *(math.sin(2 / 10**i) for i in range(4))],
    # mlx.nn.SinusoidalPositionalEncoding(8): exp(linspace(0, log 1e-4)), times sqrt(2/8)
    "mlx": [
        *(math.sin(2 / 10 ** (4 * i / 3)) / 2 for i in range(4)),
        *(math.cos(2 / 10 ** (4 * i / 3)) / 2 for i in range(4)),
    ],
}


@pytest.mark.parametrize("name", LITERALS)
def test_conventions_by_their_formula(name: str) -> None:
    np.testing.assert_allclose(table([2], 8, convention=name)[0], LITERALS[name], rtol=1e-6)
    np.testing.assert_allclose(table([2], 8, convention=name, dtype=np.float64)[0], LITERALS[name], rtol=1e-14)


def test_odd_dims_as_each_source_has_them() -> None:
    """tensor2tensor and fairseq pad with a zero column; Marian and positional-encodings have one more sine."""
    for name in ("tensor2tensor", "fairseq", "cos_first"):
        odd = table(9, 9, convention=name)
        assert_same_bits(odd[:, :8], table(9, 8, convention=name))
        assert not odd[:, 8].any()
    angles = 5 / 10 ** (8 * np.arange(3) / 5)  # Marian: exponent 2i/5
    found = table([5], 5, convention="concatenated")[0]
    np.testing.assert_allclose(found, [*np.sin(angles), *np.cos(angles[:2])], rtol=1e-6)
    assert_same_bits(table(9, 7, convention="positional_encodings"), table(9, 8)[:, :7])
    with pytest.raises(ValueError, match="dim must be even for this convention, got 7"):
        table(9, 7, convention="mlx")


@pytest.mark.parametrize(("name", "least"), [("fairseq", 4), ("mlx", 4), ("tensor2tensor", 2), ("paper", 1)])
def test_the_smallest_dim(name: str, least: int) -> None:
    """fairseq divides by dim // 2 - 1; tensor2tensor by at least 1, so two columns have the frequency 1."""
    assert table(3, least, convention=name).shape == (3, least)
    if least > 1:
        with pytest.raises(ValueError, match=f"dim must be at least {least}"):
            table(3, least - 1, convention=name)
    np.testing.assert_allclose(table([2], 2, convention="tensor2tensor")[0], [math.sin(2), math.cos(2)], rtol=1e-7)


def test_mlx_parameters() -> None:
    """sigma_i = 2 pi exp(linspace(log max_freq, log min_freq)), scale given, cosines first."""
    chosen = mlx(min_freq=0.001, max_freq=0.1, scale=3.0, cos_first=True, full_turns=True)
    sigma = 2 * np.pi * np.exp(np.linspace(np.log(0.1), np.log(0.001), 5))
    wanted = 3 * np.concatenate([np.cos(2.5 * sigma), np.sin(2.5 * sigma)])
    np.testing.assert_allclose(table([2.5], 10, convention=chosen, dtype=np.float64)[0], wanted, rtol=1e-13, atol=1e-15)


# ---- exact ----


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("dim", [8, 64, 130])
def test_exact(name: str, dim: int, rng: np.random.Generator) -> None:
    """Within 0.501 ulp of float32 and 1 ulp of float64 of the exact products, at any position."""
    convention = CONVENTIONS[name]
    positions = np.concatenate([rng.integers(-(2**31) + 1, 2**31, 6), rng.uniform(-1e6, 1e6, 6), [0, 1, 0.5]])
    cos, sin = true_cos_sin(positions[:, None], convention.inv_freq(dim), math.sqrt(2 / dim) if name == "mlx" else 1.0)
    for dtype, bits, bound in ((np.float32, 24, FLOAT32_BOUND), (np.float64, 53, FLOAT64_BOUND + (name == "mlx"))):
        found = table(positions, dim, convention=name, dtype=dtype)
        found_sin, found_cos = columns_of(found, convention.order)
        assert worst_ulp(found_sin, sin, bits) <= bound
        assert worst_ulp(found_cos, cos, bits) <= bound


def columns_of(rows: np.ndarray, order: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the sines and the cosines of an even table."""
    if order == "interleaved":
        return rows[..., 0::2], rows[..., 1::2]
    first, second = np.split(rows, 2, -1)
    return (first, second) if order == "sin_cos" else (second, first)


@pytest.mark.parametrize("spacing", conventions.SPACINGS)
@pytest.mark.parametrize("base", [2.0, 1e4, 12345.678])
def test_frequencies_are_the_nearest_float64(spacing: str, base: float) -> None:
    import mpmath as mp

    with mp.workdps(40):
        for dim in (6, 7, 64, 513):
            odd = "zero" if spacing == "half_minus_one" else "longer"
            found = Convention(spacing=spacing, odd=odd).inv_freq(dim, base)
            divisor = {
                "dim": mp.mpf(dim) / 2,
                "half": dim // 2,
                "half_minus_one": dim // 2 - 1,
                "rounded_up": -(-dim // 2),
            }
            wanted = [float(mp.power(mp.mpf(base), -mp.mpf(i) / divisor[spacing])) for i in range(len(found))]
            assert found.tolist() == wanted


@pytest.mark.parametrize("dim", [2, 3, 30, 257, 2047, 2049, 4098, 5001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_width_is_the_same_numbers_as_the_rotary_table(dim: int, dtype: type) -> None:
    """Wide rows are made in chunks; odd ones drop a cosine: all are those of rotary_table, whatever the arrangement."""
    positions = np.array([[0.5, 3, -70000], [1, 2, 4000.25]])
    for convention in (*CONVENTIONS.values(), *PECULIAR):
        if dim < convention.least_dim or (dim % 2 and convention.odd == "refused"):
            continue
        scale = math.sqrt(2 / dim) if convention.scale is None else convention.scale
        for precision in ("exact", "float32"):
            how = {"scale": scale, "dtype": dtype, "precision": precision}
            cos, sin = posenc.rotary_table(positions, convention.inv_freq(dim), **how)
            wanted = np.zeros((2, 3, max(dim, 2 * cos.shape[-1])), dtype)
            wanted_sin, wanted_cos = columns_of(wanted[..., : 2 * cos.shape[-1]], convention.order)
            wanted_sin[...], wanted_cos[...] = sin, cos
            found = table(positions, dim, convention=convention, dtype=dtype, precision=precision)
            assert_same_bits(found, wanted[..., :dim])


@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_oracle(name: str, rng: np.random.Generator) -> None:
    convention, dim = CONVENTIONS[name], 48
    positions = rng.uniform(0, 5000, (3, 7))
    scale = math.sqrt(2 / dim) if name == "mlx" else 1.0
    wanted = _reference.sinusoid(positions, convention.inv_freq(dim), convention.order, dim, scale)
    np.testing.assert_allclose(table(positions, dim, convention=name, dtype=np.float64), wanted, atol=2e-12)


def test_outputs_of_any_stride(rng: np.random.Generator) -> None:
    positions = rng.integers(0, 9999, (2, 9))
    for name, dim in (("paper", 10), ("fairseq", 11), ("cos_first", 2500)):
        wanted = table(positions, dim, convention=name, padding_idx=int(positions[1, 3]))
        assert not wanted[1, 3].any()
        for out in (np.ones((2, 9, 2 * dim), np.float32)[..., ::-2], np.ones((dim, 9, 2), np.float32).T):
            assert table(positions, dim, convention=name, padding_idx=positions[1, 3], out=out) is out
            assert_same_bits(np.array(out), wanted)


def test_kinds_of_positions(threads: Callable[[int], None]) -> None:
    """Counts, lists, tensors, batches; a tensor in gives a tensor out; two threads give the same bits."""
    whole = table(6000, 300)
    assert_same_bits(whole, table(np.arange(6000), 300))
    assert_same_bits(whole[5:7], table([5, 6], 300))
    assert_same_bits(np.stack([whole[:4]] * 2), table([[0, 1, 2, 3]] * 2, 300))
    found = table(torch.arange(4), 300)
    assert isinstance(found, torch.Tensor)
    assert_same_bits(found.numpy(), whole[:4])
    for count in (1, 2, 3):
        threads(count)
        assert_same_bits(table(6000, 300), whole)
        assert_same_bits(table(np.arange(6000), 300, out=np.empty((6000, 300), np.float32)), whole)


# ---- peers ----


def test_marian() -> None:
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    for dim in (16, 15):
        peer = MarianSinusoidalPositionalEmbedding(300, dim).create_weight().numpy()  # made in float64, rounded once
        found = table(300, dim, convention="concatenated")
        assert np.abs(found - peer).max() <= 6e-8
        assert (found == peer).mean() > 0.99


def test_m2m_100() -> None:
    """float32 angles: the exact table is off by their error, the float32 recipe by the error of torch's exp alone."""
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100SinusoidalPositionalEmbedding as Peer

    for dim in (64, 65):
        peer = Peer.get_embedding(1000, dim, 1).numpy()
        found = table(1000, dim, convention="fairseq", padding_idx=1)
        assert np.abs(found - peer).max() < 1000 * 2**-23
        recipe = table(1000, dim, convention="fairseq", padding_idx=1, precision="float32")
        assert np.abs(recipe - peer).max() < 1000 * 2**-23
        assert (recipe == peer).mean() > 0.5
        assert not found[1].any()
    ids = torch.tensor([[5, 6, 7, 1, 1]])  # padding reads row padding_idx, which is zero
    rows = posenc.positions.roberta(ids, padding_idx=1)
    peer = Peer(20, 64, 1)(ids).numpy()
    np.testing.assert_allclose(table(rows, 64, convention="fairseq", padding_idx=1).numpy(), peer, atol=1e-6)


def test_whisper() -> None:
    from transformers.models.whisper.modeling_whisper import sinusoids

    assert np.abs(table(1500, 384, convention="fairseq") - sinusoids(1500, 384).numpy()).max() < 1500 * 2**-23


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 0.5])
def test_diffusers_timesteps(flip: bool, shift: float) -> None:
    from diffusers.models.embeddings import get_timestep_embedding

    timesteps = torch.tensor([0.0, 1.0, 17.25, 999.0])
    for dim, scale, period in ((320, 1, 10000), (33, 1000, 10000), (64, 1.0, 77)):
        how = {"flip_sin_to_cos": flip, "downscale_freq_shift": shift, "scale": scale, "max_period": period}
        peer = get_timestep_embedding(timesteps, dim, **how).numpy()
        found = posenc.timestep_embedding(timesteps, dim, **how)
        assert isinstance(found, torch.Tensor)
        assert np.abs(found.numpy() - peer).max() < 1000 * scale * 2**-22
        assert np.abs(posenc.timestep_embedding(timesteps, dim, precision="float32", **how).numpy() - peer).max() < (
            1000 * scale * 2**-22
        )


def test_timesteps_are_the_named_conventions() -> None:
    """Shift 0 flipped is guided-diffusion's, shift 1 is fairseq's frequencies."""
    how = {"flip_sin_to_cos": True, "downscale_freq_shift": 0}
    assert_same_bits(posenc.timestep_embedding(50, 31, **how), table(50, 31, convention="cos_first"))
    assert_same_bits(posenc.timestep_embedding(50, 31), table(50, 31, convention="fairseq"))
    far = posenc.timestep_embedding([3.0], 8, downscale_freq_shift=-(2.0**70))  # no series of 2**70 frequencies
    np.testing.assert_allclose(far[0], [math.sin(3)] * 4 + [math.cos(3)] * 4, rtol=1e-7)
    with pytest.raises(ValueError, match=r"dim // 2 must be larger than downscale_freq_shift \(1.0\), got dim 3"):
        posenc.timestep_embedding(50, 3)
