"""posenc.torch's rotations: gradients of every order, torch.compile, torch.func, casts, other devices."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import posenc
import posenc.torch as pt
from conftest import assert_same_bits
from posenc import _core, axes, gradients
from posenc.scaling import DynamicNTK, Yarn
from posenc.torch import _rotary, _rotary_modules, _rotary_ops, _table_ops

LAYOUTS = ("half", "interleaved", "interleaved_to_half")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Leave torch's own deprecations of torch.jit alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        yield


def noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0, grows: bool = True) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    return drawn.requires_grad_(grows)


def rope_of(layout: str = "half", **more: Any) -> posenc.Rope:
    return posenc.Rope(more.pop("head_dim", 8), layout=layout, **more)


ROPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "odd": {"head_dim": 7},
    "partial": {"head_dim": 10, "rotary_dim": 6, "rotary_offset": 1},
    "several axes": {"axis_of_freq": [0, 1, 0, 1]},
    "attention factor": {"scaling": Yarn(4.0, 32)},
}


# ---- gradients ----


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


# ---- what torch does with operators ----


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "rotate": lambda x, f: (_rotary_ops._rotate, (x, f, None, 2, None, 0, 0, 1.5, False, -2)),
    "rotate at positions": lambda x, f: (
        _rotary_ops._rotate,
        (x, f, torch.rand(2, 3).double().requires_grad_(), 0, None, 2, 0, 1.0, False, -2),
    ),
    "rotate_gradient": lambda x, f: (
        _rotary_ops._rotate_gradient,
        (x, x.detach(), f, torch.rand(3).double(), 0, None, 1, 0, 1.0, False, -2),
    ),
    "apply_rotary": lambda x, f: (
        _table_ops._apply_rotary,
        (x, torch.ones(3, 4).double(), noise(3, 4), 0, 0, False, -2),
    ),
    "table_gradient": lambda x, f: (_table_ops._table_gradient, (x, x.detach(), [3, 4], True, 0, 0, False, -2)),
    "rotary_table": lambda x, f: (_table_ops._rotary_table, (torch.rand(2, 3).double(), f, None, 1.0, False, True)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_as_torch_wants_them(name: str) -> None:
    operator, args = OPERATORS[name](noise(2, 2, 3, 8), torch.rand(4).double().requires_grad_())
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static")
    result = torch.library.opcheck(operator, args, test_utils=checks)
    assert set(result.values()) == {"SUCCESS"}


class Attention(torch.nn.Module):
    def __init__(self, learn: bool) -> None:
        super().__init__()
        self.rotary = pt.RotaryEmbedding(8, layout="half", learnable_frequencies=learn)
        self.project = torch.nn.Linear(8, 8)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        q, k = self.rotary(self.project(x), x, positions=positions)
        return (q @ k.mT).tanh().sum()


@pytest.mark.parametrize("learn", [False, True], ids=["fixed", "learnable"])
def test_compile(learn: bool) -> None:
    """Without graph breaks, forward and backward."""
    model, x, positions = Attention(learn), noise(2, 2, 5, 8, dtype=torch.float32), torch.arange(5)
    wanted = torch.autograd.grad(model(x, positions), (x, *model.parameters()))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(x, positions), (x, *model.parameters()))
    for mine, its in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_compile_with_inductor() -> None:
    rope, x = rope_of(), noise(2, 5, 8, dtype=torch.float32)
    compiled = torch.compile(lambda x: pt.rotate(rope, x, offset=3) * 2, fullgraph=True)
    assert_same_bits(compiled(x).detach(), 2 * rope(x.detach(), offset=3))


def test_transforms() -> None:
    """grad, jacrev, vmap over x, over frequencies and over a gradient."""
    rope, x = rope_of(), noise(2, 2, 5, 8, grows=False)
    inv_freq, weight = torch.tensor(rope.inv_freq), noise(2, 2, 5, 8, seed=3, grows=False)

    def loss(inv_freq: Tensor, x: Tensor) -> Tensor:
        return (pt.rotate(rope, x, inv_freq=inv_freq, positions=torch.arange(5.0)) * weight).sum()

    learned = inv_freq.clone().requires_grad_()
    wanted = torch.autograd.grad(loss(learned, x), learned)[0]
    torch.testing.assert_close(torch.func.grad(loss)(inv_freq, x), wanted)
    torch.testing.assert_close(torch.func.jacrev(loss)(inv_freq, x), wanted)
    several = torch.stack([inv_freq, 2 * inv_freq])
    torch.testing.assert_close(torch.vmap(loss, (0, None))(several, x)[0], loss(inv_freq, x))
    torch.testing.assert_close(torch.vmap(torch.func.grad(loss), (0, None))(several, x)[0], wanted)
    rows = torch.tensor([[0, 1, 2, 3, 4], [9, 8, 7, 6, 5]])
    for positions in (None, rows):
        batch = noise(3, 2, 2, 5, 8, grows=False)
        for dim in (0, 2):
            found = torch.vmap(lambda x, p=positions: pt.rotate(rope, x, positions=p, inv_freq=inv_freq), dim)(
                batch.movedim(0, dim)
            )
            assert_same_bits(found, torch.stack([rope(x, positions=positions) for x in batch]))
    tables = rope.table(torch.arange(5), dtype=np.float64)
    found = torch.vmap(lambda x: pt.apply_rotary_emb(x, *tables, layout="half"))(batch)
    assert_same_bits(found, torch.stack([rope(x) for x in batch]))


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What rotated or gathered heads since it was cleared."""
    calls: list[str] = []
    for name in ("rotate", "apply", "rotate_gradient", "table_gradient"):
        own = getattr(_core, name)
        monkeypatch.setattr(_core, name, lambda *args, name=name, own=own: (calls.append(name), own(*args))[1])
    return calls


#: name -> options of a Rope, shapes of positions and frequencies of one element, which of x, frequencies, positions
#: are batched, and what runs for all elements, forward and backward to frequencies
BATCHES: dict[str, tuple[dict[str, Any], tuple[int, ...] | None, str, list[str]]] = {
    "x": ({}, (5,), "x", ["rotate", "table_gradient"]),
    "x with rows": ({}, (2, 5), "x", ["rotate", "table_gradient"]),
    "positions": ({}, (5,), "p", ["rotate", "table_gradient"]),
    "x and positions": ({"head_dim": 7}, (5,), "xp", ["rotate", "table_gradient"]),
    "rows of positions": ({}, (2, 5), "p", ["rotate", "table_gradient"]),
    "axes": ({"axis_of_freq": [0, 1, 0, 1]}, (2, 5), "xp", ["rotate", "table_gradient"]),
    "axes and rows": ({"axis_of_freq": [0, 1, 0, 1]}, (2, 2, 5), "p", ["rotate", "table_gradient"]),
    "frequencies": ({}, (5,), "f", ["apply", "table_gradient"]),
    "frequencies and x": (
        {"head_dim": 10, "rotary_dim": 8, "rotary_offset": 1},
        None,
        "xf",
        ["apply", "table_gradient"],
    ),
    "frequencies, axes": ({"axis_of_freq": [0, 1, 0, 1]}, (2, 2, 5), "f", ["apply", "table_gradient"]),
    "all": ({}, (2, 5), "xfp", ["apply", "table_gradient"]),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batches_are_one_call(name: str, kernel_calls: list[str]) -> None:
    """vmap over any of the arguments: x is rotated once, and gathered once; the numbers of single calls."""
    more, shape, batched, wanted_calls = BATCHES[name]
    rope = rope_of("interleaved_to_half", **more)
    x, inv_freq = noise(3, 2, 2, 5, rope.head_dim, grows=False), torch.tensor(rope.inv_freq)
    several = inv_freq * torch.tensor([[1.0], [2.0], [0.5]])
    positions = None if shape is None else 9 * noise(3, *shape, seed=1, grows=False)
    weight = noise(2, 2, 5, rope.head_dim, seed=2, grows=False)

    def loss(x: Tensor, inv_freq: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        y = pt.rotate(rope, x, positions=positions, inv_freq=inv_freq)
        return (y * weight).sum(), y

    given = [(x, "x"), (several, "f"), (positions, "p")]
    args = [t if t is None or letter in batched else (inv_freq if letter == "f" else t[0]) for t, letter in given]
    dims = tuple(0 if letter in batched else None for _, letter in given)
    kernel_calls.clear()
    found, y = torch.vmap(torch.func.grad(loss, 1, has_aux=True), dims)(*args)
    assert kernel_calls == wanted_calls
    for i in range(3):
        own = [t[i] if letter in batched and t is not None else t for t, (_, letter) in zip(args, given, strict=True)]
        its, one = torch.func.grad(loss, 1, has_aux=True)(*own)
        assert_same_bits(y[i], one)
        torch.testing.assert_close(found[i], its)


@pytest.mark.parametrize("rows", [(), (2,)], ids=["shared", "rows"])
@pytest.mark.parametrize("batched", ["x", "c", "s", "xcs"])
def test_batches_of_tables_are_one_call(batched: str, rows: tuple[int, ...], kernel_calls: list[str]) -> None:
    x, cos, sin = noise(3, 2, 2, 5, 8), noise(3, *rows, 6, 4, seed=1), noise(3, *rows, 6, 4, seed=2)
    tensors = [t.detach() for t in (x, cos, sin)]
    args = [t if letter in batched else t[0] for t, letter in zip(tensors, "xcs", strict=True)]
    dims = tuple(0 if letter in batched else None for letter in "xcs")

    def loss(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return pt.apply_rotary_emb(x, cos, sin, layout="half", conjugate=True).sin().sum()

    kernel_calls.clear()
    found = torch.vmap(torch.func.grad(loss, (0, 1, 2)), dims)(*args)
    assert kernel_calls == ["apply", "apply", "table_gradient"]
    for i in range(3):
        own = [t[i] if letter in batched else t for t, letter in zip(args, "xcs", strict=True)]
        for mine, its in zip(found, torch.func.grad(loss, (0, 1, 2))(*own), strict=True):
            torch.testing.assert_close(mine[i], its)


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


def test_autocast_leaves_dtypes_alone() -> None:
    rope = rope_of()
    for dtype in (torch.float32, torch.bfloat16):
        x = noise(2, 5, 8, dtype=dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = pt.rotate(rope, x)
        assert y.dtype == dtype
        assert_same_bits(y.detach(), rope(x.detach()))


# ---- modules ----


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
    with pytest.raises(TypeError, match="floating-point tensors"):
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
    with pytest.raises(ValueError, match="positions must be given for 2 axes"):
        pt.rotate(rope_of(axis_of_freq=[0, 1, 0, 1]), x)


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
