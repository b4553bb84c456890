"""M-RoPE: text and image tokens in one sequence, whose pairs are shared out among the axes t, h and w."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from posenc import _parameters as check
from posenc.rotary import Rope

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from posenc.scaling import Scaling

    Axes = npt.NDArray[np.int64]


def mrope(
    head_dim: int,
    sections: Sequence[int],
    *,
    layout: str,
    order: str = "chunked",
    base: float = 10000.0,
    rotary_dim: int | None = None,
    scaling: Scaling | None = None,
    precision: str = "exact",
) -> Rope:
    """Return the Rope of a multimodal text decoder, whose sections say how many pairs each position axis turns.

    The frequencies are those of an ordinary Rope; only the position that turns each of them is chosen. Text has the
    same position on every axis, and is rotated as without sections (Wang et al., "Qwen2-VL", arXiv:2409.12191, section
    2.1).

    Parameters
    ----------
    head_dim : int
        Length of a head.
    sections : sequence of int
        Pairs of each axis, `mrope_section` of a config; the sum is rotary_dim/2.
    layout : {"half", "interleaved", "interleaved_to_half"}
        Which elements form a pair: "half" in the Qwen family, "interleaved" in GLM-4V and Ernie 4.5 VL. It is
        independent of `order`: Qwen3-VL interleaves the axes and splits the pairs in halves.
    order : str
        Which axis turns which pair, all read from transformers' modeling files unless noted.

        - "chunked": the first sections[0] pairs by axis 0, the next sections[1] by axis 1, ... (Qwen2-VL, Qwen2.5-VL,
          GLM-4V, PaddleOCR-VL; GGML_ROPE_TYPE_MROPE).
        - "interleaved": of n axes, axis a > 0 turns the pairs a, a + n, a + 2n, ... below n * sections[a]; axis 0 the
          rest (Qwen3-VL, Qwen3.5; with two axes NeoMME's rows and columns). Every axis must get what its section says.
        - "interleaved_clamped": the same, for sections that do not tile the pairs: what falls beyond the last pair is
          left out, what no section covers is axis 0 (timm, layers/pos_embed_sincos.py, `RotaryEmbeddingMRope`, for
          GenLIP).
        - "interleaved_ggml": four sections (t, h, w, e): pairs that t, h and w leave over are turned by axis 3, which
          llama.cpp feeds with zeros for text (ggml, src/ggml-cpu/ops.cpp, GGML_ROPE_TYPE_IMROPE). With (24, 20, 20, 0)
          these are the pairs 61 and 62, turned by t in transformers.
        - "hw_then_t": sections (h, w, t), h = w: h and w take turns, the last pairs are t's (Ernie 4.5 VL).
    base : float
    rotary_dim : int, optional
        How many elements of a head are rotated; default all (GLM-4V: half of them).
    scaling : Scaling, optional
        As in `posenc.Rope`.
    precision : {"exact", "float32"}
        As in `posenc.Rope`.

    Returns
    -------
    Rope
        Called with positions of shape (axes, seq) or (axes, batch, seq), whose rows are t, h, w in every order.

    Raises
    ------
    TypeError, ValueError
        For sections that do not fit the order or rotary_dim.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc import axes
    >>> rope = axes.mrope(128, [16, 24, 24], layout="half", base=1e6)  # Qwen2-VL
    >>> q = np.ones((2, 28, 10, 128), np.float32)
    >>> rope(q, positions=np.zeros((3, 2, 10), np.int64)).shape
    (2, 28, 10, 128)
    """
    width = check.rotary_width(check.integer("head_dim", head_dim, 2), rotary_dim, 0, None)
    pairs = [check.integer(f"sections[{i}]", n, 0) for i, n in enumerate(check.sequence("sections", sections))]
    axis_of_freq = _ORDERS[check.choice("order", order, _ORDERS)](pairs, width // 2)
    return Rope(
        head_dim,
        layout=layout,
        base=base,
        rotary_dim=width,
        scaling=scaling,
        axis_of_freq=axis_of_freq,
        precision=precision,
    )


def _count(sections: list[int], least: int, most: int) -> None:
    if not least <= len(sections) <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise ValueError(f"sections must have {wanted} entries in this order, got {sections}")


def _fill(sections: list[int], pairs: int) -> None:
    if sum(sections) != pairs:
        raise ValueError(f"sections must have the sum rotary_dim/2 = {pairs}, got {sections} (sum {sum(sections)})")


def _chunked(sections: list[int], pairs: int) -> Axes:
    _count(sections, 2, check.MAX_AXES)
    _fill(sections, pairs)
    return np.repeat(np.arange(len(sections)), sections)


def _clamped(sections: list[int], pairs: int) -> Axes:
    _count(sections, 2, check.MAX_AXES)
    axis_of_freq = np.zeros(pairs, np.int64)
    for axis in range(1, len(sections)):
        axis_of_freq[axis : len(sections) * sections[axis] : len(sections)] = axis
    return axis_of_freq


def _interleaved(sections: list[int], pairs: int) -> Axes:
    _fill(sections, pairs)
    axis_of_freq = _clamped(sections, pairs)
    counts = np.bincount(axis_of_freq, minlength=len(sections)).tolist()
    if counts != sections:
        raise ValueError(f"sections {sections} cannot be interleaved: the axes would turn {counts} pairs")
    return axis_of_freq


def _interleaved_ggml(sections: list[int], pairs: int) -> Axes:
    _count(sections, 4, 4)
    _fill(sections, pairs)
    index = np.arange(pairs)
    limits = 3 * np.array(sections)[index % 3]
    return np.where(index < limits, index % 3, 3)


def _hw_then_t(sections: list[int], pairs: int) -> Axes:
    _count(sections, 3, 3)
    _fill(sections, pairs)
    h, w, t = sections
    if h != w:
        raise ValueError(f"sections (h, w, t) must have h equal to w where they take turns, got {sections}")
    return np.concatenate([np.tile([1, 2], h), np.zeros(t, np.int64)])


_ORDERS: dict[str, Callable[[list[int], int], Axes]] = {
    "chunked": _chunked,
    "interleaved": _interleaved,
    "interleaved_clamped": _clamped,
    "interleaved_ggml": _interleaved_ggml,
    "hw_then_t": _hw_then_t,
}
