"""Gradients of posenc.torch's rotations: of every order, in every argument and dtype, and what they cost."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import posenc
import posenc.torch as pt
from conftest import assert_same_bits
from posenc import axes, gradients
from posenc.scaling import DynamicNTK, Yarn
from posenc.torch import _rotary_ops, _table_ops
from torch_inputs import LAYOUTS, ROPES, noise, rope_of

pytestmark = pytest.mark.usefixtures("quiet_torch")


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        pytest.param(name, layout, marks=() if name == "plain" or layout == LAYOUTS[0] else pytest.mark.broad)
        for name in ROPES
        for layout in LAYOUTS
    ],
)
def test_gradients_of_rotate(name: str, layout: str) -> None:
    """First and second ones, in x, frequencies and positions that differ between rows."""
    rope = rope_of(layout, **ROPES[name])
    x, inv_freq = noise(2, 2, 3, rope.head_dim), torch.tensor(rope.inv_freq, requires_grad=True)
    lead = (rope.axes,) if rope.axes > 1 else ()
    positions = (5 * noise(*lead, 2, 3, seed=1, grows=False)).requires_grad_()

    def call(x: Tensor, inv_freq: Tensor, positions: Tensor) -> Tensor:
        return pt.rotate(rope, x, positions=positions, inv_freq=inv_freq)

    assert gradcheck(call, (x, inv_freq, positions))
    assert gradgradcheck(call, (x, inv_freq, positions))


def test_gradients_of_positions_alone() -> None:
    """Nothing but the positions is watched: x is a constant."""
    rope, x = rope_of(), noise(2, 5, 8)
    positions = torch.arange(5.0, dtype=torch.float64).requires_grad_()
    pt.rotate(rope, x, positions=positions).square().sum().backward()
    assert positions.grad is not None
    watched = positions.detach().clone().requires_grad_()
    pt.rotate(rope, x.clone().requires_grad_(), positions=watched).square().sum().backward()
    assert_same_bits(positions.grad, watched.grad)


def test_gradients_of_positions_that_decide_the_length() -> None:
    rope, x = rope_of(scaling=DynamicNTK(2.0, 4)), noise(2, 5, 8)
    positions = torch.arange(5.0, dtype=torch.float64).requires_grad_()
    pt.rotate(rope, x, positions=positions).square().sum().backward()
    fixed = positions.detach().clone().requires_grad_()
    pt.rotate(rope.at(5), x, positions=fixed).square().sum().backward()
    assert_same_bits(positions.grad, fixed.grad)


def test_gradients_of_shared_positions_and_offsets() -> None:
    rope, x = rope_of(), noise(2, 2, 3, 8)
    inv_freq = torch.tensor(rope.inv_freq, requires_grad=True)
    positions = torch.tensor([0.5, 3.0, 9.25], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, f, p: pt.rotate(rope, x, positions=p, inv_freq=f), (x, inv_freq, positions))
    assert gradgradcheck(lambda x, f: pt.rotate(rope, x, offset=3, inv_freq=f), (x, inv_freq))
    rows = torch.tensor([3, 5])
    assert gradcheck(lambda x, f: pt.rotate(rope, x, offset=rows, inv_freq=f, inverse=True), (x, inv_freq))


@pytest.mark.broad
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 4), (5, 4), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("conjugate", [False, True])
def test_gradients_of_tables(layout: str, shape: tuple[int, ...], conjugate: bool) -> None:
    """Tables of the sequence, longer ones, and with rows of their own."""
    x, cos, sin = noise(2, 2, 3, 8), noise(*shape, seed=1), noise(*shape, seed=2)

    def call(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return pt.apply_rotary_emb(x, cos, sin, layout=layout, conjugate=conjugate)

    assert gradcheck(call, (x, cos, sin))
    assert gradgradcheck(call, (x, cos, sin))


def test_gradients_of_a_table() -> None:
    positions, inv_freq = noise(2, 3), noise(4, seed=1)

    def call(positions: Tensor, inv_freq: Tensor) -> Any:
        return pt.rotary_table(positions, inv_freq, scale=1.25, dtype=torch.float64)

    assert gradcheck(call, (positions, inv_freq))
    assert gradgradcheck(call, (positions, inv_freq))


def test_gradients_of_mixed_frequencies() -> None:
    start = axes.mixed_frequencies(8, np.linspace(0, 3, 2))
    embedding = pt.MixedRotaryEmbedding(8, start, layout="interleaved")
    positions = torch.tensor([[0.0, 1, 2], [2, 0, 1]])

    def call(x: Tensor, inv_freq: Tensor) -> Any:
        return torch.func.functional_call(embedding, {"inv_freq": inv_freq}, (x,), {"positions": positions})

    x, inv_freq = noise(2, 2, 3, 8), embedding.inv_freq.detach().clone().requires_grad_()
    assert gradcheck(call, (x, inv_freq))
    expected = axes.MixedRope(8, start, layout="interleaved")(x.detach(), positions=positions.numpy())
    assert_same_bits(call(x, inv_freq).detach(), expected)
    turned = embedding(x.detach().swapaxes(1, 2), positions=positions, seq_axis=-3, head_axis=-2)
    assert_same_bits(turned.detach(), expected.swapaxes(1, 2))


def taken(dtype: torch.dtype, shape: tuple[int, ...] = (2, 3, 33, 16)) -> tuple[Any, ...]:
    """Return gradients of x, frequencies and positions for values that are exact in bfloat16."""
    rope = rope_of(head_dim=shape[-1])
    x = noise(*shape, dtype=torch.bfloat16, grows=False).to(dtype).requires_grad_()
    grad = noise(*shape, dtype=torch.bfloat16, seed=1, grows=False).to(dtype)
    inv_freq = torch.tensor(rope.inv_freq, requires_grad=True)
    positions = torch.arange(shape[-2], dtype=torch.float64, requires_grad=True)
    y = pt.rotate(rope, x, positions=positions, inv_freq=inv_freq)
    return torch.autograd.grad(y, (x, inv_freq, positions), grad)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-7), (torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)], ids=str
)
def test_gradients_of_lesser_dtypes(dtype: torch.dtype, tolerance: float) -> None:
    """x within one rounding; sums are float64 of exact products for every dtype, so nothing is lost in them."""
    exact, found = taken(torch.float64), taken(dtype)
    assert found[0].dtype == dtype
    error = (found[0].double() - exact[0]).abs()
    assert bool((error <= 1.01 * tolerance * exact[0].abs() + 4e-7).all())
    for mine, its in zip(found[1:], exact[1:], strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-12, atol=1e-12)


def test_gradients_are_the_same_bits_for_any_threads(threads: Callable[[int], None]) -> None:
    shape, found = (1, 4, 3000, 128), []
    for n in (1, 2):
        threads(n)
        found.append(taken(torch.float32, shape))
    for one, two in zip(*found, strict=True):
        assert_same_bits(one, two)


def test_the_gradient_is_that_of_posenc_gradients(rng: np.random.Generator) -> None:
    rope = rope_of("interleaved_to_half", scaling=Yarn(4.0, 32))
    q, k = (torch.from_numpy(rng.standard_normal((2, h, 5, 8)).astype("f")).requires_grad_() for h in (3, 1))
    outputs = pt.rotate(rope, q, k, offset=7)
    for x, y in zip((q, k), outputs, strict=True):
        assert_same_bits(y.detach(), rope(x.detach(), offset=7))
    found = torch.autograd.grad(outputs, (q, k), outputs)
    for g, y in zip(found, outputs, strict=True):
        assert_same_bits(g, gradients.of_x(rope, y.detach(), offset=7))


def test_nothing_of_the_inputs_size_is_saved() -> None:
    """Where frequencies are fixed, x is not kept; where they learn it is, and nothing else of its size."""
    rope, x = rope_of(), noise(2, 4, 64, 8, dtype=torch.float32)
    sizes: list[int] = []

    def pack(t: Tensor) -> Tensor:
        sizes.append(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = pt.rotate(rope, x)
        assert max(sizes) <= 64
        sizes.clear()
        pt.rotate(rope, x, inv_freq=torch.tensor(rope.inv_freq, requires_grad=True))
    assert sorted(sizes)[-2:] == [4, x.numel()]
    assert y.shape == x.shape


# ---- of gradients, and memory ----


def test_third_derivatives() -> None:
    """The gradients of sums are made of operators that have gradients of their own."""
    x, grad, inv_freq = noise(2, 3, 10), noise(2, 3, 10, seed=1), torch.tensor(rope_of().inv_freq, requires_grad=True)
    positions = noise(3, seed=2)
    how = (0, None, 2, 1, 1.5, False, -2)
    call = lambda *given: _rotary_ops.rotate_gradient(*given, *how)  # noqa: E731
    assert gradgradcheck(call, (x, grad, inv_freq, positions))
    tables = lambda x, g: _table_ops.table_gradient(x, g, [2, 4, 4], True, 1, 1, True, -2)  # noqa: E731
    assert gradgradcheck(tables, (x, grad))


def test_second_derivatives_make_nothing_of_the_inputs_size() -> None:
    """Measured: in frequencies and positions nothing larger than tables, in x its own gradient alone."""
    x, grad = (
        noise(1, 64, 256, 64, dtype=torch.float32),
        noise(1, 64, 256, 64, dtype=torch.float32, seed=1, grows=False),
    )
    inv_freq = torch.tensor(rope_of(head_dim=64).inv_freq, requires_grad=True)
    positions = torch.arange(256.0, dtype=torch.float64, requires_grad=True)
    size = x.numel() * 4

    def step(*inputs: Tensor) -> None:
        own = x if inputs[0] is x else x.detach()
        found = _rotary_ops.rotate_gradient(own, grad, inv_freq, positions, 0, None, 0, 0, 1.0, False, -2)
        torch.autograd.grad(found, inputs, [torch.ones_like(f) for f in found])

    for inputs, most in (((inv_freq, positions), 0.5), ((x, inv_freq), 1.5)):
        step(*inputs)
        tracemalloc.start()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            step(*inputs)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        grown = sum(max(0, event.self_cpu_memory_usage) for event in profile.key_averages())
        assert grown + peak <= most * size, f"{(grown + peak) / size:.2f} times x"


def test_memory_is_that_of_outputs_and_gradients() -> None:
    """Measured: NumPy's allocations and torch's, over a forward and backward pass of 16 MiB."""
    rope = posenc.Rope(128, layout="half")
    x = noise(1, 8, 4096, 128, dtype=torch.float32)
    grad = torch.ones_like(x)
    learned = torch.tensor(rope.inv_freq, requires_grad=True)
    size, slack = x.numel() * 4, 1 << 18
    for inv_freq, inputs in ((None, (x,)), (learned, (x, learned))):

        def step(inv_freq: Any = inv_freq, inputs: Any = inputs) -> None:
            y = pt.rotate(rope, x, inv_freq=inv_freq)
            torch.autograd.grad(y, inputs, grad)

        step()
        tracemalloc.start()
        step()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert 2 * size <= peak <= 2 * size + slack
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            step()
        assert sum(max(0, event.self_cpu_memory_usage) for event in profile.key_averages()) <= slack
