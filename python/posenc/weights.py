"""Checkpoints of one layout for models of the other."""

from typing import Any

import numpy as np

from posenc import _parameters as check


def permute_rotary_weights(
    weight: Any,
    num_heads: int,
    *,
    source: str = "interleaved",
    target: str = "half",
    rotary_dim: int | None = None,
) -> Any:
    """Reorder the rows of a query or key projection from one layout to the other.

    A model whose checkpoint pairs elements one way runs under the other after this: q.k is unchanged when the weights
    and biases of both q and k are permuted (k with its own number of heads; never v). For each head, among its first
    rotary_dim rows: half[i] = interleaved[2i], half[i + rotary_dim/2] = interleaved[2i + 1] (transformers'
    convert_llama_weights_to_hf.py, llama.cpp's LlamaModel.permute).

    Parameters
    ----------
    weight : NumPy array or torch tensor, shape (num_heads * head_dim, ...)
        A weight, or a bias of shape (num_heads * head_dim,).
    num_heads : int
    source, target : {"interleaved", "half"}
    rotary_dim : int, optional
        Even; default head_dim. The rows behind it stay.

    Returns
    -------
    array
        A new array of the same kind, shape and dtype.

    Raises
    ------
    ValueError
        If the rows do not divide into heads, or rotary_dim is odd or too large.

    Examples
    --------
    >>> import numpy as np
    >>> import posenc
    >>> posenc.permute_rotary_weights(np.arange(8), num_heads=2)
    array([0, 2, 1, 3, 4, 6, 5, 7])
    """
    if not hasattr(weight, "ndim"):
        raise TypeError(f"weight must be a NumPy array or a torch tensor, got {type(weight)}")
    num_heads = check.integer("num_heads", num_heads, 1)
    for name, layout in (("source", source), ("target", target)):
        check.choice(name, layout, ("interleaved", "half"))
    if weight.ndim < 1 or weight.shape[0] % num_heads:
        raise ValueError(
            f"weight must have num_heads * head_dim rows, a multiple of {num_heads}, got shape {tuple(weight.shape)}"
        )
    head_dim = weight.shape[0] // num_heads
    width = head_dim if rotary_dim is None else check.integer("rotary_dim", rotary_dim, 2)
    if width % 2 or width > head_dim:
        raise ValueError(f"rotary_dim must be even and at most head_dim ({head_dim}), got {width}")
    rows = np.arange(head_dim)
    if source != target:
        by_pair = (-1, 2) if source == "interleaved" else (2, -1)
        rows[:width] = rows[:width].reshape(by_pair).T.ravel()
    heads = num_heads if head_dim else 0  # no rows are any number of heads of no length
    order = (np.arange(heads)[:, None] * head_dim + rows).ravel()
    try:
        return weight[order]
    except RuntimeError as error:  # torch: sparse, quantized, ..
        reason = str(error).splitlines()[0]
        raise TypeError(f"weight must be a dense array whose rows can be reordered: {reason}") from None
