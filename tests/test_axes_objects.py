"""What is no single Rope: blocks, unequal pairs, mixed frequencies, called as a Rope is; and blocks put together."""

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np
import pytest

import posenc
from axes_peers import IN_CI, grid, needs
from conftest import assert_refused, assert_same_bits, assert_untouched
from posenc import _reference as oracle
from posenc import axes, scaling

if not IN_CI:
    needs("torch")

import torch

POSITIONS = grid(4, 5)


def objects() -> dict[str, tuple[Any, np.ndarray]]:
    """Return every kind of object on a head of 24, for three heads where they matter, and positions to call it with."""
    return {
        "BlockRope": (axes.axial_blocks(24), POSITIONS),
        "UnequalRope half": (axes.hunyuan_vl(24, [4, 5, 3]), grid(2, 2, 5)),
        "UnequalRope interleaved": (axes.vjepa2(24), grid(2, 2, 5)),
        "MixedRope": (axes.MixedRope(24, axes.mixed_frequencies(24, [0.3, 1.0, 2.0]), layout="interleaved"), POSITIONS),
        "MixedRope shared": (axes.MixedRope(24, [[1.0, 0.5], [0.25, 2.0]], layout="half"), POSITIONS),
    }


def some(rng: np.random.Generator, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


KINDS = pytest.mark.parametrize("name", list(objects()))


# ---- every object is called as a Rope is ----


@KINDS
def test_in_place_and_into_out_are_the_same_bits(name: str, rng: np.random.Generator) -> None:
    rope, positions = objects()[name]
    q, k = some(rng, 2, 3, 20, 24), some(rng, 2, 3, 20, 24)
    with assert_untouched(q, k):
        wanted = rope(q, k, positions=positions)
    out = np.empty_like(q), np.empty_like(k)
    returned = rope(q, k, positions=positions, out=out)
    assert returned[0] is out[0]
    assert returned[1] is out[1]
    alone = rope(k, positions=positions)
    place = q.copy(), k.copy()
    rope(*place, positions=positions, out=place)
    for found in (out, place, (wanted[0], alone)):
        for a, b in zip(found, wanted, strict=True):
            assert_same_bits(a, b)


@KINDS
def test_torch_in_torch_out(name: str, rng: np.random.Generator) -> None:
    rope, positions = objects()[name]
    q = some(rng, 2, 3, 20, 24)
    tensor = torch.from_numpy(q.copy())
    found = rope(tensor, positions=torch.from_numpy(positions))
    assert isinstance(found, torch.Tensor)
    assert_same_bits(found.numpy(), rope(q, positions=positions))
    assert rope(tensor, positions=positions, out=tensor) is tensor
    assert torch.equal(tensor, found)


@KINDS
def test_sequence_axis_before_the_heads(name: str, rng: np.random.Generator) -> None:
    rope, positions = objects()[name]
    q = some(rng, 2, 20, 3, 24)
    more = {"head_axis": -2} if name == "MixedRope" else {}
    found = rope(q, positions=positions, seq_axis=-3, **more)
    assert_same_bits(found, rope(q.transpose(0, 2, 1, 3), positions=positions).transpose(0, 2, 1, 3))


@KINDS
@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_dtypes(name: str, dtype: Any, rng: np.random.Generator) -> None:
    rope, positions = objects()[name]
    q = some(rng, 2, 3, 20, 24, dtype=dtype)
    found = rope(q, positions=positions)
    assert found.dtype == dtype
    wanted = rope(q.astype(np.float32), positions=positions)
    assert np.abs(found - wanted).max() < {np.float64: 2e-6, np.float16: 4e-3}[dtype]


@KINDS
def test_wrong_calls_change_nothing(name: str, rng: np.random.Generator) -> None:
    """Neither the first part nor the first array is written before all is checked."""
    rope, positions = objects()[name]
    q, k = some(rng, 2, 3, 20, 24), some(rng, 2, 3, 20, 24)
    too_far = positions.astype(np.float64)
    too_far[-1, -1] = 2.0**40
    for args in ({"positions": positions[:, :7]}, {"positions": positions[0]}, {"positions": too_far}):
        assert_refused(ValueError, "positions", lambda args=args: rope(q, k, out=(q, k), **args), q, k)
    for other in (some(rng, 2, 3, 20, 26), some(rng, 2, 3, 19, 24)):
        both = {"positions": positions, "out": (q, other)}
        assert_refused(ValueError, "", lambda other=other, both=both: rope(q, other, **both), q, other)
    k.flags.writeable = False
    assert_refused(BufferError, "", lambda: rope(q, k, positions=positions, out=(q, k)), q, k)


@KINDS
def test_outputs_that_another_array_needs_are_refused(name: str, rng: np.random.Generator) -> None:
    """What is written for one of q and k is neither the other's input nor its output."""
    rope, positions = objects()[name]
    q, k, other = (some(rng, 2, 3, 20, 24) for _ in range(3))
    for out in ((k, q), (k, other), (other, q), (other, other), (other, other[:, ::-1])):
        assert_refused(
            ValueError, "overlap in memory", lambda out=out: rope(q, k, positions=positions, out=out), q, k, other
        )


# ---- blocks ----


@pytest.mark.parametrize("batched", [False, True])
def test_blocks_are_ropes_of_their_own(batched: bool, rng: np.random.Generator) -> None:
    """Against the oracle on each part of the head alone."""
    widths, base = (12, 8), 50.0
    rope = axes.axial_blocks(24, widths=widths, base=base)
    positions = np.stack([POSITIONS, POSITIONS + 3], axis=1) if batched else POSITIONS
    q = some(rng, 2, 3, 20, 24)
    found, start = rope(q, positions=positions), 0
    for row, width in zip(positions, widths, strict=True):
        part = slice(start, start + width)
        cos, sin = oracle.table(row, oracle.inv_freq(base, width))
        wanted = oracle.apply(q[..., part], cos, sin, "half")
        assert np.abs(found[..., part] - wanted).max() < 2e-6
        start += width
    assert_same_bits(found[..., start:], q[..., start:])
    cos, _ = rope.table(positions)
    assert cos.shape == (*positions.shape[1:], 10)
    assert_same_bits(cos[..., :6], rope.ropes[0].table(positions[0])[0])
    assert_same_bits(cos[..., 6:], rope.ropes[1].table(positions[1])[0])


def test_blocks_without_positions_count_on_every_axis(rng: np.random.Generator) -> None:
    rope, q = axes.axial_blocks(24), some(rng, 2, 3, 20, 24)
    assert_same_bits(rope(q, offset=7), rope(q, positions=np.stack([np.arange(7, 27)] * 2)))


def test_blocks_undo_themselves(rng: np.random.Generator) -> None:
    rope = axes.axial_blocks(24, scaling=scaling.Yarn(factor=4.0, original_max_position_embeddings=16))
    assert rope.ropes[0].attention_factor > 1
    q = some(rng, 3, 20, 24)
    assert np.abs(rope(rope(q, positions=POSITIONS), positions=POSITIONS, inverse=True) - q).max() < 4e-6
    assert_same_bits(rope.table(POSITIONS)[0][:, :6], rope.ropes[0].table(POSITIONS[0])[0])


def test_blocks_are_values() -> None:
    rope, other = axes.axial_blocks(24), axes.axial_blocks(24, base=100.0)
    assert rope == axes.axial_blocks(24) == pickle.loads(pickle.dumps(rope))
    assert rope != other
    assert len({rope, axes.axial_blocks(24), other}) == 2
    assert (
        eval(
            repr(rope),
            {"BlockRope": axes.BlockRope, "Rope": posenc.Rope, "InverseFrequencies": scaling.InverseFrequencies},
        )
        == rope
    )
    assert (rope.head_dim, rope.axes, rope.inv_freq.shape) == (24, 2, (12,))
    assert rope.axis_of_freq is not None
    assert rope.axis_of_freq.tolist() == [0] * 6 + [1] * 6


def test_blocks_of_exchanged_axes(rng: np.random.Generator) -> None:
    """axes=(1, 0): the first block of the head by row 1."""
    q = some(rng, 3, 20, 24)
    exchanged = axes.axial_blocks(24, axes=(1, 0))
    assert_same_bits(exchanged(q, positions=POSITIONS), axes.axial_blocks(24)(q, positions=POSITIONS[::-1]))


# ---- unequal pairs ----


def test_unequal_pairs_by_hand() -> None:
    """One pair, angles x = 0.5 * 2 and y = 0.25 * 2: (a cos x - b sin x, b cos y + a sin y)."""
    first, second = (posenc.Rope(2, layout="half", inv_freq=[f]) for f in (0.5, 0.25))
    found = axes.UnequalRope(first, second)(np.array([[3.0, 4.0]]), positions=[2])
    wanted = [3 * np.cos(1.0) - 4 * np.sin(1.0), 4 * np.cos(0.5) + 3 * np.sin(0.5)]
    assert np.allclose(found, [wanted], rtol=0, atol=1e-15)


def test_unequal_pairs_of_an_odd_head(rng: np.random.Generator) -> None:
    """As if a zero were appended: the last first element is turned by `first`, its second one is dropped."""
    for layout in ("half", "interleaved"):
        first, second = (posenc.Rope(5, layout=layout, inv_freq=rng.uniform(-1, 1, 3)) for _ in range(2))
        longer = (posenc.Rope(6, layout=layout, inv_freq=rope.inv_freq) for rope in (first, second))
        q = some(rng, 3, 20, 5)
        wanted = axes.UnequalRope(*longer)(np.pad(q, ((0, 0), (0, 0), (0, 1))))[..., :5]
        assert_same_bits(axes.UnequalRope(first, second)(q), wanted)


def test_equal_pairs_are_a_rotation(rng: np.random.Generator) -> None:
    for layout in ("half", "interleaved"):
        rope = posenc.Rope(24, layout=layout, rotary_dim=16, rotary_offset=4)
        q = some(rng, 3, 20, 24)
        assert_same_bits(axes.UnequalRope(rope, rope)(q), rope(q))


def test_unequal_rope_is_a_value() -> None:
    assert axes.vjepa2(64) == axes.vjepa2(64) == pickle.loads(pickle.dumps(axes.vjepa2(64)))
    assert hash(axes.vjepa2(64)) != hash(axes.vjepa2(96))
    assert (axes.vjepa2(64).head_dim, axes.vjepa2(64).axes) == (64, 3)


# ---- mixed frequencies ----


@pytest.mark.parametrize("precision", ["exact", "float32"])
@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_mixed_against_the_oracle(precision: str, layout: str, rng: np.random.Generator) -> None:
    inv_freq = rng.uniform(-1, 1, (2, 3, 10))
    rope = axes.MixedRope(24, inv_freq, layout=layout, precision=precision)
    q, positions = some(rng, 2, 3, 20, 24), rng.uniform(-20, 20, (2, 20))
    angles = np.einsum("an,ahi->hni", positions, inv_freq)
    wanted = np.stack([oracle.apply(q[:, h], np.cos(angles[h]), np.sin(angles[h]), layout) for h in range(3)], axis=1)
    found = rope(q, positions=positions)
    assert np.abs(found - wanted).max() < {"exact": 2e-6, "float32": 5e-5}[precision]
    assert np.abs(rope(found, positions=positions, inverse=True) - q).max() < 2e-6


def test_mixed_with_one_direction_is_axial(rng: np.random.Generator) -> None:
    """Zeros in the other axis' place: RoPE-Axial, the same bits."""
    axial = axes.axial(24, layout="interleaved", base=100.0)
    zero = np.zeros(6)
    inv_freq = np.array([[*axial.inv_freq[:6], *zero], [*zero, *axial.inv_freq[6:]]])
    q = some(rng, 2, 3, 20, 24)
    found = axes.MixedRope(24, inv_freq, layout="interleaved")(q, positions=POSITIONS)
    assert_same_bits(found, axial(q, positions=POSITIONS))


def test_mixed_shared_takes_a_batch_of_positions(rng: np.random.Generator) -> None:
    rope = axes.MixedRope(24, rng.uniform(-1, 1, (2, 12)), layout="interleaved")
    q, positions = some(rng, 2, 3, 20, 24), rng.uniform(-5, 5, (2, 2, 20))
    found = rope(q, positions=positions)
    for row in range(2):
        assert_same_bits(found[row], rope(q[row], positions=positions[:, row]))


# ---- putting blocks together ----


def test_layouts_and_orders_by_hand() -> None:
    bands = [[4.0, 3.0], [2.0, 1.0]]
    blocks = axes.from_bands(8, bands, layout="half")
    turns = axes.from_bands(8, bands, layout="half", axes=(1, 0), order="alternating")
    assert blocks.inv_freq.tolist() == [4, 3, 2, 1]
    assert turns.inv_freq.tolist() == [4, 2, 3, 1]
    assert blocks.axis_of_freq is not None
    assert turns.axis_of_freq is not None
    assert blocks.axis_of_freq.tolist() == [0, 0, 1, 1]
    assert turns.axis_of_freq.tolist() == [1, 0, 1, 0]


def test_offset_and_tail_pass_through(rng: np.random.Generator) -> None:
    q = some(rng, 3, 20, 24)
    found = axes.axial(24, layout="interleaved", widths=(8, 4), rotary_offset=6)(q, positions=POSITIONS)
    assert_same_bits(found[..., :6], q[..., :6])
    assert_same_bits(found[..., 18:], q[..., 18:])
    assert (found[:, 1:, 6:18] != q[:, 1:, 6:18]).any(axis=(0, 1)).all()


def test_scalings_with_an_attention_factor() -> None:
    yarn = scaling.Yarn(factor=4.0, original_max_position_embeddings=64)
    rope = axes.axial(24, layout="half", scaling=yarn)
    one = posenc.Rope(12, layout="half", scaling=yarn)
    assert rope.attention_factor == one.attention_factor
    assert np.array_equal(rope.inv_freq, np.tile(one.inv_freq, 2))


def test_every_system_is_built_and_says_where_it_is_from() -> None:
    sizes = {"allegro": 96, "flux": 128, "qwen_image": 128, "hunyuan_video": 128}
    for name, system in axes.SYSTEMS.items():
        rope = axes.named(name, sizes.get(name, 64))
        place = re.search(r"\(([^)]*)\)", system.positions)
        assert place is not None
        assert rope.axes == place[1].count(",") + 1
        assert system.source.split(",")[0] in ("transformers", "diffusers", "timm", "naver-ai/rope-vit")
