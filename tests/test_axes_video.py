"""Images and videos of diffusion models: the tables of diffusers, q and k rotated by its functions."""

from __future__ import annotations

import numpy as np
import pytest

from axes_peers import IN_CI, assert_rotated, assert_tables, grid, halved, lost, needs
from posenc import axes, scaling

if not IN_CI:
    needs("torch", "diffusers")

import torch
from diffusers.models import embeddings
from diffusers.models.transformers import (
    transformer_cogview4,
    transformer_cosmos,
    transformer_flux,
    transformer_flux2,
    transformer_hunyuan_video,
    transformer_ltx,
    transformer_qwenimage,
    transformer_wan,
)

Tensor = torch.Tensor


def heads(rng: np.random.Generator, seq: int, head_dim: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal((2, 3, seq, head_dim)).astype(np.float32))


def centred(shape: tuple[int, int, int]) -> np.ndarray:
    """Return (t, h, w) with 0 in the middle of h and w, the larger half below it, as Qwen-Image has them."""
    t, h, w = grid(*shape)
    return np.stack([t, h - (shape[1] - shape[1] // 2), w - (shape[2] - shape[2] // 2)])


@pytest.mark.parametrize("system", ["flux", "flux2"])
def test_flux(system: str, rng: np.random.Generator) -> None:
    """Both compute angles in float64; text is at 0 on every axis (flux), or along the last one (flux2)."""
    rope = axes.named(system, 128)
    if system == "flux":
        positions = np.pad(np.concatenate([np.zeros((1, 48), int), grid(6, 8)]), ((0, 0), (5, 0)))
        module = transformer_flux.FluxPosEmbed(10000, [16, 56, 56])
    else:
        positions = np.concatenate([np.pad(grid(9), ((3, 0), (0, 0))), np.pad(grid(1, 6, 8), ((0, 1), (0, 0)))], 1)
        module = transformer_flux2.Flux2PosEmbed(2000, [32, 32, 32, 32])
    cos, sin = module(torch.from_numpy(positions.T.copy()))
    assert_tables(rope, positions, halved(cos, "interleaved"), halved(sin, "interleaved"))
    q = heads(rng, positions.shape[1], 128)
    assert_rotated(rope(q, positions=positions), embeddings.apply_rotary_emb(q, (cos, sin)), 2e-6)


def test_wan(rng: np.random.Generator) -> None:
    """In float64 too; (batch, seq, heads, head_dim)."""
    module, rope = transformer_wan.WanRotaryPosEmbed(128, (1, 2, 2), 64), axes.wan(128)
    cos, sin = (t.reshape(3 * 4 * 5, 128) for t in module(torch.zeros(1, 1, 3, 8, 10)))
    positions = grid(3, 4, 5)
    assert_tables(rope, positions, halved(cos, "interleaved"), halved(sin, "interleaved"))
    q = heads(rng, 60, 128).transpose(1, 2)
    wanted = embeddings.apply_rotary_emb(q, (cos, sin), sequence_dim=1)
    assert_rotated(rope(q, positions=positions, seq_axis=-3), wanted, 2e-6)


@pytest.mark.parametrize("crop", [((0, 0), (6, 10)), ((2, 1), (30, 45))])
def test_cogvideox(crop: tuple[tuple[int, int], tuple[int, int]], rng: np.random.Generator) -> None:
    """Fractional places: linspace(start, stop * (n - 1) / n, n) of the crop."""
    cos, sin = embeddings.get_3d_rotary_pos_embed(64, crop, (6, 10), 3)
    (top, left), (bottom, right) = crop
    ends = [(0, 2), (top, bottom * 5 / 6), (left, right * 9 / 10)]
    lines = [np.linspace(*end, n, dtype=np.float32) for end, n in zip(ends, (3, 6, 10), strict=True)]
    positions = np.stack(np.meshgrid(*lines, indexing="ij")).reshape(3, -1)
    rope = axes.cogvideox(64, precision="float32")
    reach = 2.0**-22 * np.abs(positions[rope.axis_of_freq] * rope.inv_freq[:, None]).T  # linspace's own ulps
    assert_tables(rope, positions, halved(cos, "interleaved"), halved(sin, "interleaved"), reach=reach)
    q = heads(rng, 180, 64)
    wanted = embeddings.apply_rotary_emb(q, (cos, sin))
    assert_rotated(rope(q, positions=positions), wanted, 2e-5 + 6 * reach.max())


def test_allegro(rng: np.random.Generator) -> None:
    """Thirds, each with halves of its own."""
    shape = (3, 4, 5)
    *tables, t, h, w = embeddings.get_3d_rotary_pos_embed_allegro(96, ((0, 0), (4, 5)), (4, 5), 3)
    rope, positions = axes.named("allegro", 96, precision="float32"), grid(*shape)
    for line, n in zip((t, h, w), shape, strict=True):
        assert_rotated(line.numpy(), np.arange(n, dtype=np.float32), 1e-6)
    q = heads(rng, 60, 96)
    wanted = embeddings.apply_rotary_emb_allegro(q, tables, torch.from_numpy(positions)[:, None])
    assert_rotated(rope(q, positions=positions), wanted)


def test_hunyuan_video(rng: np.random.Generator) -> None:
    module = transformer_hunyuan_video.HunyuanVideoRotaryPosEmbed(2, 1, [16, 56, 56])
    cos, sin = module(torch.zeros(1, 1, 3, 8, 10))
    rope, positions = axes.named("hunyuan_video", 128, precision="float32"), grid(3, 4, 5)
    assert_tables(rope, positions, halved(cos, "interleaved"), halved(sin, "interleaved"))
    q = heads(rng, 60, 128)
    assert_rotated(rope(q, positions=positions), embeddings.apply_rotary_emb(q, (cos, sin)))


def test_qwen_image(rng: np.random.Generator) -> None:
    """Places around 0, and text after the larger half, on every axis."""
    module = transformer_qwenimage.QwenEmbedRope(10000, [16, 56, 56], scale_rope=True)
    image, text = module([(1, 6, 9)], torch.device("cpu"), max_txt_seq_len=7)
    rope = axes.named("qwen_image", 128, precision="float32")
    positions = np.concatenate([centred((1, 6, 9)), np.broadcast_to(np.arange(4, 11), (3, 7))], axis=1)
    turns = torch.cat([image, text])
    assert_tables(rope, positions, turns.real, turns.imag)
    q = heads(rng, 61, 128).transpose(1, 2)
    wanted = transformer_qwenimage.apply_rotary_emb_qwen(q, turns, use_real=False)
    assert_rotated(rope(q, positions=positions, seq_axis=-3), wanted)


def test_cosmos(rng: np.random.Generator) -> None:
    """An NTK scaling of its own for each axis, and time in units of the base frame rate."""
    module = transformer_cosmos.CosmosRotaryPosEmbed(128, rope_scale=(2.0, 1.0, 3.0))
    cos, sin = module(torch.zeros(1, 1, 3, 8, 10), fps=30)
    scalings = [scaling.NTK(2.0), None, scaling.NTK(3.0)]
    rope = axes.named("cosmos", 128, scaling=scalings, precision="float32")
    positions = grid(3, 4, 5) * np.array([[24 / 30], [1], [1]])
    assert_tables(rope, positions, halved(cos, "half"), halved(sin, "half"))
    q = heads(rng, 60, 128)
    wanted = embeddings.apply_rotary_emb(q, (cos, sin), use_real_unbind_dim=-2)
    assert_rotated(rope(q, positions=positions), wanted)


def test_cogview4(rng: np.random.Generator) -> None:
    """Places of another grid looked up in the trained one: h * 256 // n."""
    module = transformer_cogview4.CogView4RotaryPosEmbed(64, 2, (256, 256))
    cos, sin = module(torch.zeros(1, 1, 12, 20))
    rope, positions = axes.named("cogview4", 64, precision="float32"), grid(6, 10) * 256 // np.array([[6], [10]])
    own = 1.0 / (10000.0 ** (torch.arange(0, 32, 2).float() / 32))
    slack = lost(rope, positions, np.tile(own, 2))
    assert_tables(rope, positions, halved(cos, "half"), halved(sin, "half"), reach=slack)
    q = heads(rng, 60, 64)
    wanted = embeddings.apply_rotary_emb(q, (cos, sin), use_real_unbind_dim=-2)
    assert_rotated(rope(q, positions=positions), wanted, 2e-5 + 6 * slack.max())


@pytest.mark.parametrize("width", [2048, 100])
def test_ltx_video(width: int, rng: np.random.Generator) -> None:
    """Angles up to 15,708 radians, of which the peer's float32 loses up to 3e-3: so many of its ulps, and no more."""
    module = transformer_ltx.LTXVideoRotaryPosEmbed(width)
    cos, sin = module(torch.zeros(1, 60, width), 3, 4, 5, rope_interpolation_scale=(8 / 25, 32, 32))
    share = grid(3, 4, 5) * np.array([[8 / 25 / 20], [32 / 2048], [32 / 2048]])
    positions = 2 * share - 1
    rope = axes.ltx_video(width)
    angles = np.abs(positions[rope.axis_of_freq] * rope.inv_freq[:, None]).T
    reach = 2.0**-24 * (8 * angles + 8 * rope.inv_freq)  # of products and powers; of coordinates near 0
    start = width % 6
    found = [halved(t[0], "interleaved")[:, start // 2 :] for t in (cos, sin)]
    assert_tables(rope, positions, *found, reach=reach)
    slow = rope.inv_freq < 50
    assert_rotated(rope.table(positions)[0][:, slow], found[0][:, slow], 1e-4)
    x = torch.from_numpy(rng.standard_normal((2, 60, width)).astype(np.float32))
    wanted = transformer_ltx.apply_rotary_emb(x, (cos, sin))
    assert_rotated(rope(x, positions=positions)[..., :start], x[..., :start], 0)
    assert_rotated(rope(x, positions=positions), wanted, 2e-5 + 6 * reach.max())


def test_ntk_factor_of_diffusers_is_another_one() -> None:
    """In get_1d_rotary_pos_embed it multiplies the base, without the exponent; Lumina's 2-D tables pass it on."""
    emb = embeddings.get_2d_rotary_pos_embed_lumina(64, 6, 8, linear_factor=2.0, ntk_factor=5.0)
    rope = axes.axial(64, layout="interleaved", base=50000.0, scaling=scaling.Linear(2.0), precision="float32")
    order = axes.axial(64, layout="interleaved", order="alternating", scaling=scaling.DiffusersNTK(5.0))
    assert np.allclose(order.inv_freq.reshape(-1, 2)[:, 0], 2 * rope.inv_freq[:16], rtol=1e-6)
    theirs = emb.reshape(48, 16, 2).transpose(1, 2).reshape(48, 32)  # h and w in turns: to blocks
    assert_tables(rope, grid(6, 8), theirs.real, theirs.imag)


def test_a_difference_is_seen(rng: np.random.Generator) -> None:
    q = heads(rng, 60, 128)
    positions = grid(3, 4, 5)
    right = axes.wan(128)(q, positions=positions)
    for wrong in ("flux", "cogvideox", "cosmos", "hunyuan_video"):
        with pytest.raises(AssertionError):
            assert_rotated(axes.named(wrong, 128)(q, positions=positions), right)
    with pytest.raises(AssertionError):
        assert_rotated(axes.wan(128)(q, positions=positions + 1e-4), right, 2e-6)
