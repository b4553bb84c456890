"""posenc.torch's additions to embeddings with their gradients, and learning that arrives."""

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
from posenc.torch import _additive_modules
from posenc.torch import _additive_ops as ops
from torch_inputs import noise

pytestmark = pytest.mark.usefixtures("quiet_torch")


ROWS = torch.tensor([[2, 0, 2], [1, 1, 3]])
CALLS: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "rows": (lambda x, t: ops.add_rows(x, t, None, 1, 0.5, -2), ((2, 3, 4), (5, 4))),
    "chosen rows": (lambda x, t: ops.add_rows(x, t, ROWS, 0, 2.0, -2), ((2, 3, 4), (5, 4))),
    "sinusoids": (lambda x: ops.add_sinusoidal(x, None, 3, "paper", 100.0, 2.0, -2), ((2, 3, 4),)),
}


@pytest.mark.parametrize("name", CALLS)
def test_gradients(name: str) -> None:
    call, shapes = CALLS[name]
    inputs = [noise(*shape, seed=i) for i, shape in enumerate(shapes)]
    assert gradcheck(call, inputs)
    assert gradgradcheck(call, inputs)


@pytest.mark.parametrize("name", ["rows", "sinusoids"])
def test_transforms(name: str) -> None:
    """torch.func.grad, vmap, and torch.compile without graph breaks."""
    call, shapes = CALLS[name]
    inputs = [noise(*shape, seed=i) for i, shape in enumerate(shapes)]

    def loss(*inputs: Tensor) -> Tensor:
        return call(*inputs).sin().sum()

    wanted = torch.autograd.grad(loss(*inputs), inputs)
    plain, every = [x.detach() for x in inputs], tuple(range(len(inputs)))
    for found in (
        torch.func.grad(loss, every)(*plain),
        torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(*inputs), inputs),
        [g[1] for g in torch.vmap(torch.func.grad(loss, every))(*(torch.stack([0 * x, x]) for x in plain))],
    ):
        for mine, its in zip(found, wanted, strict=True):
            torch.testing.assert_close(mine, its)


@pytest.mark.parametrize("rows", [(), (2,)], ids=["shared", "rows"])
@pytest.mark.parametrize("batched", ["x", "p", "xp"])
@pytest.mark.parametrize("learned", [True, False], ids=["learned", "sinusoids"])
def test_batches_are_one_call(
    learned: bool, batched: str, rows: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    name = "add_positions" if learned else "add_sinusoidal"
    own = getattr(posenc.additive, name)
    monkeypatch.setattr(posenc.additive, name, lambda *args, **how: (calls.append(name), own(*args, **how))[1])
    x, table = noise(3, 2, 4, 5, 6, grows=False), noise(9, 6, grows=False)
    positions = torch.randint(0, 9, (3, *rows, 5), generator=torch.Generator().manual_seed(0))

    def one(x: Tensor, positions: Tensor) -> Tensor:
        if learned:
            return ops.add_rows(x, table, positions, 0, 0.5, -2)  # type: ignore[no-any-return]
        return ops.add_sinusoidal(x, positions, 0, "paper", 100.0, 2.0, -2)  # type: ignore[no-any-return]

    args = [t if letter in batched else t[0] for t, letter in ((x, "x"), (positions, "p"))]
    found = torch.vmap(one, tuple(0 if letter in batched else None for letter in "xp"))(*args)
    assert calls == [name]
    for i in range(3):
        assert_same_bits(found[i], one(*(t[i] if c in batched else t for t, c in zip(args, "xp", strict=True))))


def modules() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    x = noise(2, 5, 8, dtype=torch.float32, grows=False)
    return {"sinusoidal": (pt.SinusoidalEmbedding(scale=2.0), x), "learned": (pt.LearnedPositions(9, 8), x)}


def test_modules_are_the_functions() -> None:
    found = {name: (module, x, module(x).detach()) for name, (module, x) in modules().items()}
    _, x, y = found["sinusoidal"]
    assert_same_bits(y, posenc.add_sinusoidal(x, table_scale=2.0))
    learned, _, y = found["learned"]
    assert_same_bits(y, posenc.add_positions(x, learned.weight.detach()))


@pytest.mark.parametrize("name", ["sinusoidal", "learned"])
def test_the_formula_of_other_devices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = modules()[name]
    wanted = module(x)
    monkeypatch.setattr(_additive_modules, "has_kernels", lambda x: False)
    torch.testing.assert_close(module(x), wanted, rtol=1e-6, atol=1e-6)
    x = x.to("meta")
    assert module.to("meta")(x).shape == x.shape


def test_learned_frequencies_of_float32_precision() -> None:
    """A step leaves the float32 numbers; what turns is the Rope of what they are now, whose numbers are float32."""
    embedding = pt.RotaryEmbedding(16, layout="half", precision="float32", learnable_frequencies=True)
    learned = embedding.inv_freq
    assert learned is not None
    with torch.no_grad():
        learned.mul_(1 + 1e-7)
    x, grad = torch.randn(2, 2, 300, 16)
    y = embedding(x)
    y.backward(grad)
    assert embedding.rope.inv_freq.tolist() != learned.tolist()
    assert_same_bits(y.detach(), embedding.rope(x))
    assert_same_bits(learned.grad, torch.from_numpy(posenc.gradients.of_frequencies(embedding.rope, x, grad)))


def test_states_and_casts() -> None:
    """What is fixed is not in the state_dict."""
    states = {name: list(module.state_dict()) for name, (module, _) in modules().items()}
    assert states == {"sinusoidal": [], "learned": ["weight"]}
    for module, x in modules().values():
        y = module(x).detach()
        rounded = module.to(torch.bfloat16)(x.to(torch.bfloat16)).detach()
        assert rounded.dtype == torch.bfloat16
        assert float((rounded.float() - y).abs().max()) <= 2**-6 * float(y.abs().max())
        assert repr(module)


def test_wrong_input() -> None:
    with pytest.raises(IndexError, match="outside the table"):
        pt.LearnedPositions(4, 8)(torch.zeros(1, 5, 8))
    with pytest.raises(ValueError, match="convention"):
        pt.SinusoidalEmbedding(convention="none")


# ---- learning ----


def test_frequencies_of_a_signal_are_found() -> None:
    """The example of the docs: two axes, float positions, planted frequencies; each within 1e-4 of its own."""
    torch.manual_seed(0)
    planted = torch.tensor([0.70, 0.45, 1.10, 0.30], dtype=torch.float64)
    axes = [0, 0, 1, 1]
    rope = posenc.Rope(8, layout="half", inv_freq=planted.numpy() * [1.04, 0.95, 1.03, 0.96], axis_of_freq=axes)
    embedding = pt.RotaryEmbedding(rope, learnable_frequencies=True)
    positions = 8 * torch.rand(2, 256, dtype=torch.float64)  # irregular samples of a plane
    truth = posenc.Rope(8, layout="half", inv_freq=planted.numpy(), axis_of_freq=axes)
    x = torch.ones(256, 8, dtype=torch.float64)
    target = truth(x, positions=positions)
    optimizer = torch.optim.Adam(embedding.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98)
    for _ in range(250):
        optimizer.zero_grad()
        (embedding(x, positions=positions) - target).square().mean().backward()
        optimizer.step()
        scheduler.step()
    found = embedding.inv_freq.detach()
    assert float((found - planted).abs().max()) < 1e-4
    assert bool(((torch.tensor(rope.inv_freq) - planted).abs() > 0.01).all())


def test_mixed_frequencies_and_slopes_learn() -> None:
    """A planted rotation of an image's patches, and planted slopes, from perturbed ones."""
    torch.manual_seed(0)
    planted = posenc.axes.mixed_frequencies(8, [0.3, 1.1])
    model = pt.MixedRotaryEmbedding(8, planted * 1.05, layout="interleaved")
    grid = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")).reshape(2, -1)
    x = torch.ones(1, 2, 16, 8, dtype=torch.float64)
    wanted = posenc.axes.MixedRope(8, planted, layout="interleaved")(x, positions=grid)
    alibi, slopes = pt.ALiBi(4, learnable_slopes=True), torch.tensor([0.9, 0.4, 0.2, 0.1], dtype=torch.float64)
    scores = noise(4, 12, 12, grows=False)
    weights = posenc.add_alibi(scores, slopes).softmax(-1)
    groups = [{"params": list(model.parameters())}, {"params": list(alibi.parameters()), "lr": 0.1}]
    optimizer = torch.optim.Adam(groups, lr=0.02)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98)
    for _ in range(250):
        optimizer.zero_grad()
        loss = (model(x, positions=grid) - wanted).square().mean()
        loss = loss + (alibi(scores).softmax(-1) - weights).square().sum()
        loss.backward()
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(model.inv_freq.detach(), planted, atol=1e-3)
    np.testing.assert_allclose(alibi.slopes.detach(), slopes, atol=1e-3)


class PlainRotary(nn.Module):
    """The rotation as model code writes it."""

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        dim, seq = q.shape[-1], q.shape[-2]
        angles = torch.arange(seq)[:, None] * 10000.0 ** (-torch.arange(0, dim, 2) / dim)
        cos, sin = (torch.cat([t, t], -1) for t in (angles.cos(), angles.sin()))

        def turned(x: Tensor) -> Tensor:
            return x * cos + torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], -1) * sin

        return turned(q), turned(k)


class PlainLearned(nn.Module):
    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(rows, dim))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight[: x.shape[-2]]


class PlainAlibi(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.tensor([2.0 ** (-8 * (i + 1) / heads) for i in range(heads)]).double())

    def forward(self, scores: Tensor) -> Tensor:
        n = scores.shape[-1]
        distance = torch.arange(n) - torch.arange(n)[:, None]
        biased = scores + self.slopes.float()[:, None, None] * -distance.abs()
        return biased.masked_fill(distance > 0, -torch.inf)


class TinyModel(nn.Module):
    """One layer of attention over eight letters."""

    def __init__(self, learned: nn.Module, rotary: nn.Module, alibi: nn.Module) -> None:
        super().__init__()
        self.learned, self.rotary, self.alibi = learned, rotary, alibi
        self.embed, self.out = nn.Embedding(8, 16), nn.Linear(16, 8)
        self.qkv = nn.Linear(16, 48)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.learned(self.embed(ids))
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        q, k = self.rotary(q, k)
        weights = self.alibi(q @ k.mT / 8**0.5).softmax(-1)
        mixed: Tensor = self.out(x + (weights @ v).transpose(1, 2).flatten(-2))
        return mixed


def curve(make: Callable[[], tuple[nn.Module, nn.Module, nn.Module]]) -> list[float]:
    """Return 200 losses of a training whose randomness is the same for all."""
    torch.manual_seed(7)
    model = TinyModel(*make())
    state = torch.Generator().manual_seed(8)
    for parameter in model.parameters():
        if parameter.dtype == torch.float32:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=state)
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1), []
    letters = torch.Generator().manual_seed(9)
    for _ in range(200):
        start = torch.randint(0, 8, (8, 1), generator=letters)
        ids = (start + torch.arange(13) * (1 + start % 3)) % 8
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_tiny_language_model_follows_the_same_curve() -> None:
    """Learned positions, rotation, learned slopes, by posenc and by plain torch: within 1e-4 at all 200 steps."""
    alibi = {"causal": True, "learnable_slopes": True}
    mine = curve(lambda: (pt.LearnedPositions(16, 16), pt.RotaryEmbedding(8, layout="half"), pt.ALiBi(2, **alibi)))
    plain = curve(lambda: (PlainLearned(16, 16), PlainRotary(), PlainAlibi(2)))
    assert plain[-1] < 0.7 * plain[0]  # it learns
    np.testing.assert_allclose(mine, plain, rtol=0, atol=1e-4)


def rotated(item: tuple[Any, ...]) -> Any:
    rope, x, position = item
    return rope(x, offset=position)


class Windows(torch.utils.data.Dataset[Tensor]):
    """Windows of keys, rotated by whoever loads them."""

    rope = posenc.Rope(8, layout="half")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> Tensor:
        return rotated((self.rope, torch.full((4, 8), float(i)), 100 * i))  # type: ignore[no-any-return]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_data_loaders_rotate_in_their_workers(start: str) -> None:
    loader = torch.utils.data.DataLoader(Windows(), batch_size=2, num_workers=2, multiprocessing_context=start)
    found = torch.cat(list(loader))
    assert_same_bits(found, torch.stack([Windows()[i] for i in range(6)]))
