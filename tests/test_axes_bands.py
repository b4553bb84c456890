"""Bands and mixed frequencies: timm (EVA, DINOv3, RoPE-Mixed), rotary-embedding-torch's axial tables, rope-vit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from axes_peers import IN_CI, assert_rotated, assert_tables, grid, halved, lost, needs, timm_embeddings
from conftest import assert_refused
from posenc import axes

if not IN_CI:
    needs("torch", "rotary_embedding_torch")

import torch
from rotary_embedding_torch import RotaryEmbedding, apply_rotary_emb

timm = timm_embeddings()
NAMES = {True: "half", False: "interleaved"}  # timm's rotate_half


def split(embed: torch.Tensor, layout: str) -> tuple[np.ndarray, np.ndarray]:
    """Return cos and sin at half width of timm's [sin, cos]."""
    sin, cos = embed.chunk(2, -1)
    return halved(cos, layout), halved(sin, layout)


def heads(rng: np.random.Generator, count: int, seq: int, head_dim: int) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal((2, count, seq, head_dim)).astype(np.float32))


def unit_grid(*shape: int) -> np.ndarray:
    """Return linspace(-1, 1, n) along each axis."""
    lines = [torch.linspace(-1, 1, n).numpy() for n in shape]
    return np.stack(np.meshgrid(*lines, indexing="ij")).reshape(len(shape), -1)


def same_bits(found: np.ndarray, wanted: torch.Tensor) -> float:
    """Return which share of float32 numbers is the same."""
    return float((found == wanted.double().numpy()).mean())


# ---- timm ----


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("indexing", ["ij", "xy"])
def test_eva(half: bool, indexing: str, rng: np.random.Generator) -> None:
    """Language bands on places that are rescaled to the trained grid; "xy" puts the block of w first."""
    module = timm.RotaryEmbeddingCat(
        64, in_pixels=False, feat_shape=[5, 9], ref_feat_shape=[16, 16], grid_indexing=indexing, rotate_half=half
    )
    order = (0, 1) if indexing == "ij" else (1, 0)
    rope = axes.axial(64, layout=NAMES[half], axes=order, precision="float32")
    positions = grid(5, 9) / np.array([[5], [9]]) * 16
    assert_tables(rope, positions, *split(module.get_embed(), NAMES[half]))
    q = heads(rng, 3, 45, 64)
    wanted = timm.apply_rot_embed_cat(q, module.get_embed(), half=half)
    assert_rotated(rope(q, positions=positions), wanted)


@pytest.mark.parametrize("linear", [False, True])
def test_pixel_bands_of_timm(linear: bool, rng: np.random.Generator) -> None:
    """Up to 112 half turns over an image: frequencies of 352, whose ulp is 3e-5."""
    module = timm.RotaryEmbeddingCat(64, max_res=224, linear_bands=linear)
    band = axes.pixel_bands(16, 224, spacing="linear" if linear else "log2", precision="float32")
    assert np.abs(band / module.bands.double().numpy() - 1).max() < 2**-22
    rope = axes.from_bands(64, [band, band], layout="interleaved", precision="float32")
    positions = unit_grid(6, 7)
    slack = lost(rope, positions, np.tile(module.bands.numpy(), 2)) + 2.0**-24 * np.abs(rope.inv_freq)
    assert_tables(rope, positions, *split(module.get_embed([6, 7]), "interleaved"), reach=slack)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 16, 33, 100])
def test_linear_bands_are_torch_linspace(count: int) -> None:
    """Bit for bit where torch has not fused a product and a sum (its vectors do, by an ulp)."""
    theirs = timm.pixel_freq_bands(count, 224.0)
    ours = axes.pixel_bands(count, 224.0, precision="float32")
    assert np.abs(ours / theirs.double().numpy() - 1).max() < 2**-22
    assert same_bits(ours, theirs) > 0.5


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("normalize", ["separate", "min", "max"])
@pytest.mark.parametrize("periods", [{"temperature": 100.0}, {"min_period": 0.5, "max_period": 90.0}])
def test_dinov3_of_timm(half: bool, normalize: str, periods: dict[str, float], rng: np.random.Generator) -> None:
    module = timm.RotaryEmbeddingDinoV3(48, normalize_coords=normalize, rotate_half=half, **periods).eval()
    own = {"base": 100.0} if "temperature" in periods else periods
    rope = axes.dinov3(48, layout=NAMES[half], precision="float32", **own)
    by = {"separate": np.array([[6], [9]]), "min": 6, "max": 9}[normalize]
    positions = 2 * (grid(6, 9) + 0.5) / by - 1
    slack = 2.0**-23 * np.abs(positions[rope.axis_of_freq] * rope.inv_freq[:, None]).T
    assert_tables(rope, positions, *split(module.get_embed([6, 9]), NAMES[half]), reach=slack)
    q = heads(rng, 2, 54, 48)
    wanted = timm.apply_rot_embed_cat(q, module.get_embed([6, 9]), half=half)
    assert_rotated(rope(q, positions=positions), wanted)


@pytest.mark.parametrize("indexing", ["ij", "xy"])
def test_mixed_of_timm(indexing: str, rng: np.random.Generator) -> None:
    """Learned frequencies of every head and layer: those of one layer."""
    torch.manual_seed(7)
    module = timm.RotaryEmbeddingMixed(192, depth=2, num_heads=4, feat_shape=[5, 6], grid_indexing=indexing)
    weight = module.freqs.detach()
    assert weight.shape == (2, 2, 4, 24)
    positions = grid(5, 6) if indexing == "ij" else grid(5, 6)[::-1]
    for layer in range(2):
        rope = axes.MixedRope(48, weight[:, layer], layout="interleaved", precision="float32")
        embed = module.get_embed()[layer].detach()
        assert_tables(rope, positions, *split(embed, "interleaved"))
        q, k = heads(rng, 4, 30, 48), heads(rng, 4, 30, 48)
        wanted = tuple(timm.apply_rot_embed_cat(x, embed) for x in (q, k))
        assert_rotated(rope(q, k, positions=positions), wanted)


def test_mixed_frequencies_start_as_timms_do() -> None:
    torch.manual_seed(11)
    theirs = timm.init_random_2d_freqs(64, 1, 5)[:, 0].numpy()
    torch.manual_seed(11)
    angles = (torch.rand(1, 5, 1) * 2 * torch.pi).numpy().ravel()
    ours = axes.mixed_frequencies(64, angles, precision="float32")
    assert np.abs(ours - theirs).max() < 3e-7  # timm rounds a + pi/2
    axial = timm.init_random_2d_freqs(64, 1, 5, rotate=False)[:, 0].numpy()
    assert np.abs(axes.mixed_frequencies(64, np.zeros(5)) - axial).max() < 1e-7


# ---- rope-vit (naver-ai/rope-vit, models/vit_rope.py) ----


def test_rope_vit_literals() -> None:
    """compute_axial_cis(dim=8, end_x=3, end_y=2): token 5 is x 2, y 1; magnitudes 100 ** (-4i/8) are 1 and 0.1.

    So its angles are 2, 0.2 by x, then 1, 0.1 by y.
    """
    rope = axes.named("rope_vit", 8)
    cos, sin = rope.table(grid(2, 3), dtype=np.float64)
    assert np.allclose(cos[5], np.cos([2.0, 0.2, 1.0, 0.1]), rtol=0, atol=1e-15)
    assert np.allclose(sin[5], np.sin([2.0, 0.2, 1.0, 0.1]), rtol=0, atol=1e-15)


def test_rope_vit_mixed_literals() -> None:
    """init_random_2d_freqs(dim=8, theta=10): magnitudes 1 and 10 ** -0.5, turned by pi/6; then compute_mixed_cis."""
    size, (c, s) = np.array([1.0, 10**-0.5]), (np.cos(np.pi / 6), 0.5)
    frequencies = axes.mixed_frequencies(8, [np.pi / 6])
    wanted = [[[*(size * c), *(size * -s)]], [[*(size * s), *(size * c)]]]
    assert np.allclose(frequencies, wanted, rtol=0, atol=1e-15)
    cos, _ = axes.MixedRope(8, frequencies, layout="interleaved").table([[3], [2]], dtype=np.float64)
    assert np.allclose(cos[0, 0], np.cos([3 * c + 2 * s, (3 * c + 2 * s) * 10**-0.5,
                                          2 * c - 3 * s, (2 * c - 3 * s) * 10**-0.5]), rtol=0, atol=1e-14)  # fmt: skip


# ---- rotary-embedding-torch ----


@pytest.mark.parametrize(
    ("freqs_for", "more"), [("lang", {}), ("pixel", {"max_freq": 64}), ("constant", {"num_freqs": 8})]
)
def test_axial_tables_of_rotary_embedding_torch(freqs_for: str, more: dict[str, Any], rng: np.random.Generator) -> None:
    """get_axial_freqs of three axes; the head's tail passes through."""
    peer = RotaryEmbedding(dim=16, freqs_for=freqs_for, **more)
    angles = peer.get_axial_freqs(3, 4, 5).reshape(60, -1).detach()
    if freqs_for == "lang":
        rope = axes.axial(64, layout="interleaved", axes=3, widths=(16, 16, 16), precision="float32")
        positions: np.ndarray = grid(3, 4, 5)
    else:
        band = axes.pixel_bands(8, 64, precision="float32") if freqs_for == "pixel" else np.ones(8)
        rope = axes.from_bands(64, [band] * 3, layout="interleaved", precision="float32")
        positions = unit_grid(3, 4, 5) if freqs_for == "pixel" else grid(3, 4, 5)
    slack = lost(rope, positions, np.tile(peer.freqs.detach().numpy(), 3))
    assert_tables(
        rope, positions, halved(angles.cos(), "interleaved"), halved(angles.sin(), "interleaved"), reach=slack
    )
    q = heads(rng, 3, 60, 64)
    assert_rotated(rope(q, positions=positions), apply_rotary_emb(angles, q).detach(), 2e-5 + 6 * slack.max())


def test_offsets_of_rotary_embedding_torch_are_lost_in_its_cache() -> None:
    """get_axial_freqs(offsets=...) of language frequencies reads rows by their count, whatever their positions.

    The second axis asks for places 3 .. 10 and is given 0 .. 7, since the first one's 8 rows are cached
    (rotary_embedding_torch.py 0.9.1, `forward`, whose `offset` stays 0). Without the cache both agree.
    """
    rope = axes.axial(32, layout="interleaved", precision="float32")
    for cached, shift in ((True, 0), (False, 3)):
        peer = RotaryEmbedding(dim=16, cache_if_possible=cached)
        angles = peer.get_axial_freqs(8, 8, offsets=(0, 3)).reshape(64, -1).detach()
        positions = grid(8, 8) + np.array([[0], [shift]])
        assert_tables(rope, positions, halved(angles.cos(), "interleaved"), halved(angles.sin(), "interleaved"))


# ---- the bands alone ----


def test_exact_bands() -> None:
    """Of timm's docstring and torch.linspace, by hand."""
    pi = 3.141592653589793
    assert np.allclose(axes.pixel_bands(4, 10.0), pi * np.array([1, 7 / 3, 11 / 3, 5]), rtol=1e-15)
    assert np.allclose(axes.pixel_bands(3, 64.0, spacing="log2"), pi * np.array([1, 2**2.5, 32]), rtol=1e-15)
    assert np.allclose(2 * pi / axes.period_bands(4, base=16.0), [1, 2, 4, 8], rtol=1e-15)
    assert np.allclose(2 * pi / axes.period_bands(3, min_period=2, max_period=32), [2, 8, 32], rtol=1e-15)


WRONG: list[tuple[type[Exception], str, Any]] = [
    (ValueError, "give either base, or min_period and max_period", lambda: axes.period_bands(4)),
    (ValueError, "give either base, or", lambda: axes.period_bands(4, base=10.0, min_period=1, max_period=2)),
    (ValueError, "give either base, or", lambda: axes.dinov3(64, min_period=1.0)),
    (ValueError, "max_period must be positive", lambda: axes.period_bands(4, min_period=1, max_period=-2)),
    (ValueError, "spacing must be one of 'linear', 'log2', got 'mel'", lambda: axes.pixel_bands(4, 8, spacing="mel")),
    (ValueError, "count must be at least 1, got 0", lambda: axes.pixel_bands(0, 8)),
    (ValueError, "precision must be one of", lambda: axes.pixel_bands(4, 8, precision="float16")),
    (ValueError, "head_dim must be a multiple of 4, got 66", lambda: axes.pixtral(66)),
    (ValueError, "head_dim must be a multiple of 16, got 40", lambda: axes.cogvideox(40)),
    (ValueError, "hidden_size must be a multiple of 2, got 2049", lambda: axes.ltx_video(2049)),
    (ValueError, "system must be one of 'qwen2_vl_vision'", lambda: axes.named("vit", 64)),
    (ValueError, "head_dim must be a multiple of 4, got 30", lambda: axes.mixed_frequencies(30, [0.0])),
    (ValueError, "angles must be numbers of shape (heads,)", lambda: axes.mixed_frequencies(32, 0.0)),
    (ValueError, "max_positions must be at least the number of frames (9)",
     lambda: axes.musicflamingo_positions(np.zeros((1, 9)), 8)),
    (ValueError, "timestamps must be numbers of shape (windows, frames)",
     lambda: axes.musicflamingo_positions([1.0], 8)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "call"), WRONG)
def test_wrong_parameters(error: type[Exception], message: str, call: Any) -> None:
    assert_refused(error, message, call)
