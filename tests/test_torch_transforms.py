"""What torch does with posenc's rotations: checks of operators, torch.compile, torch.func, vmap, autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import posenc.torch as pt
from conftest import assert_same_bits
from posenc import _core
from posenc.torch import _rotary_ops, _table_ops
from torch_inputs import Attention, noise, rope_of

pytestmark = pytest.mark.usefixtures("quiet_torch")


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


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("learn", [False, True])
def test_a_trace_sees_the_operators(learn: bool) -> None:
    """Else a trace keeps the result of the traced call, whatever it is called with."""
    embedding = pt.RotaryEmbedding(8, layout="half", learnable_frequencies=learn)
    traced = torch.jit.trace(embedding, noise(2, 5, 8), check_trace=False)
    other = torch.full((2, 5, 8), 3.0)
    assert_same_bits(traced(other), embedding(other))


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


def test_autocast_leaves_dtypes_alone() -> None:
    rope = rope_of()
    for dtype in (torch.float32, torch.bfloat16):
        x = noise(2, 5, 8, dtype=dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = pt.rotate(rope, x)
        assert y.dtype == dtype
        assert_same_bits(y.detach(), rope(x.detach()))


MODULES: dict[str, tuple[Callable[[], torch.nn.Module], Callable[[int], tuple[Tensor, ...]]]] = {
    "rotation": (lambda: pt.RotaryEmbedding(8, layout="half"), lambda n: (noise(1, 2, n, 8),)),
    "alibi": (lambda: pt.ALiBi(2, causal=True), lambda n: (noise(2, n, n),)),
    "t5": (lambda: pt.T5RelativeBias(2, bidirectional=True), lambda n: (noise(2, n, n),)),
    "kerple": (lambda: pt.Kerple(2), lambda n: (noise(2, n, n),)),
    "content": (lambda: pt.TransformerXLScores(2, 8, scale=0.3), lambda n: (noise(2, n, 8), noise(2, n, 8))),
    "deberta": (
        lambda: pt.DisentangledBias(2, 8, 4),
        lambda n: (noise(1, 2, n, n), noise(1, 2, n, 8), noise(1, 2, n, 8)),
    ),
    "rows": (lambda: pt.LearnedPositions(32, 8), lambda n: (noise(1, n, 8),)),
}


@pytest.mark.parametrize("name", MODULES)
def test_any_length_is_compiled_once(name: str) -> None:
    """With sizes and numbers that torch.compile leaves open."""
    torch.compiler.reset()
    make, inputs = MODULES[name]
    module = make().double()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for n, stance in ((5, "default"), (9, "fail_on_recompile"), (7, "fail_on_recompile")):
        with torch.compiler.set_stance(stance):
            found = compiled(*inputs(n))
        assert_same_bits(found.detach(), module(*inputs(n)).detach())
        found.sum().backward()  # which is compiled, too


@pytest.mark.parametrize("name", ["kerple", "content"])
def test_any_length_is_exported_once(name: str) -> None:
    make, _ = MODULES[name]
    batch, queries, keys = (torch.export.Dim(name, min=2, max=64) for name in ("batch", "queries", "keys"))
    sizes: dict[str, Any] = {
        "kerple": ([(3, 2, 5, 7)], ({0: batch, 2: queries, 3: keys},)),
        "content": ([(3, 2, 5, 8), (3, 2, 7, 8)], ({0: batch, 2: queries}, {0: batch, 2: keys})),
    }
    shapes, open_sizes = sizes[name]
    module = make().double()
    exported = torch.export.export(module, tuple(noise(*s) for s in shapes), dynamic_shapes=open_sizes).module()
    for more in (0, 4):
        x = [noise(s[0] + more, 2, *(n if n == 8 else n + more for n in s[2:])) for s in shapes]
        assert_same_bits(exported(*x).detach(), module(*x).detach())
