"""Biases that content decides as callables: the reference of their one-pass forms, for any pair of positions.

Each is also a score function of flex attention, for scores of the queries and keys whose content it holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.bias.deberta import deberta_index, index_of

if TYPE_CHECKING:
    from collections.abc import Callable

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
        if num_buckets is not None and num_buckets != self._span:
            raise ValueError(f"c2p and p2c must have 2 * num_buckets = {2 * num_buckets} entries, got {2 * self._span}")

    def __call__(self, query_positions: Any, key_positions: Any) -> npt.NDArray[np.float64]:
        """Return the bias at positions, plainly in float64.

        Parameters
        ----------
        query_positions, key_positions : array_like of int
            Shapes that broadcast, such as (queries, 1) and (keys,).

        Returns
        -------
        ndarray of float64, shape (heads, *broadcast)

        Raises
        ------
        IndexError
            For a position that has no row.
        """
        query, key = np.asarray(query_positions), np.asarray(key_positions)
        index = deberta_index(query - key, self._span, **self._how)
        places = (("query_positions", query), ("key_positions", key))
        terms = [
            a[:, _within(name, at, a.shape[1]), index]
            for a, (name, at) in zip(self._rows, places, strict=True)
            if a is not None
        ]
        return np.asarray(self._scale * sum(terms[1:], terms[0]))

    def score_mod(self, offset: int = 0) -> Callable[[Any, Any, Any, Any, Any], Any]:
        """Return the score function of torch's flex attention, `score_mod(score, batch, head, query, key)`.

        Parameters
        ----------
        offset : int
            The position of query 0, which is its row of c2p, where key 0 is at position 0.

        Returns
        -------
        callable
            Over torch tensors; torch is imported here.
        """
        import torch

        first = check.integer("offset", offset, 0, 1 << 30)
        index, reach = index_of(self._span, **self._how)
        rows = [None if a is None else torch.from_numpy((self._scale * a).astype(np.float32)) for a in self._rows]
        c2p, p2c = rows
        entries = torch.from_numpy(index(np.arange(-reach, reach + 1)))

        def score_mod(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
            n = entries[torch.clamp(query + first - key, -reach, reach) + reach]
            if c2p is not None:
                score = score + c2p[head, query + first, n]
            return score if p2c is None else score + p2c[head, key, n]

        return score_mod


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
            For a query position or a distance that has no row.
        """
        query, key = np.broadcast_arrays(np.asarray(query_positions), np.asarray(key_positions))
        _within("query_positions", query, self._query.shape[1])
        row = self._origin - (query - key)
        if row.size and not 0 <= row.min() <= row.max() < self._rows.shape[1]:
            raise IndexError(f"distances {self._origin - row.max()} to {self._origin - row.min()} have no row in r")
        return np.asarray(self._scale * np.einsum("h...d,h...d->h...", self._query[:, query], self._rows[:, row]))

    def score_mod(self, offset: int = 0) -> Callable[[Any, Any, Any, Any, Any], Any]:
        """Return a score function; see `Disentangled.score_mod`.

        It looks products up that are made here, (heads, queries, distances). Scores whose distance has no row stay as
        they are, and are to be masked.
        """
        import torch

        first, origin = check.integer("offset", offset, 0, 1 << 30), self._origin
        products = self._scale * np.einsum("hqd,hnd->hqn", self._query, self._rows)
        table, last = torch.from_numpy(products.astype(np.float32)), self._rows.shape[1] - 1

        def score_mod(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
            row = origin - (query + first - key)
            known = (row >= 0) & (row <= last)
            return score + torch.where(known, table[head, query + first, torch.clamp(row, 0, last)], 0.0)

        return score_mod


class Decomposed:
    """SAM's bias as a callable of positions, which are tokens of images, counted row by row.

    Parameters
    ----------
    rows, columns : array, shape (heads, query_height, query_width, key_height) and (.., key_width)
        As in `posenc.bias.add_decomposed_bias`.

    Raises
    ------
    TypeError, ValueError

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias.content import Decomposed
    >>> Decomposed(np.array([[[[10.0, 20.0]]]]), np.array([[[[1.0, 2.0]]]]))([[0]], [0, 1, 2, 3])
    array([[[11., 12., 21., 22.]]])
    """

    def __init__(self, rows: Any, columns: Any) -> None:
        parts = [_numbers(name, part) for name, part in (("rows", rows), ("columns", columns))]
        if any(part.ndim != 4 for part in parts) or parts[0].shape[:3] != parts[1].shape[:3]:
            raise ValueError(
                "rows and columns must have shape (heads, query_height, query_width, n), "
                f"got {' and '.join(str(part.shape) for part in parts)}"
            )
        heads, height, width = parts[0].shape[:3]
        self._rows, self._columns = (p.astype(np.float64).reshape(heads, height * width, -1) for p in parts)

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
            For a position outside of the image.
        """
        query, key = np.broadcast_arrays(np.asarray(query_positions), np.asarray(key_positions))
        _within("query_positions", query, self._rows.shape[1])
        _within("key_positions", key, self._rows.shape[2] * self._columns.shape[2])
        row, column = np.divmod(key, self._columns.shape[2])
        return np.asarray(self._rows[:, query, row] + self._columns[:, query, column])

    def score_mod(self, offset: int = 0) -> Callable[[Any, Any, Any, Any, Any], Any]:
        """Return a score function; see `Disentangled.score_mod`."""
        import torch

        first, width = check.integer("offset", offset, 0, 1 << 30), self._columns.shape[2]
        rows, columns = (torch.from_numpy(part.astype(np.float32)) for part in (self._rows, self._columns))

        def score_mod(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
            return score + (rows[head, query + first, key // width] + columns[head, query + first, key % width])

        return score_mod


def _rows(name: str, value: Any) -> npt.NDArray[np.float64] | None:
    """Return float64 (heads, rows, n), or None."""
    if value is None:
        return None
    array = _numbers(name, value)
    if array.ndim != 3:
        raise ValueError(f"{name} must have shape (heads, rows, n), got {array.shape}")
    return array.astype(np.float64)


def _within(name: str, positions: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """Return positions that are rows: NumPy would count negative ones from the end."""
    if positions.size and not 0 <= positions.min() <= positions.max() < rows:
        raise IndexError(f"{name} must be 0 to {rows - 1}, got {positions.min()} to {positions.max()}")
    return positions


def _numbers(name: str, value: Any) -> npt.NDArray[Any]:
    array = check.plain_array(name, value)
    if array.dtype.kind in "bcOSUMm":  # ml_dtypes' floats are of kind V
        raise TypeError(f"{name} must be real numbers, got {array.dtype}")
    return array
