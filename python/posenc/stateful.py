"""Rotations that remember earlier calls, as some systems have them: to compare with, not to use."""

from __future__ import annotations

from typing import Any

from posenc import _core
from posenc import _parameters as check
from posenc.rotary import Rope
from posenc.scaling import DynamicNTK


class TransformersDynamicNTK:
    """Dynamic NTK with the memory that transformers gives it.

    A rotary module of transformers (modeling_rope_utils.py, `dynamic_rope_update`, `dynamic_frequency_update`) keeps
    the frequencies of the longest call so far. They change when a call is longer than that, and go back to the
    unscaled ones when a call is shorter than L while the memory is longer than L. In between they are stale: after a
    call of 4 L tokens, one of 2 L, or of exactly L, still has the frequencies of 4 L. `posenc.scaling.DynamicNTK` has
    no memory.

    Parameters
    ----------
    head_dim : int
    layout : {"half", "interleaved", "interleaved_to_half"}
    factor : float
    original_max_position_embeddings : int
        L; `max_position_embeddings` of the config.
    base : float
    rotary_dim : int, optional
        Default: head_dim.

    Attributes
    ----------
    rope : Rope
        What the next call uses unless its length changes it; numbers in transformers' float32.
    cached_length : int
        The length that `rope` belongs to, `max_seq_len_cached` in transformers.

    Raises
    ------
    TypeError, ValueError
        As in `Rope` and `DynamicNTK`.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.stateful import TransformersDynamicNTK
    >>> x = np.ones((1, 400, 8), np.float32)
    >>> stateful = TransformersDynamicNTK(8, layout="half", factor=2.0, original_max_position_embeddings=100)
    >>> walk = []
    >>> for n in (50, 400, 200, 100, 99):
    ...     _ = stateful(x[:, :n], x[:, :n], positions=np.arange(n))
    ...     walk.append(stateful.cached_length)
    >>> walk  # 200 and 100 are turned by the frequencies of 400
    [100, 400, 400, 400, 100]
    """

    rope: Rope
    cached_length: int

    def __init__(
        self,
        head_dim: int,
        *,
        layout: str,
        factor: float,
        original_max_position_embeddings: int,
        base: float = 10000.0,
        rotary_dim: int | None = None,
    ) -> None:
        scaling = DynamicNTK(factor, original_max_position_embeddings)
        self._trained = scaling.original_max_position_embeddings
        self._by_length = Rope(
            head_dim, layout=layout, base=base, rotary_dim=rotary_dim, scaling=scaling, precision="float32"
        )
        self.rope = self._by_length.at(self._trained)
        self.cached_length = self._trained

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._by_length!r}, cached_length={self.cached_length})"

    @property
    def head_dim(self) -> int:
        """Length of a head."""
        return self._by_length.head_dim

    def __call__(self, q: Any, k: Any, *, positions: Any, seq_axis: int = -2, out: Any = None) -> Any:
        """Rotate q and k as `Rope.__call__` does, by the frequencies that the memory and this call lead to."""
        spec = self._by_length._spec
        _core.rotate(spec, q, k, out, positions, 0, seq_axis, 0, 1)  # a call that is refused leaves no memory
        self._update(check.sequence_length(None, positions, 0, 0))
        return self.rope(q, k, positions=positions, seq_axis=seq_axis, out=out)

    def _update(self, seq_len: int) -> None:
        if seq_len > self.cached_length:
            self.rope, self.cached_length = self._by_length.at(seq_len), seq_len
        elif seq_len < self._trained < self.cached_length:
            self.rope, self.cached_length = self._by_length.at(self._trained), self._trained
