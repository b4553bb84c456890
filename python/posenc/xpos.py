"""xPos: a rotation whose queries grow and keys shrink with the position, about an explicit centre."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _core, _exact, _series, _views
from posenc import _parameters as check
from posenc.rotary import Rope, as_rope
from posenc.tables import apply_rotary_emb

if TYPE_CHECKING:
    import numpy.typing as npt

#: dtype -> the exponent of its smallest normal number: scales stay between that and its inverse
_SMALLEST = {"float16": -14, "bfloat16": -126, "float32": -126, "float64": -1022}


@dataclass(frozen=True)
class XPos:
    """Extrapolatable position embedding: a `Rope` times a scale that decays with the distance of query and key.

    With r the rotary_dim, pair i of a query at position m is turned by m and multiplied by
    zeta[i] ** ((m - centre) / scale_base); that of a key at n is turned by n and multiplied by
    zeta[i] ** (-(n - centre) / scale_base), where zeta[i] = (2i + 0.4 r) / (1.4 r) (Sun et al., "A
    Length-Extrapolatable Transformer", arXiv:2212.10554; torchscale, component/xpos_relative_position.py). Their
    product holds zeta[i] ** ((m - n) / scale_base): the centre cancels, **if queries and keys share it**.

    Implementations take the centre from the length: length // 2 in flash-attention, rotary-embedding-torch and
    x-transformers, (length + 1) // 2 in torchscale. So it moves as a sequence grows, and keys cached under an old one
    no longer fit. Here it is a number that you choose once, for all queries and all keys.

    Parameters
    ----------
    rope : Rope
        Of one position axis and of fixed length (`rope.at(n)` fixes one).
    scale_base : float
        Tokens in which the scale of pair i falls by zeta[i]; positive.
    centre : float
        The position at which nothing is scaled, in tokens.

    Raises
    ------
    TypeError, ValueError
        For another rope, or numbers out of range.

    Notes
    -----
    Far from the centre the scales of a query and of a key leave the range of their dtype, the one downwards, the other
    upwards: pair 0 reaches 2**126 at about 69.7 * scale_base tokens (35,694 for 512), and float16's 2**14 at
    7.7 * scale_base. That is an error, which says so, and never an infinity.

    Tables are rounded once, from cosine times scale in float64. x itself is read and written where it lies.

    Examples
    --------
    >>> import numpy as np
    >>> import posenc
    >>> from posenc.xpos import XPos
    >>> xpos = XPos(posenc.Rope(8, layout="interleaved"), centre=16)
    >>> q, k = np.ones((1, 4, 32, 8), np.float32), np.ones((1, 2, 32, 8), np.float32)
    >>> q2, k2 = xpos(q, k)
    >>> last = xpos.queries(q[:, :, 31:], offset=31)  # a decode step: same centre, same bits
    >>> bool((last == q2[:, :, 31:]).all())
    True
    """

    rope: Rope
    scale_base: float = 512.0
    centre: float = 0.0

    def __post_init__(self) -> None:
        as_rope(self.rope)
        if self.rope.axes != 1:
            raise ValueError(f"rope must have one position axis, got {self.rope.axes}: xPos has one distance")
        if self.rope.scaling is not None and self.rope.scaling.depends_on_length:
            raise ValueError("rope must have frequencies that do not depend on the length: take rope.at(n)")
        object.__setattr__(self, "scale_base", check.positive("scale_base", self.scale_base))
        object.__setattr__(self, "centre", check.finite("centre", self.centre))

    @property
    def zeta(self) -> npt.NDArray[np.float64]:
        """The decay of each pair over scale_base tokens, float64, shape (rotary_dim/2,)."""
        pairs = len(self.rope.inv_freq)
        tenths = 10.0 * np.arange(pairs, dtype=np.float64) + 4.0 * pairs  # of 2i + 0.4 r, so that one division rounds
        return np.asarray(tenths / (14.0 * pairs))

    def __call__(
        self, q: Any, k: Any, *, positions: Any = None, offset: Any = 0, seq_axis: int = -2, out: Any = None
    ) -> tuple[Any, Any]:
        """Turn and scale queries and keys of the same positions.

        Parameters
        ----------
        q, k : NumPy array or torch CPU tensor, shape (..., seq, head_dim)
        positions, offset, seq_axis
            As in `Rope.__call__`.
        out : (array, array), optional
            Where to write; may be q and k themselves.

        Returns
        -------
        (array, array)
            `out` where given, else new arrays like q and k.

        Raises
        ------
        ValueError
            For positions too far from the centre for the dtype.
        TypeError, ValueError, BufferError
            As in `Rope.__call__`.
        """
        where = self._checked(q, k, out, positions, offset, seq_axis)
        first, second = (None, None) if out is None else out
        for_q, for_k = self._tables(where, q)
        return self._apply(q, for_q, seq_axis, first), self._apply(k, for_k, seq_axis, second)

    def queries(self, q: Any, *, positions: Any = None, offset: Any = 0, seq_axis: int = -2, out: Any = None) -> Any:
        """Turn and scale queries alone, as in a decode step whose keys are cached.

        Parameters, result and errors as in a call.
        """
        where = self._checked(q, None, out, positions, offset, seq_axis)
        return self._apply(q, self._tables(where, q)[0], seq_axis, out)

    def keys(self, k: Any, *, positions: Any = None, offset: Any = 0, seq_axis: int = -2, out: Any = None) -> Any:
        """Turn and scale keys alone.

        Parameters, result and errors as in a call.
        """
        where = self._checked(k, None, out, positions, offset, seq_axis)
        return self._apply(k, self._tables(where, k)[1], seq_axis, out)

    def scale(self, positions: Any) -> npt.NDArray[np.float64]:
        """Return zeta ** ((positions - centre) / scale_base), what queries are multiplied by; keys by its inverse.

        Parameters
        ----------
        positions : array_like, shape (...)

        Returns
        -------
        ndarray of float64, shape (..., rotary_dim/2)
            Off the exact value by at most 2**-52 * (2 + |ln scale|) of it.

        Raises
        ------
        ValueError
            Where a scale would leave the normal numbers of float64.
        """
        return _series.exp(self._logarithm(check.plain_array("positions", positions).astype(np.float64), "float64"))

    def _checked(self, q: Any, k: Any, out: Any, positions: Any, offset: Any, seq_axis: int) -> npt.NDArray[np.float64]:
        """Let C check the whole call, and return its positions as (seq,) or (batch, seq)."""
        _core.rotate(self.rope._spec, q, k, out, positions, offset, seq_axis, 0, 1)  # checks, and defers all work
        if positions is not None:
            return check.plain_array("positions", positions).astype(np.float64)
        try:
            first: Any = operator.index(offset)
        except TypeError:
            first = np.asarray(offset, np.float64)[:, None]
        return np.asarray(first + np.arange(_views.sliceable(q).shape[seq_axis], dtype=np.float64))

    def _logarithm(self, positions: npt.NDArray[np.float64], dtype: str) -> npt.NDArray[np.float64]:
        """Return ln(scale) of each position and pair, where the dtype holds both the scale and its inverse."""
        decay = np.array([_exact.log(z) for z in self.zeta.tolist()])
        distances = (positions - self.centre) / self.scale_base
        farthest = float(np.max(np.abs(distances), initial=0.0))
        if farthest * -decay[0] > -_SMALLEST[dtype] * _series.LN2:
            position = positions.flat[int(np.argmax(np.abs(distances)))]
            raise ValueError(
                f"positions are too far from centre {self.centre:g} for {dtype}: at {position:g} the scale of a query "
                f"or key is 2**{-farthest * decay[0] / _series.LN2:.0f}, where {dtype} holds 2**{-_SMALLEST[dtype]}; "
                f"take a centre nearer to the positions, the same for all queries and keys, or a larger scale_base"
            )
        return np.asarray(distances[..., None] * decay)

    def _tables(self, positions: npt.NDArray[np.float64], x: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """Return (cos, sin) for queries and for keys, as wide as x needs them."""
        dtype = str(_views.sliceable(x).dtype).removeprefix("torch.")
        kind = np.float64 if dtype == "float64" else np.float32
        scale = _series.exp(self._logarithm(positions, dtype))
        cos, sin = self.rope.table(positions, dtype=np.float64)
        return (
            ((cos * scale).astype(kind), (sin * scale).astype(kind)),
            ((cos / scale).astype(kind), (sin / scale).astype(kind)),
        )

    def _apply(self, x: Any, table: tuple[Any, Any], seq_axis: int, out: Any) -> Any:
        cos, sin = table
        layout, first = self.rope.layout, self.rope.rotary_offset
        return apply_rotary_emb(x, cos, sin, layout=layout, rotary_offset=first, seq_axis=seq_axis, out=out)
