"""Operators inside torch.func: within grad, vjp, jacrev or vmap an autograd.Function stands for the operator.

torch's own rule for the gradients of a custom operator does not work inside these transforms (torch 2.13 raises a
RuntimeError). The Function has the same formulas, so there is one set of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def differentiable(operator: Any, keep: Callable[..., None], backward: Callable[..., Any], rule: Any) -> Any:
    """Register what an operator keeps, its gradients and its rule for vmap; return what calls it anywhere.

    Parameters
    ----------
    operator : CustomOpDef
    keep : callable
        setup_context(ctx, inputs, output).
    backward : callable
        backward(ctx, *grads), made of differentiable calls.
    rule : callable
        vmap(info, in_dims, *inputs) -> (output, out_dims), made of calls to what is returned here.
    """
    operator.register_autograd(backward, setup_context=keep)
    operator.register_vmap(rule)
    function = type(
        operator._name,
        (torch.autograd.Function,),
        {
            "forward": staticmethod(lambda *inputs: operator(*inputs)),
            "setup_context": staticmethod(lambda ctx, inputs, output: keep(ctx, inputs, output)),
            "backward": staticmethod(backward),
            "vmap": staticmethod(rule),
        },
    )

    def call(*inputs: Any) -> Any:
        if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
            return function.apply(*inputs)  # type: ignore[attr-defined]
        return operator(*inputs)

    return call


def one_by_one(call: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]) -> Any:
    """Call once for each element of the batch, whatever is batched."""
    results = []
    for i in range(info.batch_size):
        each = (
            x.select(dim, i) if isinstance(x, torch.Tensor) and dim is not None else x
            for x, dim in zip(inputs, in_dims, strict=True)
        )
        results.append(call(*each))
    if isinstance(results[0], torch.Tensor):
        return torch.stack(results), 0
    return tuple(torch.stack(column) for column in zip(*results, strict=True)), (0,) * len(results[0])


def aligned(x: torch.Tensor, dim: int | None, at: int, ndim: int, batch: int = 1) -> torch.Tensor:
    """Return x with `ndim` axes of its own, leading ones of length 1 added, and the batch at axis `at`.

    Where x is not batched that axis is as long as `batch`, without memory of its own.
    """
    own = x if dim is None else x.movedim(dim, 0)
    lead = [] if dim is None else [own.shape[0]]
    wide = own.reshape(*lead, *[1] * (ndim - own.ndim + len(lead)), *own.shape[len(lead) :])
    if dim is not None:
        return wide.movedim(0, at)
    wide = wide.unsqueeze(at)
    return wide.expand(*wide.shape[:at], batch, *wide.shape[at + 1 :])
