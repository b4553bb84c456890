"""Biases as values: called with positions, built, added, or turned into a score function of flex attention.

`Bias` is what every kind of bias offers. A new kind writes `__call__`, `add` and `score_mod`, and is named once in
tests/test_bias_objects.py, which holds all kinds to the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.bias import _scores
from posenc.bias.alibi import add_alibi, line_term
from posenc.bias.t5 import add_t5_bias, t5_bucket, table_term

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt


class Bias(ABC):
    """A bias of attention scores that depends on the head and on the positions of query and key.

    Attributes
    ----------
    heads : int
    """

    heads: int
    _options: Mapping[str, Any] = MappingProxyType({})

    def __repr__(self) -> str:
        small = [f"{name}={value!r}" for name, value in self._options.items() if isinstance(value, (str, int, tuple))]
        return f"<{', '.join([f'{type(self).__name__} of {self.heads} heads', *small])}>"

    @abstractmethod
    def __call__(self, query_positions: Any, key_positions: Any) -> npt.NDArray[np.float64]:
        """Return the bias at positions, plainly in float64: the reference of everything else here.

        Parameters
        ----------
        query_positions, key_positions : array_like
            In tokens; shapes that broadcast, such as (queries, 1) and (keys,).

        Returns
        -------
        ndarray of float64, shape (heads, *broadcast)
        """

    @abstractmethod
    def add(self, scores: Any, **options: Any) -> Any:
        """Add the bias to scores (..., heads, queries, keys); options are those of the function of this kind.

        Parameters
        ----------
        scores : NumPy array or torch CPU tensor
        **options
            causal, window, sinks, query_positions, key_positions, out.

        Returns
        -------
        array
        """

    def dense(self, query_len: int, key_len: int, *, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Return the bias as an array, queries at the last of the keys.

        Parameters
        ----------
        query_len, key_len : int
        dtype : float32, float64, float16 or bfloat16

        Returns
        -------
        ndarray, shape (heads, query_len, key_len)
        """
        shape = (self.heads, _scores.length("query_len", query_len), _scores.length("key_len", key_len))
        scores = np.zeros(shape, check.float_dtype(dtype))
        self.add(scores, out=scores)
        return scores

    @abstractmethod
    def score_mod(self, offset: int = 0) -> Callable[[Any, Any, Any, Any, Any], Any]:
        """Return the score function of torch's flex attention, `score_mod(score, batch, head, query, key)`.

        Parameters
        ----------
        offset : int
            The position of query 0, where key 0 is at position 0: keys - queries aligns them at their ends.

        Returns
        -------
        callable
            Over torch tensors; torch is imported here.
        """


class Alibi(Bias):
    """ALiBi as a value; see `posenc.add_alibi`.

    Parameters
    ----------
    slopes : array_like, shape (heads,)
    form : {"distance", "key"}
    right_slopes : array_like, optional

    Examples
    --------
    >>> import posenc
    >>> bias = posenc.bias.Alibi(posenc.alibi_slopes(8))
    >>> bias([5], [3])[:2, 0]
    array([-1. , -0.5])
    """

    def __init__(self, slopes: Any, *, form: str = "distance", right_slopes: Any = None) -> None:
        lines, self._of_key = line_term(slopes, right_slopes, form)
        if len(lines) != 1:
            raise ValueError(f"slopes must have shape (heads,), got {np.shape(slopes)}")
        self._lines = lines[0]
        self.heads = len(self._lines)
        self._options = {"slopes": slopes, "form": form, "right_slopes": right_slopes}

    def __call__(self, query_positions: Any, key_positions: Any) -> npt.NDArray[np.float64]:
        """Return slope times distance, or times key position; see `Bias`."""
        query, key = np.asarray(query_positions, np.float64), np.asarray(key_positions, np.float64)
        u = np.asarray(key + 0 * query if self._of_key else key - query)
        low, high = self._lines.T.reshape(2, self.heads, *([1] * u.ndim))
        return np.asarray(np.where(u < 0, low, high) * np.abs(u))

    def add(self, scores: Any, **options: Any) -> Any:
        """Call `posenc.add_alibi`; see `Bias`."""
        return add_alibi(scores, **self._options, **options)

    def score_mod(self, offset: int = 0) -> Callable[[Any, Any, Any, Any, Any], Any]:
        """Return a score function; see `Bias`."""
        import torch

        lines, of_key = torch.from_numpy(self._lines.astype(np.float32)), self._of_key
        first = check.integer("offset", offset, -(1 << 30), 1 << 30)

        def score_mod(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
            u = key if of_key else key - query - first
            return score + torch.where(u < 0, lines[head, 0], lines[head, 1]) * abs(u)

        return score_mod


class T5(Bias):
    """T5's bias as a value; see `posenc.add_t5_bias`.

    Parameters
    ----------
    table : array, shape (num_buckets, heads)
    bidirectional : bool
    max_distance : int
    order : {"buckets_heads", "heads_buckets"}

    Examples
    --------
    >>> import numpy as np
    >>> import posenc
    >>> bias = posenc.bias.T5(np.arange(32.0)[:, None], bidirectional=False)
    >>> bias([[4], [40]], [0, 4])
    array([[[ 4.,  0.],
            [23., 22.]]])
    """

    def __init__(
        self, table: Any, *, bidirectional: bool, max_distance: int = 128, order: str = "buckets_heads"
    ) -> None:
        _, roles, self._index, self._low, _ = table_term(table, bidirectional, None, max_distance, order)
        values = check.plain_array("table", table)
        self._values = (values if roles == "nh" else values.T).astype(np.float64)
        self.heads = self._values.shape[1]
        self._buckets: dict[str, Any] = {"bidirectional": bidirectional, "max_distance": max_distance}
        self._options = {"table": table, "order": order, **self._buckets}

    def __call__(self, query_positions: Any, key_positions: Any) -> npt.NDArray[np.float64]:
        """Return the table's values; see `Bias`."""
        u = np.asarray(key_positions) - np.asarray(query_positions)
        bucket = t5_bucket(u, num_buckets=len(self._values), **self._buckets)
        return np.asarray(np.moveaxis(self._values[bucket], -1, 0))

    def add(self, scores: Any, **options: Any) -> Any:
        """Call `posenc.add_t5_bias`; see `Bias`."""
        return add_t5_bias(scores, **self._options, **options)

    def score_mod(self, offset: int = 0) -> Callable[[Any, Any, Any, Any, Any], Any]:
        """Return a score function; see `Bias`."""
        import torch

        table = torch.from_numpy(self._values.astype(np.float32))
        index, low = torch.from_numpy(self._index.copy()), self._low
        first = check.integer("offset", offset, -(1 << 30), 1 << 30)

        def score_mod(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
            n = torch.clamp(key - query - first, low, -low) - low
            return score + table[index[n], head]

        return score_mod
