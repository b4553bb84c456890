"""Benches of training: a rotation forward and backward under autograd, and a step of a whole model."""

import copy
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import limits, peers
from benchmarks.harness import Bench, Candidate, Run, Unavailable
from benchmarks.work import EPSILON, LARGEST, Data, Work, as_torch, rotate_float64, to_float32

Builder = Callable[[int], Bench]

SEQ, TOKENS = 2048, 256
COPY = "copy twice"


class Step:
    """q and k that require gradients, the gradients of their rotations, and both right answers."""

    def __init__(self, dtype: str, threads: int) -> None:
        self.data = Data(Work(dtype=dtype, seq=SEQ), threads)
        random = np.random.default_rng(1)
        arrays = (self.data.q, self.data.k)
        self.changes = [random.standard_normal(x.shape, dtype=np.float32).astype(x.dtype) for x in arrays]
        angles = self.data.positions[0][:, None] * self.data.work.inv_freq()
        cos, sin = np.cos(angles), np.sin(angles)
        self.expected = [rotate_float64(g, cos, -sin, "half").astype(np.float32) for g in self.changes]

    def tensors(self) -> tuple[Any, tuple[Any, Any], tuple[Any, ...]]:
        """Return torch, (q, k) as leaves, and the gradients of what comes out."""
        torch = peers.torch_with(self.data.threads)
        torch.set_grad_enabled(True)
        leaves = tuple(as_torch(x).requires_grad_() for x in (self.data.q, self.data.k))
        return torch, (leaves[0], leaves[1]), tuple(as_torch(g) for g in self.changes)

    def both_ways(self, rotate: Callable[[Any, Any], tuple[Any, Any]]) -> Run:
        """Return a call that rotates, and differentiates."""
        torch, leaves, changes = self.tensors()

        def run() -> Any:
            outputs = rotate(*leaves)
            return outputs, torch.autograd.grad(outputs, leaves, changes)

        return run

    def verify(self, candidate: Candidate, result: Any) -> None:
        """Raise AssertionError unless rotations and gradients are right."""
        if not candidate.output:
            return
        outputs, grads = result
        self.data.verify(candidate, tuple(y.detach() for y in outputs))
        angle = 0.0 if candidate.name.startswith("posenc") else 1e-6 * SEQ
        bound = LARGEST * (6 * EPSILON[self.data.work.dtype] + angle)
        for name, mine, right in zip("qk", grads, self.expected, strict=True):
            error = float(np.abs(to_float32(mine) - right).max())
            if not error <= bound:
                raise AssertionError(f"the gradient of {name} is off by {error:.2g}, allowed is {bound:.2g}")


def _posenc(step: Step) -> Run:
    posenc = peers.load("posenc")
    training = peers.load("posenc.torch")
    posenc.set_num_threads(step.data.threads)
    rope = posenc.Rope(step.data.work.dim, layout="half")
    return step.both_ways(functools.partial(training.rotate, rope))


def _posenc_learnable(step: Step) -> Run:
    """Return the same with the gradient of the frequencies."""
    posenc = peers.load("posenc")
    training = peers.load("posenc.torch")
    posenc.set_num_threads(step.data.threads)
    embedding = training.RotaryEmbedding(step.data.work.dim, layout="half", learnable_frequencies=True)
    torch, leaves, changes = step.tensors()

    def run() -> Any:
        outputs = embedding(*leaves)
        return outputs, torch.autograd.grad(outputs, (*leaves, embedding.inv_freq), changes)[:2]

    return run


def _transformers(step: Step, compiled: bool) -> Run:
    embedding, apply, positions = peers._llama(step.data)

    def rotate(q: Any, k: Any) -> Any:
        return apply(q, k, *embedding(q, positions))

    torch, *_ = step.tensors()
    return step.both_ways(torch.compile(rotate, dynamic=False) if compiled else rotate)


def _copies(step: Step) -> Run:
    """Return what memory allows: both arrays copied, for each way."""
    data = step.data
    once = limits.call("copy", (data.q_out, data.k_out), (data.q, data.k), data.threads)

    def run() -> None:
        once()
        once()

    return run


def _rotation(name: str, dtype: str, threads: int) -> Bench:
    step = Step(dtype, threads)
    bind = functools.partial
    found = (
        Candidate(COPY, "", "", bind(_copies, step)),
        Candidate("posenc.torch", "new", "made", bind(_posenc, step)),
        Candidate("posenc.torch, frequencies learn", "new", "made", bind(_posenc_learnable, step)),
        Candidate("transformers", "new", "made", bind(_transformers, step, False)),
        Candidate("transformers, torch.compile", "new", "made", bind(_transformers, step, True)),
    )
    shapes = f"q (1,32,{SEQ},128), k (1,8,{SEQ},128)"
    return Bench(
        name, f"Forward and backward under autograd, {dtype}, half, {shapes}", found, step.data.refresh, step.verify
    )


# ---- a whole model ----


class Model:
    """SmolLM2-135M, and a text of random tokens."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @functools.cached_property
    def parts(self) -> tuple[Any, Any, Any]:
        """Return torch, the model and the ids."""
        torch = peers.torch_with(self.threads)
        torch.set_grad_enabled(True)
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        import smollm2

        try:
            model = smollm2.load_model()
        except smollm2.ModelUnavailableError as error:
            raise Unavailable(str(error)) from error
        return torch, model, torch.randint(0, 1000, (1, TOKENS), generator=torch.Generator().manual_seed(0))

    @functools.cached_property
    def patched(self) -> Any:
        """Return a copy that posenc rotates; the other is not touched by that."""
        model = copy.deepcopy(self.parts[1])
        peers.load("posenc.torch").patch(model)
        return model

    @functools.cached_property
    def loss(self) -> float:
        """The loss as transformers computes it."""
        _, model, ids = self.parts
        return float(model(ids, labels=ids, use_cache=False).loss.detach())

    def run(self, patched: bool, alone: bool) -> Run:
        """Return a training step, or what all of its layers do to q and k and nothing else."""
        peers.load("posenc").set_num_threads(self.threads)
        torch, model, ids = self.parts
        model = self.patched if patched else model
        if not alone:
            return functools.partial(self._step, model, ids)
        return functools.partial(self._rotations, model, torch)

    def _step(self, model: Any, ids: Any) -> float:
        model.zero_grad()
        loss = model(ids, labels=ids, use_cache=False).loss
        loss.backward()
        return float(loss.detach())

    def _rotations(self, model: Any, torch: Any) -> float:
        modeling = peers.load("transformers.models.llama.modeling_llama")
        config = model.config
        q, k = (
            torch.zeros(1, TOKENS, heads, config.head_dim).transpose(1, 2).requires_grad_()
            for heads in (config.num_attention_heads, config.num_key_value_heads)
        )
        tables = model.model.rotary_emb(q, torch.arange(TOKENS)[None])
        for _ in range(config.num_hidden_layers):
            outputs = modeling.apply_rotary_pos_emb(q, k, *tables)
            torch.autograd.grad(outputs, (q, k), outputs)
        return self.loss

    def verify(self, candidate: Candidate, result: Any) -> None:
        """Raise AssertionError unless the loss is that of the model."""
        if not abs(result - self.loss) <= 1e-4:
            raise AssertionError(f"the loss is {result}, not {self.loss}")


def _model(name: str, threads: int) -> Bench:
    model = Model(threads)
    found = tuple(
        Candidate(f"{what}, {who}", "", "", functools.partial(model.run, patched, alone))
        for what, alone in (("a step", False), ("its rotary code alone", True))
        for who, patched in (("transformers", False), ("posenc.torch.patch", True))
    )
    title = f"A training step of SmolLM2-135M, {TOKENS} tokens, float32, and its rotary code alone"
    return Bench(name, title, found, lambda: None, model.verify)


def builders() -> dict[str, Builder]:
    """Return how to make each bench, by name; a builder takes the number of threads."""
    found: dict[str, Builder] = {
        f"train-{dtype}": functools.partial(_rotation, f"train-{dtype}", dtype) for dtype in ("float32", "bfloat16")
    }
    found["train-smollm2"] = functools.partial(_model, "train-smollm2")
    return found
