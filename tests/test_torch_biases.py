"""posenc.torch's biases of scores: every option with gradients of every order, transforms, casts, other devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

import posenc
import posenc.torch as pt
from conftest import assert_same_bits
from posenc.torch import _bias, _bias_ops
from torch_inputs import finite, noise

SHAPE = (2, 3, 4, 5)


pytestmark = pytest.mark.usefixtures("quiet_torch")


#: name -> the module, three heads, and what a call of it gets
MODULES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "alibi": (lambda: pt.ALiBi(3, learnable_slopes=True), {}),
    "alibi of keys, causal": (lambda: pt.ALiBi(3, form="key", causal=True, learnable_slopes=True), {"offset": 2}),
    "alibi, two sides, window": (
        lambda: pt.ALiBi(3, right_slopes=[1, 0.5, 2], window=(1, 2), sinks=1, learnable_slopes=True),
        {"query_positions": torch.tensor([[1, 0, 3, 7], [2, 2, 4, 0]]), "key_positions": torch.arange(5)},
    ),
    "alibi, fractions": (
        lambda: pt.ALiBi(3, causal="skip", learnable_slopes=True),
        {"query_positions": [0.5, 1, 2.25, 4], "key_positions": [0, 0.5, 1, 2, 4]},
    ),
    "alibi, padded": (
        lambda: pt.ALiBi(3, causal=True, learnable_slopes=True),
        {"attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])},
    ),
    "t5": (lambda: pt.T5RelativeBias(3, bidirectional=True, num_buckets=8, max_distance=5), {}),
    "t5, causal, window": (
        lambda: pt.T5RelativeBias(3, bidirectional=False, num_buckets=4, max_distance=9, causal=True, window=3),
        {"offset": torch.tensor([1, 4])},
    ),
    "t5, padded": (
        lambda: pt.T5RelativeBias(3, bidirectional=True, num_buckets=8, max_distance=5),
        {"attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])},
    ),
    "kerple": (lambda: pt.Kerple(3, causal=True), {"offset": 9}),
    "kerple, power, skip": (
        lambda: pt.Kerple(3, form="power", causal="skip", window=3),
        {"query_positions": [3, 1, 0, 2]},
    ),
    "kerple, padded": (lambda: pt.Kerple(3), {"attention_mask": [[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]]}),
}
#: what the data decide, and torch.compile cannot know: see Kerple.forward
DATA_DECIDE = {"kerple, power, skip"}


SOME = ("alibi, two sides, window", "t5, padded", "kerple")
EACH = [name if name in SOME else pytest.param(name, marks=pytest.mark.broad) for name in MODULES]


def made(name: str) -> tuple[nn.Module, dict[str, Any], tuple[str, ...]]:
    torch.manual_seed(0)
    module = MODULES[name][0]()
    return module, MODULES[name][1], tuple(n for n, _ in module.named_parameters())


def run(module: nn.Module, names: tuple[str, ...], how: dict[str, Any], x: Tensor, *values: Tensor) -> Tensor:
    return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,), how)


def inputs_of(module: nn.Module, seed: int = 1) -> list[Tensor]:
    parameters = [p.detach().double().requires_grad_() for p in module.parameters()]
    return [noise(*SHAPE, seed=seed), *parameters]


@pytest.mark.parametrize("name", EACH)
def test_gradients(name: str) -> None:
    """First and second ones, in scores and in all that is learned."""
    module, how, names = made(name)
    inputs = inputs_of(module)
    call = lambda *values: finite(run(module, names, how, *values))  # noqa: E731
    assert gradcheck(call, inputs)
    assert gradgradcheck(call, inputs)


@pytest.mark.parametrize("name", EACH)
def test_transforms(name: str) -> None:
    """torch.func.grad, vmap over everything, over scores alone and over parameters alone; fullgraph compilation."""
    module, how, names = made(name)
    inputs = inputs_of(module)

    def loss(*values: Tensor) -> Tensor:
        return finite(run(module, names, how, *values)).sin().sum()

    wanted = torch.autograd.grad(loss(*inputs), inputs)
    plain, every = [x.detach() for x in inputs], tuple(range(len(inputs)))
    twice = [torch.stack([0.5 * x, x]) for x in plain]
    scores_alone = (0, *[None] * (len(plain) - 1))
    rest_alone = (None, *[0] * (len(plain) - 1))
    found = {
        "grad": torch.func.grad(loss, every)(*plain),
        "vmap": [g[1] for g in torch.vmap(torch.func.grad(loss, every))(*twice)],
        "scores": [g[1] for g in torch.vmap(torch.func.grad(loss, every), scores_alone)(twice[0], *plain[1:])],
        "rest": [g[1] for g in torch.vmap(torch.func.grad(loss, every), rest_alone)(plain[0], *twice[1:])],
    }
    if name not in DATA_DECIDE:
        torch._dynamo.reset()  # each module is a compilation of the same function here
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        found["compile"] = torch.autograd.grad(compiled(*inputs), inputs)
    for way, gradients in found.items():
        for mine, its in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(mine, its, msg=lambda text, way=way: f"{way}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alibi, two sides, window", "t5, padded", "kerple"])
def test_compile_with_inductor(name: str) -> None:
    module, how, _ = made(name)
    x, inputs = noise(*SHAPE, dtype=torch.float32), list(module.parameters())
    torch._dynamo.reset()
    found, wanted = (
        torch.autograd.grad(finite(call(x, **how)).sin().sum(), [x, *inputs])
        for call in (torch.compile(module, fullgraph=True), module)
    )
    for mine, its in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("more", [{}, {"causal": True, "offset": 1}], ids=["plain", "causal"])
def test_functions_of_slopes_for_each_row_and_side(more: dict[str, Any]) -> None:
    """Slopes of a batch, and of keys after the query: the bits of posenc.add_alibi, gradients of all."""
    x, slopes, right = noise(2, 2, 3, 4), noise(2, 2, seed=1), noise(2, 2, seed=2)

    def call(x: Tensor, slopes: Tensor, right: Tensor) -> Tensor:
        return finite(pt.add_alibi(x, slopes, right_slopes=right, **more))

    where = {"query_positions": [1, 2, 3]} if more else {}
    how = {"right_slopes": right.detach().numpy(), "causal": bool(more), **where}
    assert_same_bits(
        call(x, slopes, right).detach(), finite(posenc.add_alibi(x.detach(), slopes.detach().numpy(), **how))
    )
    assert gradcheck(call, (x, slopes, right))
    assert gradgradcheck(call, (x, slopes, right))
    batch = torch.stack([slopes, 2 * slopes]).detach()
    found = torch.vmap(call, (None, 0, None))(x.detach(), batch, right.detach())
    assert_same_bits(found[1], call(x, 2 * slopes, right).detach())


def test_batches_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under vmap the kernels run once, whichever arguments are batched."""
    calls, add = [], _bias_ops._scores.add
    monkeypatch.setattr(_bias_ops._scores, "add", lambda *args: (calls.append(1), add(*args))[1])
    module, how, names = made("alibi")
    x, slopes = (t.detach() for t in inputs_of(module))
    batch, several = torch.stack([x, 2 * x]), torch.stack([slopes, 3 * slopes])
    one = lambda x, m: run(module, names, how, x, m)  # noqa: E731
    for dims, args in (((0, None), (batch, slopes)), ((None, 0), (x, several)), ((0, 0), (batch, several))):
        calls.clear()
        found = torch.vmap(one, dims)(*args)
        assert len(calls) == 1
        for i in range(2):
            own = [a if dim is None else a[i] for a, dim in zip(args, dims, strict=True)]
            assert_same_bits(found[i], one(*own))


def as_functions() -> dict[str, Callable[[nn.Module, Tensor], Tensor]]:
    """What posenc's functions say of the same call."""

    def padded(mask: Any) -> tuple[Any, Any]:
        return posenc.bias.bloom_positions(np.asarray(mask)), np.asarray(mask)[:, None, None] == 0

    def alibi(module: nn.Module, x: Tensor, **more: Any) -> Any:
        return posenc.add_alibi(x, module.slopes.detach().numpy(), **more)

    positions, hidden = padded([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])
    where = {"query_positions": positions[:, 1:], "key_positions": positions}
    t5 = posenc.add_t5_bias
    how = {"bidirectional": True, "max_distance": 5}
    kernels = lambda m, form: posenc.bias.Kerple(m.r1.detach(), m.r2.detach(), form=form)  # noqa: E731
    hide = lambda y: y.masked_fill(torch.from_numpy(hidden), -torch.inf)  # noqa: E731
    return {
        "alibi": alibi,
        "alibi of keys, causal": lambda m, x: alibi(m, x, form="key", causal=True, query_positions=[2, 3, 4, 5]),
        "alibi, two sides, window": lambda m, x: alibi(
            m, x, right_slopes=[1, 0.5, 2], window=(1, 2), sinks=1, **MODULES["alibi, two sides, window"][1]
        ),
        "alibi, fractions": lambda m, x: alibi(m, x, causal="skip", **MODULES["alibi, fractions"][1]),
        "alibi, padded": lambda m, x: hide(alibi(m, x, causal=True, **where)),
        "t5": lambda m, x: t5(x, m.weight.detach(), **how),
        "t5, causal, window": lambda m, x: t5(
            x,
            m.weight.detach(),
            bidirectional=False,
            max_distance=9,
            causal=True,
            window=3,
            query_positions=[[1, 2, 3, 4], [4, 5, 6, 7]],
        ),
        "t5, padded": lambda m, x: hide(t5(x, m.weight.detach(), **how, **where)),
        "kerple": lambda m, x: kernels(m, "log").add(x, causal=True, query_positions=[9, 10, 11, 12]),
        "kerple, power, skip": lambda m, x: kernels(m, "power").add(
            x, causal="skip", window=3, query_positions=[3, 1, 0, 2]
        ),
        "kerple, padded": lambda m, x: hide(kernels(m, "log").add(x, **where)),
    }


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_the_functions(name: str) -> None:
    module, how, _ = made(name)
    for dtype in (torch.float32, torch.bfloat16):
        x = noise(*SHAPE, dtype=dtype, grows=False)
        found, wanted = module(x, **how).detach(), as_functions()[name](module, x)
        if name.startswith("kerple"):  # whose logarithms and powers are torch's here
            torch.testing.assert_close(found, wanted, rtol=1.6e-2 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)
        else:
            assert_same_bits(found, wanted)


@pytest.mark.parametrize("name", MODULES)
def test_the_formula_of_other_devices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, how, _ = made(name)
    x = noise(*SHAPE, dtype=torch.float32)
    found = []
    for kernels in (True, False):
        monkeypatch.setattr(_bias, "has_kernels", lambda x, kernels=kernels: kernels)
        y = finite(module(x, **how))
        found.append((y, *torch.autograd.grad(y.sin().sum(), [x, *module.parameters()])))
    for mine, its in zip(*found, strict=True):
        torch.testing.assert_close(mine, its, rtol=2e-6, atol=2e-6)
    monkeypatch.undo()
    assert module.to("meta")(x.to("meta"), **how).shape == x.shape


def test_states_and_casts() -> None:
    """What is fixed is not in the state_dict; slopes and kernels keep float64 and a table its own dtype."""
    states = {name: list(made(name)[0].state_dict()) for name in ("alibi", "alibi, two sides, window", "t5", "kerple")}
    assert states == {
        "alibi": ["slopes"],
        "alibi, two sides, window": ["slopes", "right_slopes"],
        "t5": ["weight"],
        "kerple": ["r1", "r2"],
    }
    assert list(pt.ALiBi(3, right_slopes=[1, 2, 3]).state_dict()) == []
    for name in MODULES:
        module, how, _ = made(name)
        x = noise(*SHAPE, dtype=torch.float32, grows=False)
        y = finite(module(x, **how)).detach()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert_same_bits(finite(module(x, **how)).detach(), y)
        other = MODULES[name][0]()
        other.load_state_dict(module.state_dict())
        assert_same_bits(finite(other(x, **how)).detach(), y)
        rounded = finite(module.to(torch.bfloat16)(x.to(torch.bfloat16), **how)).detach()
        assert rounded.dtype == torch.bfloat16
        assert float((rounded.float() - y).abs().max()) <= 2**-6 * float(y.abs().max())
        kept = {n: p.dtype for n, p in module.named_parameters()}
        assert set(kept.values()) == {torch.bfloat16 if name.startswith("t5") else torch.float64}
        assert repr(module)


def test_no_temporary_of_the_scores_size() -> None:
    """A step with KERPLE, masked: the result and the gradient of scores, and no third array of their size."""
    module, x = pt.Kerple(4, causal=True), noise(1, 4, 500, 500, dtype=torch.float32)  # in memory of torch's
    size, grad = x.numel() * 4, torch.ones_like(x)

    def step() -> None:
        torch.autograd.grad(module(x), (x, module.r1, module.r2), grad)

    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    grown = sum(max(0, event.self_cpu_memory_usage) for event in profile.key_averages())
    assert 2 * size <= grown <= 2.2 * size, f"{grown / size:.2f} times the scores"


def test_gradients_are_the_same_bits_for_any_threads(threads: Callable[[int], None]) -> None:
    found = []
    for n in (1, 2):
        threads(n)
        x = noise(1, 6, 500, 700, dtype=torch.float32)
        modules = [pt.ALiBi(6, learnable_slopes=True, causal=True), pt.Kerple(6), made("t5")[0]]
        modules[2] = pt.T5RelativeBias(6, bidirectional=True)
        with torch.no_grad():
            modules[2].weight.fill_(0.5)
        found.append([g for m in modules for g in torch.autograd.grad(m(x).tanh().sum(), [x, *m.parameters()])])
    for one, two in zip(*found, strict=True):
        assert_same_bits(one, two)


WRONG: dict[str, tuple[type[Exception], str, Callable[[], object]]] = {
    "form": (ValueError, "form", lambda: pt.ALiBi(4, form="slope")),
    "causal": (TypeError, "causal must be True, False or 'skip'", lambda: pt.ALiBi(4, causal=1)),  # type: ignore[arg-type]
    "window": (ValueError, "window must be at least 1", lambda: pt.Kerple(4, window=0)),
    "sides of keys": (ValueError, "right_slopes need form", lambda: pt.ALiBi(2, form="key", right_slopes=[1, 2])),
    "sides": (ValueError, r"right_slopes must have shape \(4,\)", lambda: pt.ALiBi(4, right_slopes=torch.ones(3))),
    "infinite": (ValueError, "slopes must be finite", lambda: pt.ALiBi(1, slopes=[np.inf])),
    "buckets": (ValueError, "num_buckets", lambda: pt.T5RelativeBias(4, bidirectional=True, num_buckets=0)),
    "heads": (ValueError, "heads", lambda: pt.ALiBi(4)(torch.zeros(1, 3, 2, 2))),
    "heads of kerple": (ValueError, "scores must have 4 heads", lambda: pt.Kerple(4)(torch.zeros(1, 3, 2, 2))),
    "axes": (ValueError, "scores must have shape", lambda: pt.ALiBi(4)(torch.zeros(4))),
    "dtype": (
        TypeError,
        "scores must be float32, float64, float16 or bfloat16, got torch.int32",
        lambda: pt.ALiBi(1)(torch.zeros(1, 2, 2).int()),
    ),
    "both": (
        ValueError,
        "query_positions and offset exclude",
        lambda: pt.ALiBi(1)(torch.zeros(1, 2, 2), query_positions=[0, 1], offset=3),
    ),
    "mask and offset": (
        ValueError,
        "attention_mask excludes positions",
        lambda: pt.ALiBi(1)(torch.zeros(2, 1, 2, 2), attention_mask=torch.ones(2, 2), offset=3),
    ),
    "mask and skip": (
        ValueError,
        "attention_mask excludes causal='skip'",
        lambda: pt.ALiBi(1, causal="skip")(torch.zeros(2, 1, 2, 2), attention_mask=torch.ones(2, 2)),
    ),
    "mask's shape": (
        ValueError,
        r"attention_mask must have shape \(batch, 2\)",
        lambda: pt.ALiBi(1)(torch.zeros(2, 1, 2, 2), attention_mask=torch.ones(2, 3)),
    ),
    "queries": (
        ValueError,
        "query_positions must be given where there are more queries",
        lambda: pt.ALiBi(1)(torch.zeros(1, 3, 2), key_positions=[0, 1]),
    ),
    "fractions": (
        TypeError,
        "must be integers",
        lambda: pt.T5RelativeBias(1, bidirectional=True)(torch.zeros(1, 2, 2), query_positions=[0.5, 1]),
    ),
    "no positions of kerple": (
        ValueError,
        r"query_positions must have shape \(seq,\) = \(2,\)",
        lambda: pt.Kerple(1)(torch.zeros(1, 2, 2), query_positions=[]),
    ),
    "fractions of kerple": (
        TypeError,
        "must be integers",
        lambda: pt.Kerple(1)(torch.zeros(1, 2, 2), query_positions=[0.5, 1]),
    ),
    "far": (
        ValueError,
        "the largest distance must be at most",
        lambda: pt.Kerple(1)(torch.zeros(1, 2, 2), query_positions=[0, 1 << 25]),
    ),
}


def test_an_empty_list_is_no_floats() -> None:
    """Of positions, of queries that are not there, as outside of torch."""
    scores = torch.zeros(2, 1, 0, 3)
    for module in (pt.T5RelativeBias(1, bidirectional=True), pt.ALiBi(1), pt.Kerple(1)):
        assert module(scores, query_positions=[]).shape == scores.shape
    assert pt.LearnedPositions(4, 3)(torch.zeros(0, 3), positions=()).shape == (0, 3)
    with pytest.raises(TypeError, match="must be integers"):
        pt.T5RelativeBias(1, bidirectional=True)(scores, query_positions=torch.zeros(0))


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input(name: str) -> None:
    error, text, call = WRONG[name]
    with pytest.raises(error, match=text):
        call()


OPERATORS: dict[str, Callable[[], tuple[Any, tuple[Any, ...]]]] = {
    "add_line": lambda: (
        _bias_ops._add_line,
        (noise(*SHAPE), noise(3, 2), torch.tensor([[1, 2, 3, 4]] * 2), None, 0, [1, 2, -1, 1], False),
    ),
    "line_gradient": lambda: (_bias_ops._line_gradient, (noise(*SHAPE), [3, 2], None, None, 1, [0, -1, -1, 0], True)),
    "add_entries": lambda: (
        _bias_ops._add_entries,
        (noise(*SHAPE), noise(3, 4), None, None, 1, [2, -1, -1, 0], torch.tensor([3, 2, 1, 0]).int(), -1),
    ),
    "entries_gradient": lambda: (
        _bias_ops._entries_gradient,
        (noise(*SHAPE), [2, 3, 4], None, torch.arange(5), 0, [0, 3, 3, 0], torch.tensor([3, 2, 1, 0]).int(), -1),
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_as_torch_wants_them(name: str) -> None:
    operator, args = OPERATORS[name]()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static")
    result = torch.library.opcheck(operator, args, test_utils=checks)
    assert set(result.values()) == {"SUCCESS"}
