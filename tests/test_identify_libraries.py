"""rotary-embedding-torch, x-transformers, timm and torchtune as black boxes."""

from __future__ import annotations

import importlib.util
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import posenc
import wheels
from axes_peers import timm_embeddings
from posenc import checks
from posenc.checks import identify
from posenc.xpos import XPos

if not os.environ.get("CI"):  # there, a missing package is a failure
    for package in ("torch", "rotary_embedding_torch", "x_transformers"):
        pytest.importorskip(package, reason=f'needs {package}: pip install ".[test]"')

import torch
from rotary_embedding_torch import RotaryEmbedding as LucidRope
from rotary_embedding_torch import apply_rotary_emb as lucid_apply
from x_transformers.x_transformers import RotaryEmbedding as CrossRope
from x_transformers.x_transformers import apply_rotary_pos_emb as cross_apply


def assert_named(found: checks.Identification, **facts: Any) -> None:
    assert found.ok, str(found)
    assert found.faults == ()
    for name, wanted in facts.items():
        got = found.facts[name]
        assert got == (pytest.approx(wanted, rel=1e-4) if isinstance(wanted, float) else wanted), f"{name}\n{found}"


# ---- rotary-embedding-torch


@pytest.mark.parametrize(
    ("theirs", "facts"),
    [
        ({}, {"base": 10000.0}),
        ({"theta": 500000.0}, {"base": 500000.0}),
        ({"theta_rescale_factor": 8.0}, {"base": 10000.0 * 8.0 ** (64 / 62)}),
    ],
)
def test_rotary_embedding_torch(theirs: dict[str, Any], facts: dict[str, Any]) -> None:
    module = LucidRope(64, **theirs)

    def fn(x: Any, positions: Any) -> Any:
        return lucid_apply(module(positions, seq_len=None), x)

    assert_named(identify(fn, 80, like="torch"), layout="interleaved", rotary_dim=64, rotary_offset=0, **facts)


def test_rotary_embedding_torch_interpolated() -> None:
    module = LucidRope(64, interpolate_factor=4.0)

    def fn(x: Any, positions: Any) -> Any:
        if not torch.equal(positions, torch.arange(len(positions)) + positions[0]):
            parts = [fn(x[:, :, j : j + 1], positions[j : j + 1]) for j in range(len(positions))]
            return torch.cat(parts, 2)
        return module.rotate_queries_or_keys(x, offset=int(positions[0]))

    found = identify(fn, 64, like="torch", max_position=4096)
    assert_named(found, layout="interleaved", base=10000.0)
    assert found.rope.scaling.factor == 4.0


def test_rotary_embedding_torch_counts_in_bfloat16() -> None:
    """Its positions take the dtype of the input; its cache then gives a float32 call what a bfloat16 one made."""
    module = LucidRope(64)
    module.rotate_queries_or_keys(torch.zeros(1, 1, 1024, 64, dtype=torch.bfloat16))

    def fn(x: Any, positions: Any) -> Any:
        whole = torch.zeros(1, x.shape[1], int(positions.max()) + 1, 64)
        whole[:, :, positions] = x
        return module.rotate_queries_or_keys(whole)[:, :, positions]

    found = identify(fn, 64, like="torch", max_position=1023)
    assert [fault.fault for fault in found.faults] == ["half_positions"], str(found)


# ---- x-transformers


@pytest.mark.parametrize(
    ("theirs", "facts"),
    [
        ({}, {"base": 10000.0, "scaling": None}),
        ({"base": 1e6}, {"base": 1e6}),
        ({"base_rescale_factor": 4.0}, {"base": 10000.0 * 4.0 ** (32 / 30)}),
        ({"interpolation_factor": 8.0}, {"base": 10000.0, "scaling": "Linear(factor=8.0)"}),
    ],
)
def test_x_transformers(theirs: dict[str, Any], facts: dict[str, Any]) -> None:
    module = CrossRope(32, **theirs)

    def fn(x: Any, positions: Any) -> Any:
        freqs, scale = module(positions)
        return cross_apply(x, freqs, scale)

    assert_named(identify(fn, 64, like="torch"), layout="interleaved", rotary_dim=32, **facts)


def test_x_transformers_xpos() -> None:
    module = CrossRope(64, use_xpos=True)

    def fn(x: Any, positions: Any) -> Any:
        freqs, scale = module(positions)
        return cross_apply(x, freqs, scale)

    found = identify(fn, 64, like="torch", max_position=4096)
    assert not found.ok  # its centre is half of the length, so no XPos is right for every call
    assert found.rope == XPos(posenc.Rope(64, layout="interleaved", precision="float32"), centre=16)
    assert found.residual < 5e-6
    assert any("the centre moves with the length: 2048 in a call" in note for note in found.notes), str(found)
    x = torch.randn(1, 2, 33, 64)
    q2 = fn(x, torch.arange(33))
    torch.testing.assert_close(found.rope.queries(x), q2, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("side", ["query", "key"])
def test_rotary_embedding_torch_xpos(side: str) -> None:
    """Its centre is half the number of tokens: 128 where every call is filled up to 257 of them."""
    module = LucidRope(32, use_xpos=True, xpos_scale_base=256, cache_if_possible=False)
    wanted = posenc.Rope(48, layout="interleaved", rotary_dim=32, precision="float32")

    def fn(x: Any, positions: Any, fill: int = 257) -> Any:
        filled = torch.nn.functional.pad(positions, (0, max(0, fill - len(positions)))).float()
        scale = module.get_scale(filled)[: len(positions)]
        return lucid_apply(module(positions), x, scale=scale if side == "query" else scale**-1)

    found = identify(fn, 48, like="torch", max_position=4096)
    assert found.ok, str(found)
    assert found.rope == XPos(wanted, scale_base=256.0, centre=128)
    assert found.facts["side"] == side
    assert found.residual < 5e-6
    moving = identify(lambda x, positions: fn(x, positions, 0), 48, like="torch", max_position=4096)
    assert not moving.ok
    assert isinstance(moving.rope, XPos)
    assert any("the centre moves with the length" in note for note in moving.notes), str(moving)


def test_xpos_is_not_what_a_rope_should_be() -> None:
    rope = posenc.Rope(32, layout="half")
    xpos = XPos(rope, scale_base=300.0, centre=7.5)
    found = identify(lambda x, p: xpos.keys(x, positions=p), 32, max_position=4096)
    assert found.ok, str(found)
    assert found.rope == xpos
    assert found.reproduce is not None
    x = np.random.default_rng(0).standard_normal((1, 1, 9, 32))
    np.testing.assert_array_equal(found.reproduce(x, np.arange(9)), xpos.keys(x))
    assert "centre=7.5" in found.to_dict()["rope"]
    against = identify(lambda x, p: xpos.keys(x, positions=p), 32, max_position=4096, expected=rope)
    assert not against.ok
    assert [str(fault) for fault in against.faults if fault.fault == "xpos"], str(against)


def test_other_growth_is_not_xpos() -> None:
    """A power of the position that is the same for all pairs, rates that are not xPos's, and a factor beside them."""
    rope = posenc.Rope(32, layout="half")
    rates = np.linspace(0.001, 0.002, 16)
    zeta = np.tile(XPos(rope).zeta, 2)
    for size in (
        lambda p: np.exp(0.001 * p)[:, None],
        lambda p: np.exp(p[:, None] * np.tile(rates, 2)),
        lambda p: 1.5 * zeta ** (p[:, None] / 512),
    ):
        found = identify(lambda x, p, size=size: rope(x, positions=p) * size(p).astype("f"), 32, max_position=4096)
        assert not found.ok
        assert found.name == "unknown: the norm changes with the position", str(found)
        assert found.rope is None


# ---- timm


SIDE = 33


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("temperature", [10000.0, 100.0])
def test_timm(temperature: float, half: bool) -> None:
    """RotaryEmbeddingCat as EVA-02 uses it: sines and cosines of a grid, the rows' frequencies first."""
    timm = timm_embeddings()
    module = timm.RotaryEmbeddingCat(
        64, in_pixels=False, temperature=temperature, feat_shape=[SIDE, SIDE], rotate_half=half
    )
    table = module.get_embed([SIDE, SIDE])

    def fn(x: Any, positions: Any) -> Any:
        if int(positions.max()) >= SIDE:
            raise IndexError(f"the grid ends at {SIDE}")
        return timm.apply_rot_embed_cat(x, table[positions[0] * SIDE + positions[1]], half=half)

    found = identify(fn, 64, axes=2, like="torch")
    assert_named(found, layout="half" if half else "interleaved", base=temperature, axes=2)
    if not half:
        assert found.facts["axis_of_freq"] == [0] * 16 + [1] * 16


# ---- torchtune


def torchtune() -> Any:
    """Return its file alone: the package imports more than is installed."""
    try:
        wheel = wheels.cached(*wheels.TORCHTUNE)
    except wheels.WheelUnavailableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    spec = importlib.util.spec_from_loader("torchtune_position_embeddings", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    path = Path("torchtune/modules/position_embeddings.py")
    with zipfile.ZipFile(wheel) as files:
        exec(compile(files.read(str(path)), str(path), "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("base", [10000, 500000])
def test_torchtune(base: int) -> None:
    module = torchtune().RotaryPositionalEmbeddings(64, 8192, base)

    def fn(x: Any, positions: Any) -> Any:
        return module(x.transpose(1, 2), input_pos=positions[None]).transpose(1, 2)

    found = identify(fn, 64, like="torch")
    assert_named(found, layout="interleaved", base=float(base), scaling=None)
    assert np.array_equal(found.rope.axis_of_freq or [], [])


def test_torchtune_on_images() -> None:
    """VisionRotaryPositionalEmbeddings: x before y, positions from 1, the class token last and not turned."""
    side = 9
    module = torchtune().VisionRotaryPositionalEmbeddings(1, side, 1, 32)

    def fn(x: Any, positions: Any) -> Any:
        if int(positions.max()) >= side:
            raise IndexError(f"the grid ends at {side}")
        token = torch.arange(x.shape[2])  # the module turns whole images: one for each token
        row = positions[0] * side + positions[1]
        whole = torch.zeros(len(token), side * side + 1, x.shape[1], 64)
        whole[token, row] = x[0].transpose(0, 1)
        return module(whole)[token, row].transpose(0, 1)[None]

    found = identify(fn, 64, axes=2, like="torch", max_position=8)
    assert_named(found, layout="interleaved", base=10000.0, position_offset=1.0)
    assert found.facts["axis_of_freq"] == [1] * 16 + [0] * 16
