"""Scales of queries that grow with the position: attention temperature for contexts longer than trained on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from posenc import _exact, _series, _views
from posenc import _parameters as check
from posenc.tables import apply_rotary_emb

if TYPE_CHECKING:
    import numpy.typing as npt


class QueryScale(Protocol):
    """What `query_scale` and `scale_queries` need of a scheme."""

    @property
    def in_query_dtype(self) -> bool:
        """Whether the system rounds the scale to the dtype of the queries before it multiplies."""
        ...

    def of(self, positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the scale of each position, a finite number of at least 0."""
        ...


@dataclass(frozen=True)
class Llama4Scale:
    """Llama 4's temperature tuning, on its layers without RoPE.

    scale = 1 + attn_scale * log1p(floor((p + 1) / floor_scale)) (transformers, models/llama4/modeling_llama4.py,
    `Llama4TextAttention.forward`; after Nakanishi, "Scalable-Softmax", arXiv:2501.19399). The scale stays float32 in
    the product, which is then rounded to the dtype of the queries.

    Parameters
    ----------
    attn_scale : float
        At least 0.
    floor_scale : float
        Tokens from one step to the next; positive.
    """

    attn_scale: float = 0.1
    floor_scale: float = 8192.0
    in_query_dtype: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "attn_scale", check.not_negative("attn_scale", self.attn_scale))
        object.__setattr__(self, "floor_scale", check.positive("floor_scale", self.floor_scale))

    def of(self, positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the scale of each position."""
        return 1 + self.attn_scale * _series.log(1 + np.floor((positions + 1) / self.floor_scale))


@dataclass(frozen=True)
class MistralScale:
    """The temperature of Ministral 3 and Mistral 4, on every layer.

    scale = 1 + beta * ln(1 + floor(p / L)) (transformers, models/ministral3/modeling_ministral3.py and
    models/mistral4/modeling_mistral4.py, `get_llama_4_attn_scale`: not Llama 4's formula, whatever the name; there is
    no + 1 beside p). Rounded to the dtype of the queries before the product.

    Parameters
    ----------
    beta : float
        `llama_4_scaling_beta` of the configs, 0.1; at least 0.
    original_max_position_embeddings : float
        L, in tokens; 16384 in Ministral 3's defaults, 8192 in Mistral 4's.
    """

    original_max_position_embeddings: float
    beta: float = 0.1
    in_query_dtype: ClassVar[bool] = True

    def __post_init__(self) -> None:
        length = check.positive("original_max_position_embeddings", self.original_max_position_embeddings)
        object.__setattr__(self, "original_max_position_embeddings", length)
        object.__setattr__(self, "beta", check.not_negative("beta", self.beta))

    def of(self, positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the scale of each position."""
        return 1 + self.beta * _series.log(1 + np.floor(positions / self.original_max_position_embeddings))


@dataclass(frozen=True)
class QwenLogN:
    """Qwen's logn attention: the logarithm of the number of tokens so far, to the base of the length of training.

    scale = ln(n) / ln(seq_length) where n > seq_length, else 1, with n = p + count_from (Qwen-7B's
    modeling_qwen.py: `math.log(i, self.seq_length) if i > self.seq_length else 1 for i in range(1, 32768)`, entry p of
    which is i = p + 1). The first Qwen alone has it; its table, and so its positions, end at 32766. Rounded to the
    dtype of the queries before the product.

    Parameters
    ----------
    seq_length : float
        Tokens, above 1; 2048 or 8192 in the configs.
    count_from : float
        The number of the first token: 1 in Qwen's own code, 0 in fastllm's (src/models/qwen.cpp: log(i) at position i).
    """

    seq_length: float
    count_from: float = 1.0
    in_query_dtype: ClassVar[bool] = True

    def __post_init__(self) -> None:
        length = check.positive("seq_length", self.seq_length)
        if length <= 1:
            raise ValueError(f"seq_length must be above 1, got {self.seq_length!r}: it is the base of a logarithm")
        object.__setattr__(self, "seq_length", length)
        object.__setattr__(self, "count_from", check.not_negative("count_from", self.count_from))

    def of(self, positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the scale of each position."""
        count = np.maximum(positions + self.count_from, self.seq_length)
        scale = _series.log(count) / _exact.log(self.seq_length)
        return np.where(count > self.seq_length, scale, 1.0)


def query_scale(positions: Any, scheme: QueryScale, *, dtype: npt.DTypeLike = np.float32) -> Any:
    """Return what a scheme multiplies the queries of some positions by.

    Parameters
    ----------
    positions : int or array_like, shape (...)
        Tokens, at least 0; an int n means 0 .. n-1.
    scheme : Llama4Scale, MistralScale, QwenLogN
    dtype : float32 or float64

    Returns
    -------
    array of shape (...)
        A torch tensor where positions is one, else a NumPy array. float64 within 4 units in the last place, float32
        rounded once from that: at most one unit from transformers, whose steps are float32. From position 2**24 on
        transformers rounds the position itself too.

    Raises
    ------
    TypeError, ValueError
        For positions that are no numbers, not finite or negative, or another scheme.

    Examples
    --------
    >>> from posenc.query_scale import Llama4Scale, MistralScale, query_scale
    >>> query_scale([0, 8190, 8191, 100_000], Llama4Scale()).tolist()
    [1.0, 1.0, 1.06931471824646, 1.2564948797225952]
    >>> query_scale([8191, 8192], MistralScale(8192)).tolist()  # one token later
    [1.0, 1.06931471824646]
    """
    kind = np.float64 if check.is_float64(dtype) else np.float32
    scale = _scheme(scheme).of(_positions(positions)).astype(kind)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(positions, torch.Tensor):
        return torch.from_numpy(scale)
    return scale


def scale_queries(q: Any, positions: Any, scheme: QueryScale, *, seq_axis: int = -2, out: Any = None) -> Any:
    """Multiply queries by the scale of their positions.

    Parameters
    ----------
    q : NumPy array or torch CPU tensor, shape (..., seq, head_dim)
        float32, float64, float16 or bfloat16; any strides.
    positions : array_like, shape (seq,) or (batch, seq)
        Tokens, at least 0.
    scheme : Llama4Scale, MistralScale, QwenLogN
        16-bit queries are multiplied in float32 by the scale as the scheme's system rounds it, and rounded once.
    seq_axis : int
        Which axis of q is the sequence.
    out : array, optional
        Where to write; may be q itself.

    Returns
    -------
    array
        `out` where given, else a new array like q. Nothing else of q's size is made.

    Raises
    ------
    TypeError, ValueError, BufferError
        As in `query_scale` and `posenc.apply_rotary_emb`.

    Notes
    -----
    Written as a rotation by no angle, a * scale - b * 0, in the pass that all rotations take: a zero may lose its sign,
    and where b is infinite or NaN, the result is NaN, as q.k would be.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.query_scale import Llama4Scale, scale_queries
    >>> q = np.ones((1, 2, 3, 4), np.float32)
    >>> scale_queries(q, [8190, 8191, 16383], Llama4Scale(), out=q)[0, 0, :, 0].tolist()
    [1.0, 1.06931471824646, 1.1098612546920776]
    """
    if not hasattr(q, "__dlpack__"):
        raise TypeError(f"q must be a NumPy array or a torch CPU tensor, got {type(q)}")
    readable = _views.sliceable(q)
    where = _positions(check.plain_array("positions", positions))
    _check_shape(where.shape, tuple(readable.shape), check.integer("seq_axis", seq_axis, -(1 << 62)))
    scale: npt.NDArray[Any] = _scheme(scheme).of(where)
    if str(readable.dtype).removeprefix("torch.") != "float64":
        scale = scale.astype(np.float32)
        if scheme.in_query_dtype:
            scale = _rounded_as(readable, scale)
    cos = np.broadcast_to(scale[..., None], (*scale.shape, (readable.shape[-1] + 1) // 2))
    sin = np.broadcast_to(scale.dtype.type(0), cos.shape)
    return apply_rotary_emb(q, cos, sin, layout="half", seq_axis=seq_axis, out=out)


def _scheme(scheme: Any) -> QueryScale:
    if not (hasattr(scheme, "of") and hasattr(scheme, "in_query_dtype")):
        raise TypeError(f"scheme must be one of posenc.query_scale, such as Llama4Scale(), got {scheme!r}")
    checked: QueryScale = scheme
    return checked


def _positions(positions: Any) -> npt.NDArray[np.float64]:
    if isinstance(positions, (int, np.integer)) and not isinstance(positions, bool):
        return np.arange(check.integer("positions", positions, 0), dtype=np.float64)
    array = check.plain_array("positions", positions)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"positions must be integers or floats, got {array.dtype}")
    array = array.astype(np.float64)
    if not (np.isfinite(array) & (array >= 0)).all():
        raise ValueError("positions must be finite and at least 0")
    return array


def _check_shape(positions: tuple[int, ...], q: tuple[int, ...], seq_axis: int) -> None:
    if len(q) < 2 or not -len(q) <= seq_axis < len(q) - 1 or seq_axis == -1:
        raise ValueError(f"q must have shape (..., seq, head_dim) with seq on seq_axis {seq_axis}, got {q}")
    seq = q[seq_axis]
    if positions not in ((seq,), (1, seq), (q[0], seq)):
        raise ValueError(
            f"positions must have shape ({seq},) or (batch, {seq}) with batch 1 or {q[0]}, got {positions}"
        )


def _rounded_as(q: Any, scale: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a scale rounded to the dtype of the queries, in float32 again."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(q, torch.Tensor):
        rounded: npt.NDArray[np.float32] = torch.from_numpy(scale).to(q.dtype).to(torch.float32).numpy()
        return rounded
    return scale.astype(q.dtype).astype(np.float32)
