"""posenc.torch's rotary modules and calls: casts, copies, in place, wrong input, other devices."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

import posenc
import posenc.torch as pt
from conftest import assert_same_bits
from posenc.scaling import DynamicNTK
from posenc.torch import _rotary, _rotary_modules
from torch_inputs import LAYOUTS, ROPES, Attention, noise, rope_of

pytestmark = pytest.mark.usefixtures("quiet_torch")


def test_casts_do_not_reach_frequencies() -> None:
    """Issue after issue in the field: a model's .half() rounds inv_freq, and far positions turn by wrong angles."""
    for cast in (
        lambda m: m.half(),
        lambda m: m.to(torch.bfloat16),
        lambda m: m.to("cpu", torch.float16),
        lambda m: m.float(),
    ):
        for learn in (False, True):
            model = Attention(learn)
            cast(model)
            q = noise(1, 4, 8, dtype=torch.float32, grows=False)
            far = torch.arange(100_000, 100_004)
            assert_same_bits(model.rotary(q, positions=far).detach(), rope_of()(q, positions=far))
            if learn:
                assert model.rotary.inv_freq.dtype == torch.float64


def test_state_dict_copies_and_pickles() -> None:
    fixed, learned = pt.RotaryEmbedding(rope_of()), pt.RotaryEmbedding(rope_of(), learnable_frequencies=True)
    assert list(fixed.state_dict()) == []
    assert list(learned.state_dict()) == ["inv_freq"]
    with torch.no_grad():
        learned.inv_freq.mul_(1.5)
    other = pt.RotaryEmbedding(rope_of(), learnable_frequencies=True)
    other.load_state_dict(learned.state_dict())
    x = noise(2, 5, 8, grows=False)
    for copied in (other, copy.deepcopy(learned), pickle.loads(pickle.dumps(learned))):
        assert_same_bits(copied(x).detach(), learned(x).detach())
    assert learned.rope == rope_of(inv_freq=1.5 * rope_of().inv_freq)
    assert_same_bits(learned.rope(x), learned(x).detach())
    assert "learnable_frequencies=True" in repr(learned)


def test_modules_refuse() -> None:
    with pytest.raises(ValueError, match="length-dependent"):
        pt.RotaryEmbedding(rope_of(scaling=DynamicNTK(2.0, 16)), learnable_frequencies=True)
    with pytest.raises(TypeError, match="excludes its parameters, got base"):
        pt.RotaryEmbedding(rope_of(), base=2.0)
    with pytest.raises(TypeError, match="learnable_frequencies must be True or False"):
        pt.RotaryEmbedding(rope_of(), learnable_frequencies=1)  # type: ignore[arg-type]
    mixed = pt.MixedRotaryEmbedding(8, np.ones((2, 3, 4)), layout="half")
    with pytest.raises(ValueError, match=r"positions must have shape \(2, seq\)"):
        mixed(torch.ones(1, 3, 5, 8), positions=torch.arange(5))
    with pytest.raises(ValueError, match="head_axis must be an axis of 3 heads"):
        mixed(torch.ones(1, 2, 5, 8), positions=torch.ones(2, 5))
    with pytest.raises(ValueError, match="5 tokens"):
        mixed(torch.ones(1, 3, 4, 8), positions=torch.ones(2, 5))


def test_a_length_dependent_scaling() -> None:
    rope, x = rope_of(scaling=DynamicNTK(2.0, 16)), noise(40, 8)
    assert_same_bits(pt.rotate(rope, x).detach(), rope(x.detach()))
    assert_same_bits(pt.rotate(rope, x, seq_len=99).detach(), rope(x.detach(), seq_len=99))


# ---- in place, and wrong input ----


def test_in_place() -> None:
    rope, q, k = rope_of(), noise(2, 5, 8, grows=False), noise(2, 5, 8, seed=1, grows=False)
    wanted = rope(q, k)
    found = pt.rotate_(rope, q, k)
    assert found[0] is q
    assert_same_bits(q, wanted[0])
    assert_same_bits(k, wanted[1])


def test_in_place_refuses_where_autograd_would_be_wrong() -> None:
    rope, leaf, plain = rope_of(), noise(2, 5, 8), noise(2, 5, 8, grows=False)
    for call in (lambda: pt.rotate_(rope, leaf), lambda: pt.rotate_(rope, plain, leaf * 2)):
        before = plain.clone()
        with pytest.raises(RuntimeError, match="requires grad and cannot be rotated in place"):
            call()
        assert_same_bits(plain, before)
    product = (plain * leaf).sum()  # saved plain
    pt.rotate_(rope, plain)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_messages_of_the_call_that_records_nothing() -> None:
    with pytest.raises(TypeError, match=r"use posenc\.torch"):
        rope_of()(noise(2, 5, 8))


def test_wrong_input() -> None:
    rope, x = rope_of(), noise(2, 5, 8)
    with pytest.raises(TypeError, match=r"k must be float32, float64, float16 or bfloat16, got torch\.int32"):
        pt.rotate(rope, x, torch.ones(2, 5, 8, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"shape \(..., seq, 8\)"):
        pt.rotate(rope, x[..., :6])
    with pytest.raises(ValueError, match="seq_axis must not be the last"):
        pt.rotate(rope, x, seq_axis=2)
    with pytest.raises(ValueError, match=r"inv_freq must have shape \(4,\)"):
        pt.rotate(rope, x, inv_freq=torch.ones(3))
    with pytest.raises(TypeError, match="positions must be integers, float32 or float64"):
        pt.rotate(rope, x, positions=torch.ones(5, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="exclude each other"):
        pt.rotate(rope, x, positions=torch.arange(5), offset=1)
    with pytest.raises(TypeError, match="offset must be an integer"):
        pt.rotate(rope, x, offset=torch.tensor([0.5, 1.0]))
    with pytest.raises(ValueError, match="positions"):
        pt.rotate(rope, x, positions=torch.arange(4))
    with pytest.raises(TypeError, match=r"torch.float32 or torch.float64"):
        pt.rotary_table(torch.arange(3), torch.ones(2), dtype=torch.float16)


# ---- tensors that posenc cannot reach ----


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ROPES)
def test_the_formula_of_other_devices(name: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own operations over the same tables: the same numbers and gradients, held to here on the CPU."""
    rope = rope_of(layout, **ROPES[name])
    lead = (rope.axes,) if rope.axes > 1 else ()
    positions = torch.randint(0, 99, (*lead, 2, 5)).double().requires_grad_()
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        x, inv_freq = noise(2, 3, 5, rope.head_dim, dtype=dtype), torch.tensor(rope.inv_freq, requires_grad=True)
        found = []
        for kernels in (True, False):
            for module in (_rotary, _rotary_modules):
                monkeypatch.setattr(module, "has_kernels", lambda x, kernels=kernels: kernels)
            y = pt.rotate(rope, x, positions=positions, inv_freq=inv_freq)
            found.append((y, *torch.autograd.grad(y, (x, inv_freq, positions), torch.ones_like(y))))
        tolerance = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float64: 1e-12}[dtype]
        assert_same_bits(found[0][0].detach(), found[1][0].detach())
        for mine, its in zip(*found, strict=True):
            scale = float(mine.detach().abs().max()) + 1
            assert float((mine - its).detach().abs().max()) <= tolerance * scale


def test_meta_tensors() -> None:
    rope, x = rope_of(), torch.empty(2, 3, 5, 8, device="meta")
    assert pt.rotate(rope, x, offset=3).device.type == "meta"
    assert pt.RotaryEmbedding(rope, learnable_frequencies=True)(x, x)[1].shape == x.shape
    mixed = pt.MixedRotaryEmbedding(8, np.ones((2, 3, 4)), layout="half")
    assert mixed(x, positions=torch.ones(2, 5)).shape == x.shape
    assert pt.rotate(rope_of(axis_of_freq=[0, 1, 0, 1]), x, offset=3).shape == x.shape


@pytest.mark.parametrize("offset", [3, [3, 9]])
def test_offsets_count_on_every_axis(offset: int | list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded or not, here and on other devices: as a Rope does, whose axes all count where no positions are given."""
    rope = rope_of(axis_of_freq=[0, 1, 0, 1])
    x = noise(2, 3, 5, 8, dtype=torch.float32)
    wanted = rope(x.detach(), offset=offset)
    assert_same_bits(pt.rotate(rope, x, offset=offset).detach(), wanted)
    monkeypatch.setattr(_rotary, "has_kernels", lambda x: False)
    assert_same_bits(pt.rotate(rope, x, offset=offset).detach(), wanted)


def test_q_and_k_that_do_not_go_together() -> None:
    """Refused where gradients are recorded as they are where they are not."""
    rope, q = rope_of(), noise(2, 3, 5, 8, dtype=torch.float32)
    wrong = {"dtype": q.detach().double(), "sequence length": q.detach()[:, :, :4], "number of axes": q.detach()[0]}
    for what, k in wrong.items():
        for x in (q, q.detach()):
            with pytest.raises((TypeError, ValueError), match=f"q and k must have the same {what}, got "):
                pt.rotate(rope, x, k)


def test_large_results_keep_their_order() -> None:
    """They come from NumPy's memory: the dtype and strides that torch would give, and the numbers of small ones."""
    rope = posenc.Rope(128, layout="half")
    for dtype in (torch.float32, torch.bfloat16):
        x = noise(1, 700, 32, 128, dtype=dtype, grows=False).swapaxes(1, 2)
        for y in (pt.rotate(rope, x), pt.rotate(rope, x.detach().requires_grad_()).detach()):
            assert y.stride() == torch.empty_like(x).stride()
            assert_same_bits(y, rope(x))
        q, k = pt.rotate(rope, x, x[:, :1])
        assert_same_bits(k, rope(x[:, :1]))
        assert_same_bits(q, rope(x))
