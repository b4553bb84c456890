"""Rotations of tensors by a Rope, recorded by autograd."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from posenc import _parameters as check
from posenc.rotary import Rope, as_rope
from posenc.tables import LAYOUTS
from posenc.torch import _arguments, _formula, _rotary_ops, _table_ops
from posenc.torch._memory import fresh


class Numbers(NamedTuple):
    """A Rope as the operators take it."""

    inv_freq: Tensor  # float64
    axis_of_freq: list[int] | None
    layout: int
    rotary_offset: int
    scale: float
    as_float32: bool
    head_dim: int

    def inverted(self) -> Numbers:
        """Return what undoes it."""
        return self._replace(inv_freq=-self.inv_freq, layout=_table_ops.TRANSPOSED[self.layout], scale=1.0 / self.scale)


def numbers_of(rope: Rope) -> Numbers:
    """Return the numbers of a Rope."""
    axes = None if rope.axis_of_freq is None else rope.axis_of_freq.tolist()
    code = LAYOUTS[rope.layout][0]
    how = (rope.rotary_offset, rope.attention_factor, rope.precision == "float32", rope.head_dim)
    return Numbers(torch.from_numpy(rope.inv_freq.copy()), axes, code, *how)


def has_kernels(x: Tensor) -> bool:
    """Return whether posenc can reach the memory of such a tensor; others run torch's own operations."""
    return x.device.type == "cpu"


def counted(positions: Any, offset: Any, seq: int, name: str = "positions") -> tuple[Tensor | None, int]:
    """Return (positions, offset): float64 or integers on the CPU, and a plain number."""
    if positions is None:
        if isinstance(offset, int) and not isinstance(offset, bool):
            return None, check.integer("offset", offset, -_FARTHEST, _FARTHEST)
        rows = as_tensor("offset", offset)
        if rows.is_floating_point() or rows.dtype is torch.bool or rows.ndim > 1:
            raise TypeError(f"offset must be an integer or one integer per batch row, got {check.shown(offset)}")
        if rows.ndim == 0:
            return None, int(rows)
        return rows.cpu().long()[:, None] + torch.arange(seq, device="cpu"), 0
    if not isinstance(offset, int) or offset != 0:
        raise ValueError("positions and offset exclude each other: add the offset to the positions")
    positions = as_tensor(name, positions)
    if positions.dtype not in (*_INTEGERS, torch.float32, torch.float64):
        raise TypeError(f"{name} must be integers, float32 or float64, got {positions.dtype}")
    return positions.double() if positions.is_floating_point() else positions, 0


_FARTHEST = 1 << 31  # beyond which no position lies
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def as_tensor(name: str, value: Any) -> Tensor:
    """Return numbers, or a mask, as a tensor on the CPU."""
    try:
        if isinstance(value, Tensor):
            return value.cpu()
        tensor = torch.as_tensor(value, device="cpu")
        return tensor.long() if isinstance(value, (list, tuple)) and not tensor.numel() else tensor  # [] is of no kind
    except (RuntimeError, TypeError, ValueError) as error:  # a set, rows of different lengths, a tensor without data
        text = str(error).splitlines()[0]
        raise TypeError(f"{name} must be what torch can make a tensor of, got {check.shown(value)}: {text}") from None


def turn(numbers: Numbers, x: Tensor, positions: Tensor | None, offset: int, seq_axis: int) -> Tensor:
    """Rotate one tensor."""
    if x.ndim < 2 or x.shape[-1] != numbers.head_dim:
        raise ValueError(f"q and k must have shape (..., seq, {numbers.head_dim}), got {tuple(x.shape)}")
    axis = _arguments.along(x, seq_axis)
    inv_freq = numbers.inv_freq.cpu().double()
    if has_kernels(x):
        how = (numbers.axis_of_freq, numbers.layout, numbers.rotary_offset, numbers.scale, numbers.as_float32)
        return _rotary_ops.rotate(x, inv_freq, positions, offset, *how, axis)  # type: ignore[no-any-return]
    where = _formula.positions_of(positions, offset, x.shape[axis])
    axes = None if numbers.axis_of_freq is None or max(numbers.axis_of_freq) == 0 else numbers.axis_of_freq
    if axes is not None and positions is None:
        where = where.expand(max(axes) + 1, -1)
    wide = x.dtype == torch.float64
    tables = _table_ops.rotary_table(where, inv_freq, axes, numbers.scale, numbers.as_float32, wide)
    cos, sin = (t.to(x.device) for t in tables)
    return _formula.apply_rotary(x, cos, sin, numbers.layout, numbers.rotary_offset, False, axis)


def turn_all(numbers: Numbers, q: Tensor, k: Tensor | None, positions: Any, offset: Any, seq_axis: int) -> Any:
    """Rotate q, or q and k."""
    axis = _arguments.along(q, seq_axis)
    where, first = counted(positions, offset, q.shape[axis])
    axes = _table_ops.count_axes(numbers.axis_of_freq)
    if positions is None and where is not None and axes > 1:
        where = where.expand(axes, -1, -1)
    if k is None:
        return turn(numbers, q, where, first, seq_axis)
    _check_pair(q, k, axis)
    return turn(numbers, q, where, first, seq_axis), turn(numbers, k, where, first, seq_axis)


def _check_pair(q: Tensor, k: Tensor, axis: int) -> None:
    if q.ndim != k.ndim:
        raise ValueError(f"q and k must have the same number of axes, got {q.ndim} and {k.ndim}")
    for what, of_q, of_k, error in (
        ("dtype", q.dtype, k.dtype, TypeError),
        ("sequence length", q.shape[axis], k.shape[axis], ValueError),
    ):
        if of_q != of_k:
            raise error(f"q and k must have the same {what}, got {of_q} and {of_k}; rotate them in two calls")


def is_plain(*tensors: Any) -> bool:
    """Return whether nobody watches: no gradient to record, nothing compiled or traced, no transform, own memory."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None  # torch.jit.trace would keep the result as a constant
        and all(type(t) is Tensor and t.device.type == "cpu" and not t.requires_grad for t in tensors)
        and not torch._C._are_functorch_transforms_active()
    )


def rotate(
    rope: Rope,
    q: Tensor,
    k: Tensor | None = None,
    *,
    positions: Any = None,
    offset: Any = 0,
    seq_axis: int = -2,
    inverse: bool = False,
    seq_len: int | None = None,
    inv_freq: Tensor | None = None,
) -> Any:
    """Rotate q, or q and k, by their positions, as a call of the Rope does; gradients are recorded.

    Differentiable in q, k, `inv_freq` and float positions, any number of times; works in torch.compile (without graph
    breaks), torch.func and under autocast, which leaves dtypes as they are. The backward pass is the C code of
    `posenc.gradients`: nothing is saved but, where frequencies or positions learn, q and k.

    Parameters
    ----------
    rope : Rope
    q, k : Tensor, shape (..., seq, head_dim)
        float32, float64, float16 or bfloat16. CPU tensors are rotated by posenc, tensors of other devices by torch's
        operations with the same tables.
    positions : tensor or array_like, optional
        As in `posenc.Rope.__call__`. Gradients flow to a float tensor that requires them.
    offset : int or tensor of integers, shape (batch,)
    seq_axis : int
    inverse : bool
        Un-rotate.
    seq_len : int, optional
        As in `posenc.Rope.__call__`.
    inv_freq : Tensor, shape (rotary_dim/2,), optional
        Frequencies in place of the Rope's own, for instance a parameter; used in float64.

    Returns
    -------
    Tensor, or (Tensor, Tensor) with k
        New tensors, of the dtype of q.

    Raises
    ------
    TypeError, ValueError
        As in `posenc.Rope.__call__`.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> rope = posenc.Rope(8, layout="half")
    >>> q = torch.ones(2, 4, 8, requires_grad=True)
    >>> posenc.torch.rotate(rope, q).sum().backward()
    >>> q.grad.shape
    torch.Size([2, 4, 8])
    """
    as_rope(rope)
    given = (q,) if k is None else (q, k)
    _arguments.tensors(**dict(zip(("q", "k"), given, strict=False)))
    inverse = check.flag("inverse", inverse)
    if rope._varies:
        seq = q.shape[_arguments.along(q, seq_axis)]
        where, first = counted(positions, offset, seq)
        rope = rope.at(check.sequence_length(seq_len, None if where is None else where.detach(), first, seq))
    elif seq_len is not None:
        check.integer("seq_len", seq_len, 1)
    watched = (*given, positions) if isinstance(positions, Tensor) else given
    if inv_freq is None and is_plain(*watched):
        out: Any = fresh(q)
        if k is not None and out is not None:
            of_k = fresh(k)
            out = out, torch.empty_like(k) if of_k is None else of_k
        return rope(q, k, positions=positions, offset=offset, seq_axis=seq_axis, inverse=inverse, out=out)
    numbers = numbers_of(rope)
    if inv_freq is not None:
        _arguments.tensors(inv_freq=inv_freq)
        if tuple(inv_freq.shape) != tuple(numbers.inv_freq.shape):
            raise ValueError(f"inv_freq must have shape {tuple(numbers.inv_freq.shape)}, got {tuple(inv_freq.shape)}")
        numbers = numbers._replace(inv_freq=inv_freq)
    return turn_all(numbers.inverted() if inverse else numbers, q, k, positions, offset, seq_axis)


def rotate_(
    rope: Rope, q: Tensor, k: Tensor | None = None, *, positions: Any = None, offset: Any = 0, seq_axis: int = -2
) -> Any:
    """Rotate q, or q and k, in place: for inference.

    Parameters
    ----------
    rope, q, k, positions, offset, seq_axis
        As in `rotate`; CPU tensors.

    Returns
    -------
    Tensor, or (Tensor, Tensor) with k
        q and k themselves.

    Raises
    ------
    RuntimeError
        Where q or k require a gradient: what they held before would be needed, and is gone. A tensor that autograd has
        saved for something else makes that backward pass raise.
    TypeError, ValueError
        As in `posenc.Rope.__call__`.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> q = torch.ones(4, 8)
    >>> posenc.torch.rotate_(posenc.Rope(8, layout="half"), q) is q
    True
    """
    as_rope(rope)
    for name, x in (("q", q), ("k", k)):
        if isinstance(x, Tensor) and x.requires_grad:
            raise RuntimeError(f"{name} requires grad and cannot be rotated in place; use posenc.torch.rotate")
    return rope(q, k, positions=positions, offset=offset, seq_axis=seq_axis, out=q if k is None else (q, k))


def apply_rotary_emb(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    layout: str,
    rotary_offset: int = 0,
    seq_axis: int = -2,
    conjugate: bool = False,
) -> Tensor:
    """Rotate x by ready tables, row j of which turns token j; differentiable in x, cos and sin.

    Parameters
    ----------
    x : Tensor, shape (..., seq, head_dim)
    cos, sin : Tensor, shape (seq or more, rotary_dim/2) or (batch, seq or more, rotary_dim/2)
        float32, or float64 for float64 x. For other rows index the tables first.
    layout, rotary_offset, seq_axis, conjugate
        As in `posenc.apply_rotary_emb`.

    Returns
    -------
    Tensor
        New, like x.

    Raises
    ------
    TypeError, ValueError, IndexError
        As in `posenc.apply_rotary_emb`.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> cos = torch.ones(4, 4, requires_grad=True)
    >>> y = posenc.torch.apply_rotary_emb(torch.ones(2, 4, 8), cos, torch.zeros(4, 4), layout="half")
    >>> y.sum().backward()
    >>> cos.grad[0].tolist()
    [4.0, 4.0, 4.0, 4.0]
    """
    code = LAYOUTS[check.choice("layout", layout, LAYOUTS)][0]
    _arguments.tensors(x=x, cos=cos, sin=sin)
    first = check.integer("rotary_offset", rotary_offset, 0)
    run = _table_ops.apply_rotary if has_kernels(x) else _formula.apply_rotary
    return run(x, cos, sin, code, first, check.flag("conjugate", conjugate), _arguments.along(x, seq_axis))


def rotary_table(
    positions: Tensor, inv_freq: Tensor, *, scale: float = 1.0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return (cos, sin) of positions * inv_freq, exact as in `posenc.rotary_table`; differentiable in both.

    Parameters
    ----------
    positions : Tensor, shape (seq,) or (batch, seq)
    inv_freq : Tensor, shape (pairs,)
    scale : float
    dtype : torch.float32 or torch.float64

    Returns
    -------
    cos, sin : Tensor, shape (seq, pairs) or (batch, seq, pairs)
        On the device of positions.

    Raises
    ------
    TypeError, ValueError
        As in `posenc.rotary_table`.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> cos, sin = posenc.torch.rotary_table(torch.arange(3), torch.tensor([1.0, 0.1]))
    >>> cos.shape
    torch.Size([3, 2])
    """
    if not isinstance(positions, Tensor):
        raise TypeError(f"positions must be a tensor, got {check.shown(positions)}")
    _arguments.tensors(inv_freq=inv_freq)
    where, _ = counted(positions, 0, 0)
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    factor = _arguments.number("scale", scale)
    tables = _table_ops.rotary_table(where, inv_freq.cpu().double(), None, factor, False, dtype == torch.float64)
    return tables[0].to(positions.device), tables[1].to(positions.device)
