"""torch tensors whose memory is not their value, or whose change autograd must know: refused by name, or recorded.

The way to a tensor's memory skips torch's own guards; these stand in for them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

import posenc
import posenc.torch as pt
from conftest import assert_refused, assert_same_bits

SHAPE = (2, 3, 4, 8)
ROPE = posenc.Rope(8, layout="half")


def noise(rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(SHAPE, np.float32))


# ---- autograd ----

GRAD = "requires grad, which this call would not record; use posenc.torch, or pass its .detach()"


def test_gradients_are_refused(rng: np.random.Generator) -> None:
    """As an input, as an output, as a table, as a leaf, as a result, under no_grad too."""
    x, leaf = noise(rng), noise(rng).requires_grad_()
    cos, sin = (torch.from_numpy(table) for table in ROPE.table(4))
    for grown in (leaf, leaf * 2, torch.nn.Parameter(x.clone())):
        assert_refused(TypeError, f"x {GRAD}", lambda g=grown: ROPE(g), x)
        assert_refused(TypeError, f"x {GRAD}", lambda g=grown: ROPE(g, out=g), x)
        assert_refused(TypeError, f"out {GRAD}", lambda g=grown: ROPE(x, out=g), x)
        assert_refused(TypeError, f"k {GRAD}", lambda g=grown: ROPE(x, g, out=(x, g)), x)
        with torch.no_grad():
            assert_refused(TypeError, f"x {GRAD}", lambda g=grown: ROPE(g, out=g), x)
    cos.requires_grad_()
    assert_refused(TypeError, f"cos {GRAD}", lambda: posenc.apply_rotary_emb(x, cos, sin, layout="half"), x)


def test_parameters_without_gradient(rng: np.random.Generator) -> None:
    frozen = torch.nn.Parameter(noise(rng), requires_grad=False)
    expected = ROPE(frozen.detach().clone())
    assert type(ROPE(frozen)) is torch.Tensor
    assert ROPE(frozen, out=frozen) is frozen
    assert_same_bits(frozen, expected)


def test_detached_memory_of_a_leaf(rng: np.random.Generator) -> None:
    """What the message proposes works."""
    leaf = noise(rng).requires_grad_()
    expected = ROPE(leaf.detach())
    ROPE(leaf.detach(), out=leaf.detach())
    assert_same_bits(leaf, expected)


def assert_backward_refused(write: Callable[[torch.Tensor], object]) -> None:
    """A tensor that autograd saved and `write` overwrote makes backward raise instead of giving a wrong gradient."""
    saved, weight = torch.full(SHAPE, 2.0), torch.ones(SHAPE, requires_grad=True)
    product = (saved * weight).sum()
    write(saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_backward_after_a_write_raises() -> None:
    """In place, through another view, as one of a pair, by tables, in a split call's slices."""
    other = torch.ones(SHAPE)
    cos, sin = ROPE.table(4)
    assert_backward_refused(lambda saved: ROPE(saved, out=saved))
    assert_backward_refused(lambda saved: ROPE(other, out=saved))
    assert_backward_refused(lambda saved: ROPE(saved[1:], out=saved[1:]))
    assert_backward_refused(lambda saved: ROPE(saved, other, out=(saved, other)))
    assert_backward_refused(lambda saved: ROPE(other, saved, out=(other, saved)))
    assert_backward_refused(lambda saved: posenc.apply_rotary_emb(saved, cos, sin, layout="half", out=saved))


def test_version_counters() -> None:
    """One step for each tensor written, none for inputs, new tensors and refused calls."""
    q, k = torch.ones(SHAPE), torch.ones(SHAPE)
    ROPE(q, k)
    assert (q._version, k._version) == (0, 0)
    assert_refused(ValueError, "positions", lambda: ROPE(q, positions=[1], out=q), q)
    assert q._version == 0
    ROPE(q, out=q)
    assert (q._version, k._version) == (1, 0)
    ROPE(q, k, out=(q, k))
    assert (q._version, k._version) == (2, 1)
    ROPE(q, out=torch.empty(SHAPE))
    ROPE(q, k.numpy(), out=(q, k.numpy()))
    assert (q._version, k._version) == (3, 1)
    assert ROPE(q)._version == 0


def test_version_of_a_split_call(threads: Callable[[int], None]) -> None:
    """Slices share the counter of the whole: it moves, whichever thread wrote."""
    threads(2)
    saved = torch.ones(16, 1024, 256)
    weight = torch.ones_like(saved).requires_grad_()
    product = (saved * weight).sum()
    posenc.Rope(256, layout="half")(saved, out=saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_inference_tensors(rng: np.random.Generator) -> None:
    """They have no version counter and need none: inside and outside inference mode, alone and beside others."""
    with torch.inference_mode():
        x = noise(rng).clone()
        expected = ROPE(x)
        ROPE(x, out=x)
        assert expected.is_inference()
        assert_same_bits(x, expected)
    assert x.is_inference()
    again, plain = ROPE(x), noise(rng)
    ROPE(x, out=x)
    assert_same_bits(x, again)
    wanted = ROPE(x, plain)
    ROPE(x, plain, out=(x, plain))
    assert_same_bits(x, wanted[0])
    assert_same_bits(plain, wanted[1])
    ROPE(plain, x, out=(plain, x))
    assert plain._version == 2


def test_a_plain_tensor_in_inference_mode() -> None:
    x = torch.ones(SHAPE)
    with torch.inference_mode():
        ROPE(x, out=x)
    assert x._version == 1


# ---- tensors whose memory is not their value ----


class Sub(torch.Tensor):
    pass


def fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.ones(SHAPE)


def quiet(make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Make a tensor of a kind that torch announces as beta or deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


SUBCLASS = "a tensor subclass whose memory may not be its value; pass a plain torch.Tensor"
DENSE = "must be a dense torch tensor in CPU memory, got device"
NOT_ITS_OWN = "must be a dense torch tensor of its own; this one is quantized, nested, or inside a function transform"
FLOATS = "must be float32, float64, float16 or bfloat16 in native byte order, got"
STRANGE: dict[str, tuple[Callable[[], Any], str]] = {
    "subclass": (lambda: torch.ones(SHAPE).as_subclass(Sub), SUBCLASS),
    "fake": (fake, SUBCLASS),
    "negated": (lambda: torch._neg_view(torch.ones(SHAPE)), "is a negated view, stored with the other sign; pass its"),
    "imaginary part of a conjugate": (lambda: torch.ones(SHAPE, dtype=torch.cfloat).conj().imag, "is a negated view"),
    "conjugate": (lambda: torch.ones(SHAPE, dtype=torch.cfloat).conj(), f"{FLOATS} torch.complex64"),
    "complex": (lambda: torch.ones(SHAPE, dtype=torch.cdouble), f"{FLOATS} torch.complex128"),
    "meta": (lambda: torch.ones(SHAPE, device="meta"), f"{DENSE} meta, layout torch.strided"),
    "sparse": (lambda: torch.ones(SHAPE).to_sparse(), f"{DENSE} cpu, layout torch.sparse_coo"),
    "compressed": (lambda: quiet(torch.eye(8).to_sparse_csr), f"{DENSE} cpu, layout torch.sparse_csr"),
    "mkldnn": (lambda: torch.ones(SHAPE).to_mkldnn(), f"{DENSE} cpu, layout torch._mkldnn"),
    "quantized": (lambda: quiet(lambda: torch.quantize_per_tensor(torch.ones(SHAPE), 0.1, 0, torch.qint8)), "must be"),
    "nested": (lambda: quiet(lambda: torch.nested.nested_tensor([torch.ones(4, 8), torch.ones(3, 8)])), NOT_ITS_OWN),
    "zero": (lambda: torch._efficientzerotensor(SHAPE), "has no memory of its own"),
    "int": (lambda: torch.ones(SHAPE, dtype=torch.int32), f"{FLOATS} torch.int32"),
    "bool": (lambda: torch.ones(SHAPE, dtype=torch.bool), f"{FLOATS} torch.bool"),
    "float8": (lambda: torch.ones(SHAPE).to(torch.float8_e4m3fn), f"{FLOATS} torch.float8_e4m3fn"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_tensors(name: str) -> None:
    made, text = STRANGE[name]
    strange, x = made(), torch.ones(SHAPE)
    for call in (lambda: ROPE(strange), lambda: ROPE(strange, out=strange), lambda: ROPE(strange, out=x)):
        assert_refused(TypeError, text, call, x)
    for call in (lambda: ROPE(x, out=strange), lambda: ROPE(x, strange, out=(x, strange))):
        assert_refused(TypeError, text, call, x)


TRANSFORMS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "vmap": (lambda f: torch.vmap(f), "x must be"),
    "grad": (lambda f: torch.func.grad(lambda x: f(x).sum()), "requires grad"),
    "jvp": (lambda f: lambda x: torch.func.jvp(f, (x,), (x,)), "x requires grad"),
    "functionalize": (lambda f: torch.func.functionalize(f), "x has no memory of its own"),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_function_transforms(name: str) -> None:
    """Inside vmap, grad, jvp and functionalize a tensor's memory is not its value."""
    transform, text = TRANSFORMS[name]
    x = torch.ones(SHAPE)
    for inner in (lambda a: ROPE(a), lambda a: ROPE(a, out=a)):
        assert_refused(TypeError, text, lambda inner=inner: quiet(lambda: transform(inner)(x)), x)


# ---- what looks like a plain tensor ----


def test_forward_mode_gradients() -> None:
    x = torch.ones(SHAPE)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones(SHAPE))
        assert_refused(TypeError, "grad", lambda: ROPE(dual), x)
        assert_refused(TypeError, "grad", lambda: ROPE(dual, out=dual), x)


def test_misaligned_tensors() -> None:
    x = torch.frombuffer(bytearray(4 * 64 + 1), dtype=torch.float32, offset=1, count=64).view(8, 8)
    assert_refused(ValueError, "x is not aligned to its element size; pass a copy", lambda: ROPE(x), x)


@pytest.mark.parametrize("name", ["quantized", "nested"])
def test_messages_of_tensors_that_look_dense(name: str) -> None:
    strange = STRANGE[name][0]()
    with pytest.raises(TypeError) as caught:
        ROPE(strange)
    assert "got device cpu, layout torch.strided" not in str(caught.value)


@pytest.mark.parametrize("name", ["vmap", "jvp"])
def test_messages_of_function_transforms(name: str) -> None:
    with pytest.raises(TypeError) as caught:
        quiet(lambda: TRANSFORMS[name][0](lambda a: ROPE(a))(torch.ones(SHAPE)))
    assert "got device cpu, layout torch.strided" not in str(caught.value)


def test_a_plain_tensor_in_fake_mode() -> None:
    """The mode answers every torch operation, even one that looks at memory: only the refusal itself is seen here."""
    x = torch.ones(SHAPE)
    with FakeTensorMode(), pytest.raises(TypeError, match=r"pass out=|FakeTensor"):
        ROPE(x)
    assert (x == 1).all()


def test_parameters_that_torch_refuses_to_convert() -> None:
    """Where torch raises a RuntimeError of its own, the caller still gets a TypeError that says what."""
    x, row = torch.ones(SHAPE), torch.ones(4)
    conjugate, meta = row.to(torch.cfloat).conj(), row.to("meta")
    assert_refused(TypeError, "positions", lambda: ROPE(x, positions=conjugate, out=x), x)
    assert_refused(TypeError, "offset", lambda: ROPE(x, offset=conjugate[:2], out=x), x)
    assert_refused(TypeError, "positions", lambda: ROPE.table(conjugate))
    for wrong in (conjugate, meta):
        assert_refused(TypeError, "inv_freq", lambda w=wrong: posenc.rotary_table(4, w))
        assert_refused(TypeError, "inv_freq", lambda w=wrong: posenc.Rope(8, layout="half", inv_freq=w))
        assert_refused(TypeError, "axis_of_freq", lambda w=wrong: posenc.Rope(8, layout="half", axis_of_freq=w))
    both = {"inv_freq": np.ones(4), "base": row}
    with pytest.raises((TypeError, ValueError), match="base"):
        posenc.Rope(8, layout="half", **both)


CALLS: dict[str, Callable[[Any], Any]] = {
    "offsets": lambda x: pt.rotate(ROPE, x, offset=[3, 1]),
    "positions": lambda x: pt.rotate(ROPE, x, positions=[0.0, 1.0, 2.5, 3.0]),
    "learned frequencies": lambda x: pt.RotaryEmbedding(ROPE, learnable_frequencies=True)(x),
    "mixed": lambda x: pt.MixedRotaryEmbedding(8, np.ones((2, 3, 4)), layout="half")(x, positions=np.ones((2, 4))),
    "alibi": lambda x: pt.add_alibi(x[..., :4], torch.ones(3, device="cpu"), offset=2, key_positions=[0, 1, 2, 3]),
    "t5": lambda x: pt.add_t5_bias(x[..., :4], torch.ones(4, 3, device="cpu"), bidirectional=False),
    "products": lambda x: pt.add_transformer_xl_bias(x[..., :4], x, x),
    "sinusoids": lambda x: pt.SinusoidalEmbedding()(x),
}


@pytest.mark.parametrize("name", CALLS)
def test_another_default_device(name: str) -> None:
    """torch.set_default_device("cuda") changes where torch makes tensors, not where those of a call lie."""
    found = []
    for device in ("cpu", "meta"):
        x = torch.ones(2, 3, 4, 8, requires_grad=True)
        with torch.device(device):
            y = CALLS[name](x)
            y.backward(torch.ones_like(y))
        found.append((y.detach(), x.grad))
    for made, wanted in zip(*found, strict=True):
        assert_same_bits(made, wanted)
