"""Positions of patches: as transformers 5.23 and timm build them, and diffusers where they show in its tables."""

import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.dinov3_vit.modeling_dinov3_vit import get_patches_center_coordinates
from transformers.models.llama4.modeling_llama4 import Llama4VisionRotaryEmbedding
from transformers.models.pixtral.modeling_pixtral import PixtralVisionModel
from transformers.vision_utils import get_vision_position_ids

import posenc
from axes_peers import needs, timm_embeddings
from conftest import assert_refused
from posenc import positions

reproducible = settings(derandomize=True, deadline=None, max_examples=60)
sizes = st.integers(1, 9)


@pytest.fixture(scope="module")
def timm() -> Any:
    return timm_embeddings()


@pytest.fixture(scope="module")
def diffusers() -> Any:
    needs("diffusers")
    return importlib.import_module("diffusers.models.embeddings")


def assert_same(found: Any, wanted: Any, *, tolerance: float = 0.0) -> None:
    """The same shape, and values no farther apart."""
    wanted = np.asarray(wanted)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max(initial=0) <= tolerance


# ---- index grids ----


def test_literals() -> None:
    assert positions.grid((2, 3)).tolist() == [[0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]]
    assert positions.grid((2, 3), order="xy").tolist() == [[0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 1]]
    assert positions.grid((2, 1, 2)).tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]]
    assert positions.grid((3,), start=5).tolist() == [[5, 6, 7]]
    assert positions.grid((1, 2), start=(10, 0.5)).tolist() == [[10, 10], [0.5, 1.5]]
    assert positions.grid((2, 2)).dtype == positions.grid((2, 2), start=(1, 2)).dtype == np.int64
    assert positions.grid((2, 2), start=0.5).dtype == positions.grid((2, 2), resize_from=(2, 2)).dtype == np.float64


@given(h=sizes, w=sizes)
@reproducible
def test_pixtral(h: int, w: int) -> None:
    """The position ids that PixtralVisionModel.forward passes to its rotary module."""
    seen = []

    class SeenError(Exception):
        pass

    def record(_: Any, position_ids: Any) -> None:
        seen.append(position_ids)
        raise SeenError

    it = SimpleNamespace(
        config=SimpleNamespace(output_attentions=False, output_hidden_states=False, return_dict=True),
        patch_size=1,
        patch_conv=torch.nn.Identity(),
        ln_pre=torch.nn.Identity(),
        patch_positional_embedding=record,
    )
    it.patch_conv.weight = torch.zeros(1)
    with pytest.raises(SeenError):
        PixtralVisionModel.forward.__wrapped__.__wrapped__(it, torch.zeros(1, 1, h, w), image_sizes=[(h, w)])
    assert_same(positions.grid((h, w)), seen[0].T)


@given(t=st.integers(1, 3), h=st.integers(1, 4), w=st.integers(1, 4), merge=st.integers(1, 3))
@reproducible
def test_qwen2_vl_vision_order(t: int, h: int, w: int, merge: int) -> None:
    """get_vision_position_ids of transformers' vision_utils, patches by merge blocks."""
    shape = (t, h * merge, w * merge)
    wanted = get_vision_position_ids(torch.tensor([shape]), merge, include_temporal=True).T
    assert_same(positions.grid(shape, merge_size=merge), wanted)
    plain = get_vision_position_ids(torch.tensor([(1, *shape[1:])]), merge).T
    assert_same(positions.grid(shape[1:], merge_size=merge), plain)
    assert_same(positions.grid(shape[1:], merge_size=merge, order="xy"), plain.flip(0))


@pytest.mark.parametrize("side", [3, 8])
def test_llama4_vision(side: int) -> None:
    """Its complex table, made from positions x + 1 and y + 1, and 0 for the class token at the end."""
    config = SimpleNamespace(
        image_size=side, patch_size=1, hidden_size=64, num_attention_heads=2, rope_parameters={"rope_theta": 10000.0}
    )
    table = Llama4VisionRotaryEmbedding(config).forward(torch.zeros(1))[:, 0].numpy()
    found = positions.with_prefix(positions.grid((side, side), order="xy", start=1), 1, at="end")
    frequencies = 1 / 10000.0 ** (np.arange(0, 16, 2) / 16)
    angles = np.concatenate([found[axis][:, None] * frequencies for axis in range(2)], axis=1)
    assert_same(np.exp(1j * angles), table, tolerance=1e-5)


# ---- normalised grids ----


@given(h=sizes, w=sizes)
@reproducible
def test_dinov3(h: int, w: int) -> None:
    wanted = get_patches_center_coordinates(h, w, torch.float32, torch.device("cpu")).T
    assert_same(positions.grid((h, w), normalise="separate"), wanted, tolerance=2.0**-22)


@pytest.mark.parametrize("normalise", ["separate", "min", "max"])
@pytest.mark.parametrize("order", ["ij", "xy"])
@given(h=sizes, w=sizes, start=st.sampled_from([0.0, 0.25, -0.5]), reference=st.none() | st.tuples(sizes, sizes))
@reproducible
def test_centres_as_timm(timm: Any, normalise: str, order: str, h: int, w: int, start: float, reference: Any) -> None:
    wanted = timm._build_grid(
        [h, w],
        grid_type="centered",
        ref_feat_shape=None if reference is None else list(reference),
        grid_offset=start,
        grid_indexing=order,
        normalize_coords=normalise,
    )
    found = positions.grid((h, w), order=order, start=start, normalise=normalise, resize_from=reference)
    assert_same(found, wanted.reshape(-1, 2).T, tolerance=1e-4)


@pytest.mark.parametrize("order", ["ij", "xy"])
@given(h=sizes, w=sizes, start=st.sampled_from([0, 1, 0.5]), reference=st.none() | st.tuples(sizes, sizes))
@reproducible
def test_indices_as_timm(timm: Any, order: str, h: int, w: int, start: float, reference: Any) -> None:
    """EVA's position interpolation: index / actual * trained."""
    wanted = timm._build_grid(
        [h, w],
        ref_feat_shape=None if reference is None else list(reference),
        grid_offset=start,
        grid_indexing=order,
    )
    found = positions.grid((h, w), order=order, start=start, resize_from=reference)
    assert_same(found, wanted.reshape(-1, 2).T, tolerance=1e-5)


@given(h=sizes, w=sizes, reference=st.none() | st.tuples(sizes, sizes))
@reproducible
def test_ends_as_timm(timm: Any, h: int, w: int, reference: Any) -> None:
    wanted = timm._build_grid([h, w], grid_type="pixel", ref_feat_shape=None if reference is None else list(reference))
    found = positions.grid((h, w), normalise="ends", resize_from=reference)
    assert_same(found, wanted.reshape(-1, 2).T, tolerance=1e-5)


def test_normalised_values_are_the_nearest() -> None:
    """(2k - 6) / 6 and 2 (k + .5) / 8 - 1 in float64, both symmetric about 0."""
    assert positions.grid((7,), normalise="ends")[0].tolist() == [(2 * k - 6) / 6 for k in range(7)]
    assert positions.grid((8,), normalise="separate")[0].tolist() == [k / 8 for k in range(-7, 8, 2)]
    assert positions.grid((1,), normalise="ends").tolist() == [[-1.0]]  # as torch.linspace(-1, 1, 1)
    assert positions.grid((2, 4), normalise="max")[0].tolist() == [-0.75] * 4 + [-0.25] * 4
    assert positions.grid((2, 4), normalise="min")[1].tolist() == [-0.5, 0.5, 1.5, 2.5] * 2


def test_resized_values() -> None:
    """Index * trained / actual; middles of patches are stretched before they are laid from -1 to 1."""
    assert positions.grid((4, 2), resize_from=(2, 4)).tolist() == [[0, 0, 0.5, 0.5, 1, 1, 1.5, 1.5], [0, 2] * 4]
    assert positions.grid((2,), start=1, resize_from=(8,)).tolist() == [[4, 8]]
    assert positions.grid((2,), normalise="separate", resize_from=(1,)).tolist() == [[-0.75, -0.25]]


# ---- crops ----


@given(t=st.integers(1, 3), h=sizes, w=sizes, start=st.integers(0, 20), extent=st.integers(1, 60))
@reproducible
def test_cogvideox(diffusers: Any, t: int, h: int, w: int, start: int, extent: int) -> None:
    """The cosines of diffusers' get_3d_rotary_pos_embed, by a Rope with CogVideoX's frequencies at our positions."""
    crops = ((start, 0), (start + extent, extent))
    cos, sin = diffusers.get_3d_rotary_pos_embed(64, crops, (h, w), t)
    found = positions.grid((t, h, w), start=(0, start, 0), stop=(t, start + extent, extent))
    angles = np.concatenate(
        [found[axis][:, None] / 10000.0 ** (np.arange(0, n, 2) / n) for axis, n in enumerate((16, 24, 24))], axis=1
    )
    assert_same(np.cos(angles), cos[:, ::2], tolerance=2e-5)
    assert_same(np.sin(angles), sin[:, ::2], tolerance=2e-5)


def test_crop_literals() -> None:
    """linspace(start, stop * (n - 1) / n, n): the first n of n + 1 even steps where start is 0, not where it is not."""
    assert positions.grid((4,), stop=2).tolist() == [[0, 0.5, 1, 1.5]]
    assert positions.grid((4,), start=2, stop=4).tolist() == [np.linspace(2, 3, 4).tolist()]
    assert positions.grid((1,), start=3, stop=8).tolist() == [[3]]


# ---- prefix tokens ----


def test_prefix_tokens_do_not_turn() -> None:
    grid = positions.grid((2, 3), normalise="separate")
    found = positions.with_prefix(grid, 5)
    assert found.shape == (2, 11)
    assert not found[:, :5].any()
    assert np.array_equal(found[:, 5:], grid)
    rope = posenc.Rope(8, layout="half", axis_of_freq=[0, 0, 1, 1])
    x = np.random.default_rng(11).standard_normal((11, 8)).astype(np.float32)
    assert np.array_equal(rope(x, positions=found)[:5], x[:5])
    assert not np.array_equal(rope(x, positions=found)[5:], x[5:])


def test_prefix_keeps_kind() -> None:
    assert torch.equal(positions.with_prefix(torch.tensor([[3, 4]]), 1), torch.tensor([[0, 3, 4]]))
    assert positions.with_prefix([3, 4], 2, at="end").tolist() == [3, 4, 0, 0]
    assert positions.with_prefix(np.array([1.5]), 0).tolist() == [1.5]


REFUSED = [
    (lambda: positions.grid(4), TypeError, "shape must be a sequence of integers, got 4"),
    (lambda: positions.grid("22"), TypeError, "shape must be a sequence of integers, got '22'"),
    (lambda: positions.grid(()), ValueError, "shape must have 1 to 8 axes, got 0"),
    (lambda: positions.grid((2, 0)), ValueError, "shape[1] must be at least 1, got 0"),
    (lambda: positions.grid((2, 2.0)), TypeError, "shape[1] must be an integer, got 2.0"),
    (lambda: positions.grid((2, 2), order="yx"), ValueError, "order must be one of 'ij', 'xy', got 'yx'"),
    (lambda: positions.grid((2, 2, 2), order="xy"), ValueError, "order 'xy' must have a shape of two axes, got 3"),
    (
        lambda: positions.grid((2, 2), start=(1, 2, 3)),
        ValueError,
        "start must be one number or one per axis of shape, 2, got 3",
    ),
    (lambda: positions.grid((2, 2), start=np.nan), ValueError, "start must be finite, got nan"),
    (lambda: positions.grid((2, 2), start=[0, "1"]), TypeError, "start[1] must be a number, got '1'"),
    (lambda: positions.grid((2, 2), stop=4, normalise="ends"), ValueError, "stop excludes normalise and resize_from"),
    (lambda: positions.grid((2, 2), stop=4, resize_from=(1, 1)), ValueError, "stop excludes normalise and resize_from"),
    (
        lambda: positions.grid((2, 2), normalise="mean"),
        ValueError,
        "normalise must be one of 'separate', 'min', 'max', 'ends'",
    ),
    (lambda: positions.grid((2, 2), normalise="ends", start=1), ValueError, "start must be 0 with normalise='ends'"),
    (
        lambda: positions.grid((2, 2), resize_from=(2,)),
        ValueError,
        "resize_from must have as many axes as shape, 2, got 1",
    ),
    (
        lambda: positions.grid((2, 3), merge_size=2),
        ValueError,
        "merge_size must divide the last two axes of shape, got 2 for (2, 3)",
    ),
    (lambda: positions.grid((4,), merge_size=2), ValueError, "merge_size must divide the last two axes of shape"),
    (lambda: positions.grid((4, 4), merge_size=0), ValueError, "merge_size must be at least 1"),
    (lambda: positions.with_prefix(3, 1), ValueError, "positions must have shape (..., seq), got ()"),
    (lambda: positions.with_prefix([3], -1), ValueError, "num_tokens must be at least 0"),
    (lambda: positions.with_prefix([3], 1, at="middle"), ValueError, "at must be one of 'start', 'end', got 'middle'"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_refuses(call: Any, error: type[Exception], message: str) -> None:
    assert_refused(error, message, call)
