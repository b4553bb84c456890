"""Learned tables of positions: their sizes, their addition, their gradient."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from posenc import _core, _views, runtime
from posenc import _parameters as check


class LearnedTable(NamedTuple):
    """A learned table as a family of models lays it out.

    Attributes
    ----------
    rows : int
        All rows of the table.
    first_row : int
        The row of the first token; `offset` of `add_positions` for sequences without padding.
    padding_row : int or None
        The row that padding reads, or None where padding is counted like tokens.
    """

    rows: int
    first_row: int
    padding_row: int | None

    def parameters(self, dim: int) -> int:
        """Return how many numbers the table holds: rows * dim."""
        return self.rows * check.integer("dim", dim, 1)


#: family -> (rows beyond the tokens, row of the first token, row of padding). BERT and GPT-2: modeling_bert.py,
#: modeling_gpt2.py; RoBERTa (ESM, MPNet, XLM-R, Longformer): padding_idx + 1 = 2, and max_position_embeddings of its
#: config (514) counts the two; OPT and BART: "offset = 2", which their configs do not count (2048, 1024).
LEARNED: dict[str, tuple[int, int, int | None]] = {
    "bert": (0, 0, None),
    "gpt2": (0, 0, None),
    "roberta": (2, 2, 1),
    "opt": (2, 2, 1),
    "bart": (2, 2, None),
}


def learned_table(family: str, max_tokens: int) -> LearnedTable:
    """Return the layout of a family's learned table for sequences of up to max_tokens.

    Parameters
    ----------
    family : {"bert", "gpt2", "roberta", "opt", "bart"}
    max_tokens : int
        Longest sequence: 512 for BERT and RoBERTa, 1024 for GPT-2 and BART, 2048 for OPT.

    Returns
    -------
    LearnedTable

    Raises
    ------
    TypeError, ValueError
        For another family or number.

    See Also
    --------
    posenc.positions.roberta, posenc.positions.opt, posenc.positions.bart : the row of each token.

    Examples
    --------
    >>> posenc.additive.learned_table("roberta", 512)
    LearnedTable(rows=514, first_row=2, padding_row=1)
    >>> posenc.additive.learned_table("bert", 512).parameters(768)
    393216
    """
    more, first, padding = LEARNED[check.choice("family", family, LEARNED)]
    return LearnedTable(check.integer("max_tokens", max_tokens, 1) + more, first, padding)


def _how(table_scale: Any, padding_idx: Any) -> tuple[float, int | None]:
    most = (1 << 63) - 1
    row = None if padding_idx is None else check.integer("padding_idx", padding_idx, -most - 1, most=most)
    return check.finite("table_scale", table_scale), row


def add_positions(
    x: Any,
    table: Any,
    *,
    positions: Any = None,
    offset: Any = 0,
    table_scale: float = 1.0,
    padding_idx: int | None = None,
    seq_axis: int = -2,
    out: Any = None,
) -> Any:
    """Return x + table_scale * table[positions].

    Parameters
    ----------
    x : NumPy array or torch CPU tensor, shape (..., seq, dim)
        Embeddings: float32, float64, float16 or bfloat16; any strides.
    table : array of shape (rows, dim)
        float32 (float64 for float64 x), or of the dtype of x.
    positions : array_like of int, optional
        Which row each token gets: shape (seq,), or (batch, seq) with batch 1 or x's first axis. `posenc.positions`
        makes those of RoBERTa, OPT and BART.
    offset : int or array_like of int, shape (batch,)
        Short for rows offset, offset + 1, ..; excludes `positions`.
    table_scale : float
        Multiplies the rows; the product is rounded to float32 (float64 for float64 x) before it is added.
    padding_idx : int, optional
        Tokens at this position stay as they are. It need not be a row of the table.
    seq_axis : int
        Which axis of x is the sequence: -2, or 0 for (tokens, batch, dim).
    out : array, optional
        Where to write; may be x itself.

    Returns
    -------
    array
        `out` where given, else a new array like x. 16-bit types are computed in float32 and rounded once.

    Raises
    ------
    IndexError
        For a position outside the table.
    TypeError, ValueError, BufferError
        As in `Rope.__call__`.

    Examples
    --------
    >>> import numpy as np
    >>> x, table = np.ones((2, 3, 4), np.float32), np.arange(40, dtype=np.float32).reshape(10, 4)
    >>> posenc.add_positions(x, table, offset=[0, 7])[:, :, 0].tolist()
    [[1.0, 5.0, 9.0], [29.0, 33.0, 37.0]]
    >>> posenc.add_positions(x, table, positions=[[2, 1, 1]], padding_idx=1, out=x)[0, :, 0].tolist()
    [9.0, 1.0, 1.0]
    """
    how = _how(table_scale, padding_idx)
    return runtime.call(_core.add, x, table, out, positions, offset, seq_axis, *how)


def position_table_gradient(
    grad: Any,
    rows: int | None = None,
    *,
    positions: Any = None,
    offset: Any = 0,
    table_scale: float = 1.0,
    padding_idx: int | None = None,
    seq_axis: int = -2,
    out: Any = None,
    accumulate: bool = False,
) -> Any:
    """Return the gradient of the table in `add_positions`: the gradients of the tokens, summed by row.

    Row r is the sum of table_scale * grad over the tokens at position r. The sum is float32 (float64 for float64 grad):
    each product and each partial sum is rounded. Tokens come in the order of the sequence, and for one place in it
    those of the other axes in their order; so the bits do not depend on the number of threads. The gradient of x is
    grad.

    Parameters
    ----------
    grad : NumPy array or torch CPU tensor, shape (..., seq, dim)
        Gradient of the sum: float32, float64, float16 or bfloat16; any strides.
    rows : int, optional
        Rows of the table, where `out` is not given.
    positions, offset, table_scale, padding_idx, seq_axis
        As in `add_positions`. The row padding_idx gets nothing.
    out : array of shape (rows, dim), optional
        float32, or float64 for float64 grad.
    accumulate : bool
        Add to what is in `out`.

    Returns
    -------
    array of shape (rows, dim)
        `out` where given, else a new array of the kind of grad.

    Raises
    ------
    IndexError
        For a position outside the table.
    TypeError, ValueError, BufferError
        As in `Rope.__call__`.

    Examples
    --------
    >>> import numpy as np
    >>> posenc.position_table_gradient(np.ones((2, 3, 2), np.float32), 4, positions=[0, 1, 1])[:, 0].tolist()
    [2.0, 4.0, 0.0, 0.0]
    """
    how = _how(table_scale, padding_idx)
    if check.flag("accumulate", accumulate) and out is None:
        raise ValueError("accumulate=True adds to out, which must be given")
    if (rows is None) == (out is None):
        raise ValueError("either rows or out must be given: the size of the table, or the table's gradient")
    if out is None:
        out, accumulate = _zeros(grad, check.integer("rows", rows, 0)), True
    arguments = (grad, out, positions, offset, seq_axis, *how)
    result = _core.scatter(*arguments, 0, 1)  # checks, and defers the work
    if not accumulate:
        _views.sliceable(out)[...] = 0
    if type(result) is int:
        runtime.call(_core.scatter, *arguments)
    return out


def _zeros(grad: Any, rows: int) -> Any:
    """Return zeros of the table's shape and dtype, in the kind of grad."""
    dim = _views.sliceable(grad).shape[-1] if hasattr(grad, "__dlpack__") else 0
    wide = str(getattr(grad, "dtype", "")).endswith("float64")
    zeros = np.zeros((rows, dim), np.float64 if wide else np.float32)
    torch = sys.modules.get("torch")
    return torch.from_numpy(zeros) if torch is not None and isinstance(grad, torch.Tensor) else zeros
