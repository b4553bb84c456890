"""Grids of sinusoids: each convention against the code it is named after, and what tells them apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import posenc
from axes_peers import timm_embeddings
from conftest import assert_same_bits

grid = posenc.sinusoidal_grid
CLOSE = 2e-6  # float32 angles of some tens, against exact ones


def assert_close(found: np.ndarray, peer: torch.Tensor | np.ndarray, tolerance: float = CLOSE) -> None:
    peer = np.asarray(peer)
    assert found.reshape(peer.shape).shape == peer.shape
    assert np.abs(found.reshape(peer.shape) - peer).max() <= tolerance


def mae_source(embed_dim: int, height: int, width: int) -> np.ndarray:
    """facebookresearch/mae, util/pos_embed.py: get_2d_sincos_pos_embed, where "here w goes first"."""
    mesh = np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)))
    halves = []
    for places in mesh:  # "use half of dimensions to encode grid_h": mesh[0], which is w
        omega = 1.0 / 10000 ** (np.arange(embed_dim // 4, dtype=np.float64) / (embed_dim / 4.0))
        out = np.einsum("m,d->md", places.reshape(-1), omega)
        halves.append(np.concatenate([np.sin(out), np.cos(out)], axis=1))
    return np.concatenate(halves, axis=1)


def test_mae() -> None:
    found = grid((5, 7), 24, convention="mae")
    assert_close(found, mae_source(24, 5, 7), 1e-7)
    assert found[0, 3, 0] == np.float32(math.sin(3))  # the first half is w
    assert found[3, 0, 12] == np.float32(math.sin(3))
    with_class = grid((5, 7), 24, convention="mae", prefix_tokens=1)
    assert with_class.shape == (36, 24)
    assert not with_class[0].any()
    assert_same_bits(with_class[1:], found.reshape(-1, 24))


def test_diffusers_two_axes() -> None:
    """DiT and PixArt: another size is stretched to base_size, then divided."""
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    for size, base_size, scale in (((4, 6), 16, 1.0), ((8, 8), 32, 2.0), ((5, 9), 7, 0.5)):
        peer = get_2d_sincos_pos_embed(40, size, base_size=base_size, interpolation_scale=scale, output_type="pt")
        found = grid(size, 40, convention="mae", base_size=base_size, interpolation_scale=scale)
        assert_close(found, peer)


def test_transformers_vit_mae_puts_h_first() -> None:
    """modeling_vit_mae.py of transformers 5 initialises [sin h, cos h, sin w, cos w]; MAE's own code has w first.

    On a square grid the two are each other's transpose, and a checkpoint brings MAE's.
    """
    from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding as peer

    found = grid((3, 5), 16, convention="height_first", prefix_tokens=1)
    assert_close(found, peer(3, 5, 16, cls_token=True))
    square = grid((4, 4), 16, convention="height_first")
    assert_same_bits(np.ascontiguousarray(square.transpose(1, 0, 2)), grid((4, 4), 16, convention="mae"))


def test_timm() -> None:
    """[sin h, sin w, cos h, cos w]; interleaved it is "height_first"; reversed it is the grid of (w, h)."""
    peer = timm_embeddings().build_sincos2d_pos_embed
    assert_close(grid((3, 5), 24, convention="timm"), peer([3, 5], 24))
    assert_close(grid((3, 5), 24, convention="height_first"), peer([3, 5], 24, interleave_sin_cos=True))
    assert_close(
        grid((5, 3), 24, convention="timm", base=100.0), peer([3, 5], 24, temperature=100.0, reverse_coord=True)
    )


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("features", [12, 13])
def test_detr(normalise: bool, features: int) -> None:
    """Pixels counted from 1 along each axis, y first, interleaved; masked pixels are not counted."""
    from transformers.models.detr.modeling_detr import DetrSinePositionEmbedding

    build = DetrSinePositionEmbedding.build_sine_position_embedding
    mask = np.ones((2, 5, 7), bool)
    mask[0, 3:] = mask[1, :, 4:] = False
    if features % 2:  # the peer stacks sines and cosines of equal number
        with pytest.raises(ValueError, match="dim must be a multiple of 4 for convention 'detr', got 26"):
            grid((5, 7), 2 * features, convention="detr")
        return
    for pixels in (mask, None):
        given = None if pixels is None else torch.from_numpy(pixels)
        shape = torch.Size((2, 3, 5, 7))
        peer = build(shape, "cpu", torch.float32, features, normalise, 2 * math.pi, 10000, given)
        found = grid((5, 7), 2 * features, convention="detr", normalise=normalise, mask=pixels)
        found = np.broadcast_to(found, (2, 5, 7, 2 * features))
        assert_close(np.moveaxis(found, -1, 1), peer)


def test_cogvideox() -> None:
    """diffusers' 3-D: a quarter for time, the rest for space with w first."""
    from diffusers.models.embeddings import get_3d_sincos_pos_embed

    peer = get_3d_sincos_pos_embed(64, (6, 5), 3, 1.875, 1.5)  # (width, height), frames
    found = grid((3, 5, 6), 64, convention="cogvideox", interpolation_scale=(1.5, 1.875, 1.875))
    assert_close(found, peer)


@pytest.mark.parametrize("channels", [1, 6, 8, 11, 24, 50])
def test_positional_encodings(channels: int) -> None:
    """tatp22's package: too many columns are made, interleaved axis by axis, and cut off."""
    from positional_encodings import torch_encodings as peer

    two = peer.PositionalEncoding2D(channels)(torch.zeros(1, 4, 5, channels))[0]
    assert_close(grid((4, 5), channels, convention="positional_encodings"), two)
    three = peer.PositionalEncoding3D(channels)(torch.zeros(1, 4, 5, 3, channels))[0]
    assert_close(grid((4, 5, 3), channels, convention="positional_encodings"), three)
    one = peer.PositionalEncoding1D(channels)(torch.zeros(1, 9, channels))[0]
    assert_close(posenc.sinusoidal_table(9, channels, convention="positional_encodings"), one)


def test_precision_and_dtype() -> None:
    """A grid is the exact tables of its axes."""
    for dtype in (np.float32, np.float64):
        found = grid((3, 1000), 16, convention="mae", dtype=dtype)
        wanted = posenc.sinusoidal_table(1000, 8, convention="concatenated", dtype=dtype)
        assert_same_bits(np.ascontiguousarray(found[2, :, :8]), wanted)
    recipe = grid((3, 1000), 16, convention="mae", precision="float32")
    assert 0 < np.abs(recipe - grid((3, 1000), 16, convention="mae")).max() < 1000 * 2**-23


WRONG = {
    "shape must have 2 axes for convention 'mae', got 3": lambda: grid((2, 2, 2), 8, convention="mae"),
    "shape must have 2 or 3 axes": lambda: grid((4,), 8, convention="positional_encodings"),
    "shape[1] must be at least 1, got 0": lambda: grid((2, 0), 8, convention="mae"),
    "dim must be a multiple of 16 for convention 'cogvideox', got 24": lambda: grid(
        (2, 2, 2), 24, convention="cogvideox"
    ),
    "convention must be one of": lambda: grid((2, 2), 8, convention="swin"),
    "base_size belongs to convention 'mae', not 'timm'": lambda: grid((2, 2), 8, convention="timm", base_size=16),
    "normalise belongs to convention 'detr', not 'mae'": lambda: grid((2, 2), 8, convention="mae", normalise=True),
    "mask belongs to convention 'detr', not 'mae'": lambda: grid((2, 2), 8, convention="mae", mask=[[True]]),
    "mask must have shape (2, 2) or (batch, 2, 2), got (3, 2)": lambda: grid(
        (2, 2), 8, convention="detr", mask=np.ones((3, 2), bool)
    ),
    "interpolation_scale must have 2 numbers": lambda: grid((2, 2), 8, convention="mae", interpolation_scale=(1, 2, 3)),
    "interpolation_scale must be positive": lambda: grid((2, 2), 8, convention="mae", interpolation_scale=0),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_fits_no_grid(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        WRONG[text]()
    assert text in str(caught.value)


def test_kinds_that_are_no_grid() -> None:
    with pytest.raises(TypeError, match="shape must be a sequence of integers, got 4"):
        grid(4, 8, convention="mae")
    with pytest.raises(TypeError, match="mask must be boolean, True where a pixel is, got int64"):
        grid((2, 2), 8, convention="detr", mask=np.ones((2, 2), np.int64))
    with pytest.raises(TypeError, match="convention"):
        grid((2, 2), 8)
