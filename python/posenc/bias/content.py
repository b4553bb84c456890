"""Biases that content decides as callables: the reference of their one-pass forms, for any pair of positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.bias.deberta import deberta_index

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


class Disentangled:
    """DeBERTa's terms as a callable of positions, which are also the rows of c2p and p2c.

    Parameters
    ----------
    c2p, p2c : array, shape (heads, queries, 2 * span) and (heads, keys, 2 * span)
        As in `posenc.bias.add_disentangled_bias`; one of them at least.
    num_buckets, max_distance, beyond, scale
        As there.

    Raises
    ------
    TypeError, ValueError

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias.content import Disentangled
    >>> Disentangled(c2p=np.arange(8.0).reshape(1, 2, 4))([[0], [1]], [0, 1])
    array([[[2., 1.],
            [7., 6.]]])
    """

    def __init__(
        self,
        *,
        c2p: Any = None,
        p2c: Any = None,
        num_buckets: int | None = None,
        max_distance: int = 512,
        beyond: str = "transformers",
        scale: float = 1.0,
    ) -> None:
        if c2p is None and p2c is None:
            raise ValueError("c2p or p2c must be given")
        self._rows = [_rows(name, a) for name, a in (("c2p", c2p), ("p2c", p2c))]
        widths = {a.shape[-1] for a in self._rows if a is not None}
        if len(widths) != 1 or min(widths) < 2 or min(widths) % 2:
            raise ValueError(f"c2p and p2c must have the same even number of entries, got {sorted(widths)}")
        self._span, self._scale = widths.pop() // 2, check.finite("scale", scale)
        self._how: dict[str, Any] = {"num_buckets": num_buckets, "max_distance": max_distance, "beyond": beyond}
        deberta_index(0, self._span, **self._how)  # checks

    def __call__(self, query_positions: Any, key_positions: Any) -> npt.NDArray[np.float64]:
        """Return the bias at positions, plainly in float64.

        Parameters
        ----------
        query_positions, key_positions : array_like of int
            Shapes that broadcast, such as (queries, 1) and (keys,).

        Returns
        -------
        ndarray of float64, shape (heads, *broadcast)
        """
        query, key = np.asarray(query_positions), np.asarray(key_positions)
        index = deberta_index(query - key, self._span, **self._how)
        places = (query, key)
        terms = [a[:, at, index] for a, at in zip(self._rows, places, strict=True) if a is not None]
        return np.asarray(self._scale * sum(terms[1:], terms[0]))


class TransformerXL:
    """Transformer-XL's term BD as a callable of positions, which for queries are also the rows of q.

    Parameters
    ----------
    q : array, shape (heads, queries, head_dim)
    r : array, shape (heads, distances, head_dim)
    origin : int
        The row of r that belongs to distance 0; that of distance d = query - key is origin - d.
    v : array, shape (heads, 1, head_dim), optional
    scale : float

    Raises
    ------
    TypeError, ValueError

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias.content import TransformerXL
    >>> TransformerXL(np.ones((1, 2, 1)), np.array([[[3.0], [2.0], [1.0]]]), 2)([[1]], [0, 1])
    array([[[2., 1.]]])
    """

    def __init__(self, q: Any, r: Any, origin: int, v: Any = None, *, scale: float = 1.0) -> None:
        query, rows, addend = _rows("q", q), _rows("r", r), _rows("v", v)
        if query is None or rows is None:
            raise TypeError("q and r must be arrays, got None")
        self._query = query if addend is None else query + addend
        self._rows, self._origin = rows, check.integer("origin", origin, 0)
        self._scale = check.finite("scale", scale)

    def __call__(self, query_positions: Any, key_positions: Any) -> npt.NDArray[np.float64]:
        """Return the bias at positions, plainly in float64.

        Parameters
        ----------
        query_positions, key_positions : array_like of int
            Shapes that broadcast.

        Returns
        -------
        ndarray of float64, shape (heads, *broadcast)

        Raises
        ------
        IndexError
            For a distance that has no row.
        """
        query, key = np.broadcast_arrays(np.asarray(query_positions), np.asarray(key_positions))
        row = self._origin - (query - key)
        if row.size and not 0 <= row.min() <= row.max() < self._rows.shape[1]:
            raise IndexError(f"distances {self._origin - row.max()} to {self._origin - row.min()} have no row in r")
        return np.asarray(self._scale * np.einsum("h...d,h...d->h...", self._query[:, query], self._rows[:, row]))


def _rows(name: str, value: Any) -> npt.NDArray[np.float64] | None:
    """Return float64 (heads, rows, n), or None."""
    if value is None:
        return None
    array = check.plain_array(name, value)
    if array.ndim != 3:
        raise ValueError(f"{name} must have shape (heads, rows, n), got {array.shape}")
    return array.astype(np.float64)
