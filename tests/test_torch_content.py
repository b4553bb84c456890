"""posenc.torch's biases that content decides: gradients of every order, transforms, the layers of transformers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import posenc.torch as pt
from conftest import assert_same_bits
from posenc import bias
from posenc.torch import _content_ops, _functions
from torch_inputs import finite, noise

pytestmark = pytest.mark.usefixtures("quiet_torch")


Call = tuple[Callable[..., Any], dict[str, Any], tuple[tuple[int, ...], ...]]


def disentangled(x: Tensor, c2p: Tensor | None, p2c: Tensor | None, **how: Any) -> Tensor:
    return pt.add_disentangled_bias(x, c2p=c2p, p2c=p2c, **how)


def of_key(x: Tensor, p2c: Tensor, **how: Any) -> Tensor:
    return pt.add_disentangled_bias(x, p2c=p2c, **how)


ROWS = {"query_positions": torch.tensor([[4, 1, 2], [7, 0, 3]]), "key_positions": torch.arange(4)}
TOKENS = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0]])
#: name -> the function, its options, and the shapes of scores and of what else has a gradient
CALLS: dict[str, Call] = {
    "disentangled": (disentangled, {"scale": 0.5}, ((2, 2, 2, 3), (2, 2, 2, 4), (2, 2, 3, 4))),
    "buckets, causal": (
        disentangled,
        {"num_buckets": 4, "max_distance": 7, "causal": True, "offset": 1},
        ((2, 2, 2, 3), (2, 2, 8), (1, 2, 3, 8)),
    ),
    "listed": (disentangled, {**ROWS, "window": 3}, ((2, 2, 3, 4), (2, 2, 3, 6), (2, 4, 6))),
    "padded": (of_key, {"attention_mask": TOKENS, "beyond": "microsoft"}, ((2, 2, 3, 4), (2, 2, 4, 4))),
    "transformer_xl": (pt.add_transformer_xl_bias, {"scale": 0.5}, ((2, 2, 3, 4), (2, 2, 3, 3), (2, 4, 3), (2, 1, 3))),
    "xlnet, window": (
        pt.add_transformer_xl_bias,
        {"convention": "xlnet", "window": 2},
        ((2, 3, 4), (2, 3, 5), (2, 7, 5), (2, 1, 5)),
    ),
    "conformer, shared rows": (
        pt.add_transformer_xl_bias,
        {"convention": "conformer", "causal": True},
        ((2, 2, 3, 4), (2, 1, 3, 3), (6, 3), (2, 1, 3)),
    ),
    "without v": (pt.add_transformer_xl_bias, {"causal": "skip"}, ((3, 4), (3, 5), (4, 5))),
}


SOME = ("buckets, causal", "conformer, shared rows")
EACH = [name if name in SOME else pytest.param(name, marks=pytest.mark.broad) for name in CALLS]


def inputs_of(name: str) -> list[Tensor]:
    return [noise(*shape, seed=i) for i, shape in enumerate(CALLS[name][2])]


@pytest.mark.parametrize("name", EACH)
def test_gradients(name: str) -> None:
    """First and second ones, in scores, entries, queries, rows and v."""
    function, how, _ = CALLS[name]
    call = lambda *values: finite(function(*values, **how))  # noqa: E731
    assert gradcheck(call, inputs_of(name))
    assert gradgradcheck(call, inputs_of(name))


@pytest.mark.parametrize("name", EACH)
def test_transforms(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.func.grad, vmap over each argument alone and over all, one call each; fullgraph compilation."""
    function, how, _ = CALLS[name]
    inputs, calls, add = inputs_of(name), [], _content_ops.add_in_c
    monkeypatch.setattr(_content_ops, "add_in_c", lambda *args: (calls.append(1), add(*args))[1])

    def loss(*values: Tensor) -> Tensor:
        return finite(function(*values, **how)).sin().sum()

    wanted = torch.autograd.grad(loss(*inputs), inputs)
    plain, every = [x.detach() for x in inputs], tuple(range(len(inputs)))
    twice = [torch.stack([0.5 * x, x], -1) for x in plain]
    torch._dynamo.reset()
    found = {
        "grad": torch.func.grad(loss, every)(*plain),
        "compile": torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(*inputs), inputs),
    }
    for chosen in (every, *((i,) for i in every)):
        calls.clear()
        dims = tuple(-1 if i in chosen else None for i in every)
        values = [twice[i] if i in chosen else plain[i] for i in every]
        found[f"vmap {chosen}"] = [g[1] for g in torch.vmap(torch.func.grad(loss, every), dims)(*values)]
        assert len(calls) == 1, chosen
    for way, gradients in found.items():
        for mine, its in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(mine, its, msg=lambda text, way=way: f"{way}: {text}")


@pytest.mark.parametrize("name", CALLS)
def test_the_formula_of_other_devices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, how, _ = CALLS[name]
    inputs, found = [x.detach().float().requires_grad_() for x in inputs_of(name)], []
    for kernels in (True, False):
        monkeypatch.setattr(_functions, "has_kernels", lambda x, kernels=kernels: kernels)
        y = finite(function(*inputs, **how))
        found.append((y, *torch.autograd.grad(y.sin().sum(), inputs)))
    for mine, its in zip(*found, strict=True):
        torch.testing.assert_close(mine, its, rtol=2e-6, atol=4e-6)


def test_in_place(rng: Any) -> None:
    """The bits of the functions out of place; refused where a gradient would be lost."""
    x = noise(2, 3, 4, 5, dtype=torch.float32, grows=False)
    c2p, q, r = (
        noise(2, 3, 4, 6, dtype=torch.float32, grows=False),
        noise(2, 3, 4, 7, dtype=torch.float32, grows=False),
        noise(3, 5, 7, dtype=torch.float32, grows=False),
    )
    slopes, table = torch.tensor([0.5, 0.25, 2.0]), noise(8, 3, dtype=torch.float32, grows=False)
    for out_of_place, in_place, args, how in (
        (pt.add_alibi, pt.add_alibi_, (slopes,), {"causal": True, "window": 3, "sinks": 1}),
        (pt.add_t5_bias, pt.add_t5_bias_, (table,), {"bidirectional": True, "max_distance": 9}),
        (pt.add_t5_bias, pt.add_t5_bias_, (table.mT,), {"bidirectional": False, "order": "heads_buckets"}),
        (pt.add_disentangled_bias, pt.add_disentangled_bias_, (), {"c2p": c2p, "window": 3}),
        (pt.add_transformer_xl_bias, pt.add_transformer_xl_bias_, (q, r), {"causal": True}),
    ):
        wanted, y = out_of_place(x, *args, **how), x.clone()
        assert in_place(y, *args, **how) is y
        assert_same_bits(y, wanted)
        learned = [a.clone().requires_grad_() if i == len(args) - 1 else a for i, a in enumerate(args)]
        for own in ((y.clone().requires_grad_(), *args), *(((y, *learned),) if args else ())):
            before = own[0].detach().clone()
            with pytest.raises(RuntimeError, match="requires grad, which is not recorded in place"):
                in_place(*own, **how)
            assert_same_bits(own[0].detach(), before)
    product = (y * noise(1, dtype=torch.float32)).sum()  # saved y
    pt.add_alibi_(y, slopes)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


# ---- modules ----


def test_xlnet() -> None:
    """The attention weights of transformers' own layer, from the same parameters; and their gradients."""
    from transformers import XLNetConfig
    from transformers.models.xlnet.modeling_xlnet import XLNetModel, XLNetRelativeAttention

    config = XLNetConfig(vocab_size=8, d_model=24, n_layer=1, n_head=3, d_inner=8, clamp_len=6, dropout=0.0)
    torch.manual_seed(0)
    layer = XLNetRelativeAttention(config).eval()
    for part in (layer.r, layer.r_r_bias, layer.r_w_bias):
        torch.nn.init.normal_(part)
    table = XLNetModel(config).relative_positional_encoding(5, 9)
    q, k = torch.randn(5, 2, 3, 8), torch.randn(9, 2, 3, 8)
    r = torch.einsum("ibh,hnd->ibnd", table, layer.r)
    _, weights = layer.rel_attn_core(q, k, torch.zeros_like(k), r, output_attentions=True)
    wanted = weights.permute(2, 3, 0, 1)  # of (queries, keys, batch, heads)
    scores_of = pt.TransformerXLScores(3, 8, convention="xlnet", clamp_len=6)
    with torch.no_grad():
        scores_of.u.copy_(layer.r_w_bias)
        scores_of.v.copy_(layer.r_r_bias)
        scores_of.projection.weight.copy_(layer.r.flatten(1).T)
    found = scores_of(q.permute(1, 2, 0, 3), k.permute(1, 2, 0, 3)).softmax(-1)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    grad = torch.randn(found.shape)
    theirs = torch.autograd.grad(wanted, (layer.r_w_bias, layer.r_r_bias, layer.r), grad)
    mine = torch.autograd.grad(found, (scores_of.u, scores_of.v, scores_of.projection.weight), grad)
    torch.testing.assert_close(mine[0], theirs[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine[1], theirs[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine[2], theirs[2].flatten(1).T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("terms", [("c2p", "p2c"), ("c2p",), ("p2c",)], ids="|".join)
def test_deberta_v2(terms: tuple[str, ...]) -> None:
    """The scores of transformers' own layer before its softmax, and the gradient of the relative embeddings."""
    from transformers import DebertaV2Config
    from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention, build_relative_position

    config = DebertaV2Config(
        hidden_size=24, num_attention_heads=3, relative_attention=True, position_buckets=8, max_relative_positions=33,
        pos_att_type=list(terms), share_att_key=False,
    )  # fmt: skip
    torch.manual_seed(0)
    layer, embeddings = DisentangledSelfAttention(config).eval(), torch.randn(16, 24, requires_grad=True)
    q, k = torch.randn(6, 37, 8), torch.randn(6, 37, 8)
    position = build_relative_position(q, k, bucket_size=8, max_position=33)
    theirs = layer.disentangled_attention_bias(q, k, position, embeddings, 1 + len(terms))
    module = pt.DisentangledBias(3, 8, 8, num_buckets=8, max_distance=33, terms=terms)
    with torch.no_grad():
        module.rel_embeddings.copy_(embeddings)
        for term, name in (("c2p", "pos_key_proj"), ("p2c", "pos_query_proj")):
            if term in terms:
                getattr(module, name).load_state_dict(getattr(layer, name).state_dict())
    scores = torch.randn(2, 3, 37, 37)
    found = module(scores, q.unflatten(0, (2, 3)), k.unflatten(0, (2, 3)))
    torch.testing.assert_close(found, scores + theirs.unflatten(0, (2, 3)), rtol=2e-6, atol=2e-6)
    grad = torch.randn(2, 3, 37, 37)
    (mine,) = torch.autograd.grad(found, module.rel_embeddings, grad)
    (its,) = torch.autograd.grad(theirs, embeddings, grad.flatten(0, 1))
    torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)


def test_states_and_casts() -> None:
    """state_dict, bfloat16, autocast and compilation of the modules."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    makers: list[tuple[Callable[[], Any], Callable[[Any], Any], list[str]]] = [
        (
            lambda: pt.TransformerXLScores(3, 8, causal=True),
            lambda m: m(q.to(m.u.dtype), k.to(m.u.dtype)),
            ["u", "v", "projection.weight"],
        ),
        (
            lambda: pt.DisentangledBias(3, 8, 4, hidden_size=16, terms=("p2c",), causal=True),
            lambda m: m((q @ k.mT).to(m.rel_embeddings.dtype), *(x.to(m.rel_embeddings.dtype) for x in (q, k))),
            ["rel_embeddings", "pos_query_proj.weight", "pos_query_proj.bias"],
        ),
    ]
    for make, call, names in makers:
        module, other = make(), make()
        assert list(module.state_dict()) == names
        other.load_state_dict(module.state_dict())
        y = call(module).detach()
        assert_same_bits(call(other).detach(), y)
        torch._dynamo.reset()
        assert_same_bits(torch.compile(module, fullgraph=True, backend="aot_eager")(*_inputs(module, q, k)).detach(), y)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = finite(call(module))
        torch.testing.assert_close(cast.float(), finite(y), rtol=0.05, atol=0.05 * float(finite(y).abs().max()))
        halved = call(module.to(torch.bfloat16))
        assert halved.dtype == torch.bfloat16
        torch.testing.assert_close(
            finite(halved).float(), finite(y), rtol=0.05, atol=0.05 * float(finite(y).abs().max())
        )
        assert repr(module)


def _inputs(module: Any, q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
    return (q, k) if isinstance(module, pt.TransformerXLScores) else (q @ k.mT, q, k)


def test_functions_are_those_of_posenc() -> None:
    x, c2p = noise(2, 3, 4, 5, dtype=torch.bfloat16, grows=False), noise(2, 3, 4, 8, dtype=torch.bfloat16, grows=False)
    how = {"num_buckets": 4, "max_distance": 9, "scale": 1 / math.sqrt(3), "causal": True}
    assert_same_bits(pt.add_disentangled_bias(x, c2p=c2p, **how), bias.add_disentangled_bias(x, c2p=c2p, **how))
    q, r, v = noise(2, 3, 4, 6, grows=False), noise(3, 9, 6, seed=1, grows=False), noise(3, 1, 6, seed=2, grows=False)
    for dtype in (torch.float32, torch.float64, torch.float16):
        own = [t.to(dtype) for t in (x, q, r, v)]
        found = pt.add_transformer_xl_bias(*own, convention="xlnet", scale=0.25, window=3)
        wanted = bias.add_transformer_xl_bias(*own, convention="xlnet", scale=0.25, window=3)
        assert_same_bits(found, wanted)


def test_gradients_are_the_same_bits_for_any_threads(threads: Callable[[int], None]) -> None:
    found = []
    x, c2p = noise(1, 6, 500, 700, dtype=torch.float32), noise(1, 6, 500, 32, dtype=torch.float32)
    q, r = noise(1, 6, 500, 8, dtype=torch.float32), noise(6, 700, 8, dtype=torch.float32)
    for n in (1, 2):
        threads(n)
        one = torch.autograd.grad(pt.add_disentangled_bias(x, c2p=c2p).tanh().sum(), (x, c2p))
        two = torch.autograd.grad(finite(pt.add_transformer_xl_bias(x, q, r, causal=True)).tanh().sum(), (x, q, r))
        found.append((*one, *two))
    for mine, its in zip(*found, strict=True):
        assert_same_bits(mine, its)


WRONG: dict[str, tuple[type[Exception], str, Callable[[], object]]] = {
    "nothing": (ValueError, "c2p or p2c must be given", lambda: pt.add_disentangled_bias(torch.zeros(2, 2))),
    "rows": (
        ValueError,
        "r must have 2 distances",
        lambda: pt.add_transformer_xl_bias(torch.zeros(2, 2), torch.zeros(2, 4), torch.zeros(3, 4)),
    ),
    "one side": (
        ValueError,
        "causal must be True or 'skip'",
        lambda: pt.add_transformer_xl_bias(torch.zeros(2, 2), torch.zeros(2, 4), torch.zeros(2, 4), causal=False),
    ),
    "span": (ValueError, "span must be num_buckets", lambda: pt.DisentangledBias(2, 4, 3, num_buckets=4)),
    "terms": (ValueError, "terms must be", lambda: pt.DisentangledBias(2, 4, 3, terms=("p2p",))),
    "convention": (ValueError, "convention", lambda: pt.TransformerXLScores(2, 4, convention="t5")),
    "dim": (ValueError, "dim must be even", lambda: pt.TransformerXLScores(1, 3)),
    "clamp": (ValueError, "clamp_len", lambda: pt.TransformerXLScores(1, 4, clamp_len=0)),
}


@pytest.mark.parametrize("q", [(1, 3, 5, 4), (1, 2, 5, 3), (5, 4)], ids=str)
def test_shapes_of_the_modules(q: tuple[int, ...]) -> None:
    x, right = torch.zeros(q), torch.zeros(1, 2, 5, 4)
    for given in ((x, right), (right, x)):
        with pytest.raises(ValueError, match=r"q and k must have shape \(\.\., 2, seq, 4\), got"):
            pt.TransformerXLScores(2, 4)(*given)
        if q[-1] != 4:
            with pytest.raises(ValueError, match=r"q and k must have shape \(\.\., 2, seq, 4\), got"):
                pt.DisentangledBias(2, 4, 3)(torch.zeros(1, 2, 5, 5), *given)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input(name: str) -> None:
    error, text, call = WRONG[name]
    with pytest.raises(error, match=text):
        call()


MASK = [1, 2, -1, 1]
OPERATORS: dict[str, Callable[[], tuple[Any, tuple[Any, ...]]]] = {
    "add_disentangled": lambda: (
        _content_ops._add_disentangled,
        (noise(2, 3, 4), noise(2, 3, 6), noise(2, 4, 6), None, None, 1, MASK, None, 512, "transformers", 0.5),
    ),
    "disentangled_gradient": lambda: (
        _content_ops._disentangled_gradient,
        (noise(2, 3, 4), [2, 3, 6], None, None, torch.arange(4), 1, MASK, None, 512, "transformers", 0.5),
    ),
    "add_products": lambda: (
        _content_ops._add_products,
        (noise(2, 3, 4), noise(2, 3, 6), noise(2, 4, 6), noise(2, 1, 6), MASK, "transformer_xl", 0.5),
    ),
    "products_gradient": lambda: (
        _content_ops._products_gradient,
        (noise(2, 3, 4), noise(2, 3, 6), noise(2, 4, 6), None, MASK, "transformer_xl", 0.5),
    ),
    "relative_rows": lambda: (_content_ops.relative_rows, (5, 4, 3, "xlnet", 2, 100.0, True)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_as_torch_wants_them(name: str) -> None:
    operator, args = OPERATORS[name]()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static")
    result = torch.library.opcheck(operator, args, test_utils=checks)
    assert set(result.values()) == {"SUCCESS"}
