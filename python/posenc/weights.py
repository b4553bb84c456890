"""Checkpoints of one layout for models of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from posenc import _parameters as check
from posenc.rotary import Rope

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_LAYOUTS = ("interleaved", "half")


def permute_rotary_weights(
    weight: Any,
    num_heads: int,
    *,
    source: str = "interleaved",
    target: str = "half",
    rotary_dim: int | None = None,
    rotary_offset: int = 0,
    fused: str | None = None,
    num_kv_heads: int | None = None,
) -> Any:
    """Reorder the rows of a query or key projection from one layout to the other.

    A model whose checkpoint pairs elements one way runs under the other after this: q.k is unchanged when everything
    over the rows of both q and k is permuted (k with its own number of heads; never v). For each head, among its
    rotated rows: half[i] = interleaved[2i], half[i + rotary_dim/2] = interleaved[2i + 1] (transformers'
    convert_llama_weights_to_hf.py, llama.cpp's LlamaModel.permute). Before it returns, random queries and keys in that
    order, rotated under the target layout, are held against the old order under the source layout.

    Parameters
    ----------
    weight : NumPy array or torch tensor, shape (num_heads * head_dim, ...)
        A weight; a bias of shape (num_heads * head_dim,); the matrix B of a LoRA, (num_heads * head_dim, rank), whose
        A stays; scales of a quantized weight for each row. The gains or biases of a norm over one head, shape
        (head_dim,), with num_heads 1; of a norm over all heads, as a bias.
    num_heads : int
        Heads of this projection.
    source, target : {"interleaved", "half"}
    rotary_dim : int, optional
        Even; default: all from `rotary_offset` on. The rows around stay.
    rotary_offset : int
        The first rotated row of a head: 128 for the query projection of DeepSeek-V3 (rotary_dim 64), and 512, with
        num_heads 1, for its `kv_a_proj_with_mqa`.
    fused : {"stacked", "grouped"}, optional
        For one weight of queries, keys and values, whose values stay. "stacked": all queries, all keys, all values
        (Phi-3, vLLM's qkv_proj). "grouped": for each key head its queries, itself, its value head (Falcon, InternLM2;
        GPT-NeoX, with as many key heads as query heads).
    num_kv_heads : int, optional
        With `fused`: the number of key heads, and of value heads.

    Returns
    -------
    array
        A new array of the same kind, shape and dtype.

    Raises
    ------
    TypeError
        For a weight whose rows cannot be reordered (sparse, quantized with a hidden layout), or numbers of the wrong
        kind.
    ValueError
        If the rows do not divide into heads, or rotary_dim is odd or too large.
    RuntimeError
        If q.k would not be what it was.

    Notes
    -----
    A scale for each block of rows (float8 checkpoints of DeepSeek-V3 have one for 128 x 128) stays where it is if no
    head straddles blocks: rows move within their head only. Else dequantize first. Rows packed into words (4-bit
    formats that pack along the rows) must be unpacked first; formats that pack along the columns may be reordered.

    Examples
    --------
    >>> import numpy as np
    >>> import posenc
    >>> posenc.permute_rotary_weights(np.arange(8), num_heads=2)
    array([0, 2, 1, 3, 4, 6, 5, 7])
    >>> posenc.permute_rotary_weights(np.arange(12), num_heads=1, fused="stacked", num_kv_heads=1)
    array([ 0,  2,  1,  3,  4,  6,  5,  7,  8,  9, 10, 11])
    """
    if not hasattr(weight, "ndim"):
        raise TypeError(f"weight must be a NumPy array or a torch tensor, got {type(weight)}")
    num_heads = check.integer("num_heads", num_heads, 1)
    for name, layout in (("source", source), ("target", target)):
        check.choice(name, layout, _LAYOUTS)
    turned = _turned_heads(num_heads, fused, num_kv_heads)
    heads = num_heads if turned is None else len(turned)
    if weight.ndim < 1 or weight.shape[0] % heads:
        each = "num_heads" if fused is None else "(num_heads + 2 * num_kv_heads)"
        raise ValueError(
            f"weight must have {each} * head_dim rows, a multiple of {heads}, got shape {tuple(weight.shape)}"
        )
    head_dim = weight.shape[0] // heads
    width, first = _rotated_rows(head_dim, rotary_dim, rotary_offset)
    if not head_dim:  # no rows are any number of heads of no length
        return _reordered(weight, np.zeros(0, np.intp))
    order = np.arange(weight.shape[0]).reshape(heads, head_dim)
    rows = slice(None) if turned is None else turned
    order[rows] = order[rows][:, _order_of_head(head_dim, source, target, width, first)]
    _prove(order, rows, source, target, width, first)
    return _reordered(weight, order.ravel())


def _turned_heads(num_heads: int, fused: Any, num_kv_heads: Any) -> npt.NDArray[np.bool_] | None:
    """Return which heads of a fused weight are queries or keys; None without fused, where all are."""
    if fused is None:
        if num_kv_heads is not None:
            raise ValueError("num_kv_heads is for a fused weight; the heads of a key projection are its num_heads")
        return None
    check.choice("fused", fused, ("stacked", "grouped"))
    if num_kv_heads is None:
        raise ValueError("num_kv_heads must be given for a fused weight")
    kv = check.integer("num_kv_heads", num_kv_heads, 1, most=num_heads)
    if num_heads % kv:
        raise ValueError(f"num_heads must be a multiple of num_kv_heads ({kv}), got {num_heads}")
    check.integer("num_heads", num_heads, 1, most=1 << 24)
    groups, queries = (1, num_heads + kv) if fused == "stacked" else (kv, num_heads // kv + 1)
    return np.tile(np.repeat([True, False], [queries, kv // groups]), groups)


def _rotated_rows(head_dim: int, rotary_dim: Any, rotary_offset: Any) -> tuple[int, int]:
    """Return how many rows of a head turn, and the first of them."""
    first = check.integer("rotary_offset", rotary_offset, 0)
    width = head_dim - first if rotary_dim is None else check.integer("rotary_dim", rotary_dim, 2)
    if first > 0 and not 2 <= width <= head_dim - first:
        raise ValueError(
            f"rotary_offset + rotary_dim must be at most head_dim ({head_dim}), and rotary_dim at least 2, "
            f"got {first} + {width}"
        )
    if width % 2 or width > head_dim:
        raise ValueError(f"rotary_dim must be even and at most head_dim ({head_dim}), got {width}")
    return width, first


def _order_of_head(head_dim: int, source: str, target: str, width: int, first: int) -> npt.NDArray[np.intp]:
    """Return which row of the source layout each row of the target layout is."""
    rows = np.arange(head_dim)
    if source != target:
        by_pair = (-1, 2) if source == "interleaved" else (2, -1)
        rows[first : first + width] = rows[first : first + width].reshape(by_pair).T.ravel()
    return rows


def _reordered(weight: Any, order: npt.NDArray[np.intp]) -> Any:
    try:
        return weight[order]
    except RuntimeError as error:  # torch: sparse, quantized, ..
        reason = str(error).splitlines()[0]
        raise TypeError(f"weight must be a dense array whose rows can be reordered: {reason}") from None


def _prove(order: npt.NDArray[np.intp], turned: Any, source: str, target: str, width: int, first: int) -> None:
    """Raise where q.k of random numbers is not what it was, or rows that do not turn have moved."""
    rng = np.random.default_rng(0)
    head_dim = order.shape[1]
    inv_freq = rng.uniform(0.1, 1.0, width // 2)
    products = []
    q, k = rng.standard_normal((2, order.size))
    for layout, rows in ((source, np.arange(order.size).reshape(order.shape)), (target, order)):
        rope = Rope(head_dim, layout=layout, inv_freq=inv_freq, rotary_dim=width, rotary_offset=first)
        products.append(np.sum(rope(q[rows][turned], offset=17) * rope(k[rows][turned], offset=5), axis=-1))
    moved = order != np.arange(order.size).reshape(order.shape)
    moved[turned, first : first + width] = False
    if moved.any() or not np.allclose(products[0], products[1], rtol=0, atol=1e-12 * head_dim):
        raise RuntimeError(f"reordering from {source} to {target} changed q.k: this is a fault of posenc, not of yours")


class RotaryProjections(NamedTuple):
    """What makes queries and keys, in the order of `permute_rotary_projections`; None for what a model has not."""

    q_weight: Any
    k_weight: Any
    q_bias: Any = None
    k_bias: Any = None
    q_norm: Any = None
    k_norm: Any = None


def permute_rotary_projections(
    projections: RotaryProjections,
    num_heads: int,
    num_kv_heads: int,
    *,
    source: str = "interleaved",
    target: str = "half",
    rotary_dim: int | None = None,
    rotary_offset: int = 0,
) -> RotaryProjections:
    """Reorder all that makes the queries and keys of a layer, and prove on these weights that q.k stays.

    Each array goes through `permute_rotary_weights`. Then a random hidden state goes through a few columns of the old
    and of the new weights, with bias, norm and rotation as the model has them, and the products q.k must agree.

    Parameters
    ----------
    projections : RotaryProjections
        Weights of shape (heads * head_dim, in), biases (heads * head_dim,), gains of a norm before the rotation: over
        each head, shape (head_dim,), or over all, (heads * head_dim,) or (heads, head_dim). NumPy arrays or torch
        tensors. Anything else over the rows (LoRA B, biases of a norm): `permute_rotary_weights`.
    num_heads, num_kv_heads : int
    source, target, rotary_dim, rotary_offset
        As in `permute_rotary_weights`.

    Returns
    -------
    RotaryProjections
        New arrays of the same kinds, shapes and dtypes.

    Raises
    ------
    TypeError, ValueError
        As `permute_rotary_weights`; for heads and shapes that do not go together.
    RuntimeError
        If q.k would not be what it was.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.weights import RotaryProjections, permute_rotary_projections
    >>> rng = np.random.default_rng(0)
    >>> gains = rng.random((2, 8))
    >>> layer = RotaryProjections(rng.random((32, 16)), rng.random((16, 16)), q_norm=gains[0], k_norm=gains[1])
    >>> permute_rotary_projections(layer, num_heads=4, num_kv_heads=2).k_weight.shape
    (16, 16)
    """
    num_heads = check.integer("num_heads", num_heads, 1)
    num_kv_heads = check.integer("num_kv_heads", num_kv_heads, 1)
    if num_heads % num_kv_heads:
        raise ValueError(f"num_heads must be a multiple of num_kv_heads ({num_kv_heads}), got {num_heads}")
    given = RotaryProjections(*projections)
    head_dim = _check_projections(given, num_heads, num_kv_heads)
    how: dict[str, Any] = {"source": source, "target": target, "rotary_dim": rotary_dim, "rotary_offset": rotary_offset}

    def permuted(name: str, array: Any) -> Any:
        if array is None:
            return None
        if array.ndim == 2 and name.endswith("norm"):
            return permuted(name, array.reshape(-1)).reshape(array.shape)
        return permute_rotary_weights(array, array.shape[0] // head_dim, **how)

    result = RotaryProjections(*(permuted(name, array) for name, array in given._asdict().items()))
    width, first = _rotated_rows(head_dim, rotary_dim, rotary_offset)
    before, after = (
        _products(made, head_dim, Rope(head_dim, layout=layout, rotary_dim=width, rotary_offset=first, base=10.0))
        for made, layout in ((given, source), (result, target))
    )
    size = max(1.0, float(np.max(np.abs(before[np.isfinite(before)]), initial=0.0)))
    if not np.allclose(before, after, rtol=0, atol=1e-9 * size, equal_nan=True):
        raise RuntimeError(f"reordering from {source} to {target} changed q.k of these weights")
    return result


def _check_projections(given: RotaryProjections, num_heads: int, num_kv_heads: int) -> int:
    """Return head_dim, on which all arrays must agree."""
    for name, array in given._asdict().items():
        if (array is not None or name.endswith("weight")) and not hasattr(array, "ndim"):
            raise TypeError(f"{name} must be a NumPy array or a torch tensor, got {type(array)}")
    shape: tuple[int, ...] = tuple(given.q_weight.shape)
    head_dim = shape[0] // num_heads if len(shape) == 2 else 0
    if not head_dim or shape[0] % num_heads:
        raise ValueError(f"q_weight must have shape (num_heads * head_dim, in) with {num_heads} heads, got {shape}")
    for name, array in given._asdict().items():
        rows = head_dim * (num_heads if name.startswith("q") else num_kv_heads)
        allowed: tuple[tuple[int, ...], ...] = ((rows,),)
        if name.endswith("weight"):
            allowed = ((rows, shape[1]),)
        elif name.endswith("norm"):
            allowed = ((head_dim,), (rows,), (rows // head_dim, head_dim))
        if array is not None and tuple(array.shape) not in allowed:
            expected = " or ".join(map(str, dict.fromkeys(allowed)))
            fused = "; is it a fused qkv? see fused= of permute_rotary_weights" if name.endswith("weight") else ""
            raise ValueError(
                f"{name} must have shape {expected} for q_weight {shape}, {num_heads} heads and "
                f"{num_kv_heads} key heads, got {tuple(array.shape)}{fused}"
            )
    return head_dim


def _products(made: RotaryProjections, head_dim: int, rope: Rope) -> Array:
    """Return q.k of every query head, of two random hidden states that are zero but in a few columns."""
    rng = np.random.default_rng(0)
    columns = rng.permutation(made.q_weight.shape[1])[:8]
    vectors = []
    sides = ((made.q_weight, made.q_bias, made.q_norm), (made.k_weight, made.k_bias, made.k_norm))
    for position, (weight, bias, gains) in zip((17, 5), sides, strict=True):
        x = _float64(weight[:, columns]) @ rng.standard_normal(len(columns))
        x = x if bias is None else x + _float64(bias)
        if gains is not None:
            gains = _float64(gains).ravel()
            x = x.reshape(-1, len(gains))
            x = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6) * gains
        vectors.append(rope(x.reshape(-1, 1, head_dim), offset=position)[:, 0])
    q, k = vectors
    return np.asarray(np.sum(q * np.repeat(k, len(q) // len(k), axis=0), axis=-1))


def _float64(array: Any) -> Array:
    """Return an array or tensor of any float dtype as float64."""
    return np.asarray(array.detach().cpu().double().numpy() if hasattr(array, "detach") else array, np.float64)
