"""Rotate: RoPE over queries and keys, in every layout, for any positions."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from posenc import _core, _split, runtime
from posenc import _parameters as check
from posenc._frequencies import PRECISIONS, unscaled
from posenc.tables import LAYOUTS, make_table

if TYPE_CHECKING:
    import numpy.typing as npt

_rotate = _core.rotate
_SPLIT_BYTES = runtime.SPLIT_BYTES


class Rope:
    """Rotary position embedding: an immutable value that rotates queries and keys.

    Pair i of a head, elements (a, b), at position p becomes::

        a' = m * (a * cos(p * inv_freq[i]) - b * sin(p * inv_freq[i]))
        b' = m * (b * cos(p * inv_freq[i]) + a * sin(p * inv_freq[i]))

    with inv_freq[i] = base ** (-2 * i / rotary_dim) and attention factor m = 1 unless a scaling says otherwise (Su et
    al., "RoFormer", arXiv:2104.09864, equations 14, 15 and 34). Positions count tokens, inv_freq is in radians per
    token. Nothing is cached: any position works at any time, fractional ones too.

    Parameters
    ----------
    head_dim : int
        Length of a head, the last axis of what is rotated. If it is odd and all of it is rotated, a zero is appended in
        thought (rotary_dim = head_dim + 1 in frequencies and pairing) and the extra output is dropped; the norm
        loses what that output held.
    layout : {"half", "interleaved", "interleaved_to_half"}
        Which elements form a pair. "half": i and i + rotary_dim/2 (NeoX, rotate_half of transformers).
        "interleaved": 2i and 2i + 1 (GPT-J, Meta's Llama). "interleaved_to_half": read as interleaved, written as
        half (DeepSeek-V3); its inverse reads halves and writes pairs. There is no default: a wrong guess fits every
        shape and ruins the model silently.
    base : float
        Positive; 10000 in the paper.
    rotary_dim : int, optional
        How many elements of a head are rotated; even, or head_dim. Default: twice the length of `inv_freq` where that
        is given, else all from `rotary_offset` on.
    rotary_offset : int
        The first rotated element; the others pass through.
    scaling : optional
        A frequency scaling, see `posenc.scaling`. Excludes `inv_freq`.
    inv_freq : array_like of float, shape (rotary_dim/2,), optional
        Frequencies of your own, in radians per token; excludes `base` and `scaling`. Negative ones turn clockwise.
    axis_of_freq : array_like of int, shape (rotary_dim/2,), optional
        Which position axis turns each frequency (M-RoPE, 2-D, 3-D). With n axes, positions have a leading axis of
        length n. Default: one axis.
    precision : {"exact", "float32"}
        "exact": cosine and sine of position * inv_freq for the float64 `inv_freq` that this object shows, within 0.501
        ulp of float32. "float32": what most models were trained with: inv_freq and angle rounded to float32, as
        transformers does; off the exact value by about position * 6e-8 (2e-3 at 131072, 2e-2 at a million).

    Attributes
    ----------
    inv_freq : ndarray of float64, shape (rotary_dim/2,)
        Read-only.
    attention_factor : float
        Multiplies cosine and sine.
    wavelengths : ndarray of float64, shape (rotary_dim/2,)
        Tokens per turn, 2 pi / inv_freq.

    Raises
    ------
    TypeError, ValueError
        For parameters that fit no rotation; the message says what was expected and what came.

    Notes
    -----
    inv_freq is the float64 nearest to base ** (-2i/rotary_dim); its rounding moves an angle by at most
    position * inv_freq * 2**-53. The bound of "exact" is tested against mpmath in tests/test_exactness.py.

    Examples
    --------
    >>> import numpy as np
    >>> import posenc
    >>> rope = posenc.Rope(64, layout="half")
    >>> q, k = np.ones((2, 8, 5, 64), np.float32), np.ones((2, 2, 5, 64), np.float32)
    >>> q2, k2 = rope(q, k)
    >>> q2.shape, k2.shape
    ((2, 8, 5, 64), (2, 2, 5, 64))
    >>> back = rope(k2, inverse=True)
    >>> bool(np.allclose(back, k, atol=1e-6))
    True
    """

    __slots__ = (
        "_axis_of_freq",
        "_hash",
        "_inv_freq",
        "_inverse_spec",
        "_key",
        "_spec",
        "_varies",
        "attention_factor",
        "axes",
        "base",
        "head_dim",
        "layout",
        "precision",
        "rotary_dim",
        "rotary_offset",
        "scaling",
    )

    head_dim: int
    layout: str
    base: float | None  # None where frequencies were given
    rotary_dim: int
    rotary_offset: int
    scaling: Any
    precision: str
    axes: int  # number of position axes
    attention_factor: float
    _inv_freq: npt.NDArray[np.float64]
    _axis_of_freq: npt.NDArray[np.int64] | None
    _varies: bool  # with the sequence length
    _spec: Any  # what C reads, forward
    _inverse_spec: Any
    _key: tuple[Any, ...]
    _hash: int

    def __init__(
        self,
        head_dim: int,
        *,
        layout: str,
        base: float = 10000.0,
        rotary_dim: int | None = None,
        rotary_offset: int = 0,
        scaling: Any = None,
        inv_freq: npt.ArrayLike | None = None,
        axis_of_freq: npt.ArrayLike | None = None,
        precision: str = "exact",
    ) -> None:
        if inv_freq is not None and (scaling is not None or not isinstance(base, (int, float)) or base != 10000.0):
            raise ValueError("inv_freq excludes base and scaling: it says all that they would")
        given = None if inv_freq is None else check.frequencies(inv_freq)
        own = {
            "head_dim": check.integer("head_dim", head_dim, 1, most=1 << 48),
            "layout": check.choice("layout", layout, LAYOUTS),
            "base": check.base(base) if given is None else None,
            "rotary_offset": check.integer("rotary_offset", rotary_offset, 0),
            "scaling": check.scaling(scaling),
            "precision": check.choice("precision", precision, PRECISIONS),
            "_varies": scaling is not None and bool(scaling.depends_on_length),
        }
        width = check.rotary_width(
            own["head_dim"], rotary_dim, own["rotary_offset"], None if given is None else len(given)
        )
        own["rotary_dim"] = min(width, own["head_dim"])
        own["_axis_of_freq"] = check.axes_of(axis_of_freq, width // 2)
        own["axes"] = check.count_axes(own["_axis_of_freq"])
        self._put(own)
        self._put(self._find_frequencies(width, given))
        self._put({"_spec": self._make_spec(inverse=False), "_inverse_spec": self._make_spec(inverse=True)})
        self._put({"_key": (*self._arguments().items(), self._inv_freq.tobytes())})
        self._put({"_hash": hash(self._key)})

    def _put(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _find_frequencies(self, width: int, given: npt.NDArray[np.float64] | None) -> dict[str, Any]:
        factor = 1.0
        if given is not None:
            inv_freq = given
        elif self.scaling is None:
            inv_freq = unscaled(width, cast(float, self.base), self.precision)
        else:
            inv_freq, factor = self._scaled(width, None)
        inv_freq = check.rounded(inv_freq, self.precision)
        inv_freq.flags.writeable = False
        return {"_inv_freq": inv_freq, "attention_factor": factor}

    def _scaled(self, width: int, seq_len: int | None) -> tuple[npt.NDArray[np.float64], float]:
        given, factor = self.scaling.frequencies(width, self.base, seq_len, self.precision)
        inv_freq = check.frequencies(given)
        if len(inv_freq) != width // 2:
            raise ValueError(f"scaling must give {width // 2} frequencies for rotary_dim {width}, got {len(inv_freq)}")
        return inv_freq, check.positive("attention_factor", factor)

    def _make_spec(self, *, inverse: bool) -> Any:
        """C's copy of the numbers. The inverse turns the other way and divides the attention factor out."""
        return _core.spec(
            -self._inv_freq if inverse else self._inv_freq,
            self._axis_of_freq,
            LAYOUTS[self.layout][inverse],
            self.head_dim,
            self.rotary_offset,
            1.0 / self.attention_factor if inverse else self.attention_factor,
            self.precision == "float32",
        )

    def __call__(
        self,
        q: Any,
        k: Any = None,
        *,
        positions: Any = None,
        offset: Any = 0,
        seq_axis: int = -2,
        inverse: bool = False,
        seq_len: int | None = None,
        out: Any = None,
    ) -> Any:
        """Rotate q, or q and k, by their positions.

        Parameters
        ----------
        q, k : NumPy array or torch CPU tensor, shape (..., seq, head_dim)
            float32, float64, float16 or bfloat16; any strides. Head counts may differ; dtype, sequence length and
            number of axes agree.
        positions : array_like, optional
            Integers or floats, in tokens: shape (seq,), or (batch, seq) with batch 1 or q's first axis; with n position
            axes (n, seq) or (n, batch, seq). |position| and |position * inv_freq| stay below 2**31.
        offset : int or array_like of int, shape (batch,)
            Short for positions offset, offset + 1, ..; excludes `positions`.
        seq_axis : int
            Which axis is the sequence: -2 for (batch, heads, seq, head_dim), -3 for (batch, seq, heads, head_dim), 0
            for packed (tokens, heads, head_dim).
        inverse : bool
            Un-rotate: the sine negated, the attention factor divided out.
        seq_len : int, optional
            For scalings that depend on it; default: the largest position of the call plus one.
        out : array, or (array, array) with k, optional
            Where to write; may be q (and k) themselves. Same shape and dtype, no other overlap.

        Returns
        -------
        array, or (array, array) with k
            `out` where given, else new arrays of the kind, dtype, shape and memory order of q and k. 16-bit types are
            computed in float32 and rounded once. After an interrupt (Ctrl-C), `out` may be partly written.

        Raises
        ------
        TypeError
            For another kind or dtype, and for tensors whose memory is not their value: requires_grad, negated views,
            other devices.
        ValueError
            For shapes, positions and overlaps that do not fit.
        BufferError
            For a read-only `out`.
        """
        if self._varies:
            _rotate(self._spec, q, k, out, positions, offset, seq_axis, 0, False)  # checks, and defers all work
            rope = self.at(check.sequence_length(seq_len, positions, offset, _split.sliceable(q).shape[seq_axis]))
            return rope(q, k, positions=positions, offset=offset, seq_axis=seq_axis, inverse=inverse, out=out)
        if seq_len is not None:
            check.integer("seq_len", seq_len, 1)
        spec = self._inverse_spec if inverse else self._spec
        result = _rotate(spec, q, k, out, positions, offset, seq_axis, _SPLIT_BYTES, False)
        if type(result) is int:
            return _split.rotate(spec, self.axes, q, k, out, positions, offset, seq_axis, result)
        return result

    @property
    def inv_freq(self) -> npt.NDArray[np.float64]:
        """Inverse frequencies in radians per token, float64, read-only."""
        return self._inv_freq

    @property
    def axis_of_freq(self) -> npt.NDArray[np.int64] | None:
        """Which position axis turns each frequency, or None for one axis."""
        return self._axis_of_freq

    @property
    def wavelengths(self) -> npt.NDArray[np.float64]:
        """Tokens per turn, 2 pi / |inv_freq|; infinite for a frequency of zero."""
        with np.errstate(divide="ignore"):
            return 2 * math.pi / np.abs(self._inv_freq)

    def at(self, seq_len: int) -> Rope:
        """Return the fixed Rope of a sequence length, for scalings that depend on it; else this one.

        Parameters
        ----------
        seq_len : int
            Tokens, at least 1.

        Returns
        -------
        Rope
        """
        seq_len = check.integer("seq_len", seq_len, 1)
        return _fixed(self, self.scaling.effective_length(seq_len)) if self._varies else self

    def shift(self, k: Any, delta: Any, *, seq_axis: int = -2, out: Any = None) -> Any:
        """Move cached keys: what this Rope rotated at position p becomes what it would have made at p + delta.

        A pure rotation by delta * inv_freq, in the layout in which the keys were written; the attention factor is in
        them already. Repeating it adds up errors: see `posenc.rerotate.rerotate`, which is for other frequencies.

        Parameters
        ----------
        k : NumPy array or torch CPU tensor, shape (..., seq, head_dim)
            Rotated keys.
        delta : array_like
            Integers or floats, in tokens: one number, (seq,) for each token, (batch, 1) for each row, or (batch, seq).
            With n position axes one number for all of them, or a leading axis of length n.
        seq_axis : int
        out : array, optional
            Where to write; may be k itself.

        Returns
        -------
        array
            `out` where given, else a new array like k.

        Raises
        ------
        ValueError
            For a length-dependent scaling (take `at(n)` of the length that the keys were rotated for), for a whole odd
            head, whose last pair has lost an element, and for shapes that do not fit.
        TypeError, BufferError
            As in a call.

        Examples
        --------
        >>> rope = posenc.Rope(8, layout="half")
        >>> raw = np.ones((2, 4, 8), np.float32)
        >>> cache = rope(raw, offset=100)
        >>> bool(np.allclose(rope.shift(cache, -100), rope(raw), atol=1e-6))
        True
        """
        from posenc.rerotate import shift

        return shift(self, k, delta, seq_axis=seq_axis, out=out)

    def table(self, positions: Any, *, dtype: npt.DTypeLike = np.float32, out: Any = None) -> tuple[Any, Any]:
        """Return (cos, sin) for positions, the attention factor multiplied in.

        Parameters
        ----------
        positions : int or array_like
            An int n means 0 .. n-1; else as in a call.
        dtype : float32 or float64
        out : (array, array), optional

        Returns
        -------
        cos, sin : arrays of shape (seq, rotary_dim/2) or (batch, seq, rotary_dim/2)

        Examples
        --------
        >>> cos, sin = posenc.Rope(128, layout="half").table(4096)
        >>> cos.shape, cos.dtype.name
        ((4096, 64), 'float32')
        """
        if self._varies:
            _core.table(self._spec, positions, check.is_float64(dtype), out, 0, False)  # checks, and defers all work
            largest = positions - 1 if isinstance(positions, int) else positions
            fixed = self.at(check.sequence_length(None, largest, 0, 0))
            return fixed.table(positions, dtype=dtype, out=out)
        return make_table(self._spec, self.axes, positions, dtype, out)

    def _replace(self, **changes: Any) -> Rope:
        return Rope(**{**self._arguments(), **changes})

    def _arguments(self) -> dict[str, Any]:
        """Return what rebuilds this object, hashable, without what is as it would be by default."""
        every = {
            "head_dim": self.head_dim,
            "layout": self.layout,
            "base": self.base,
            "rotary_dim": None if self.rotary_dim == self.head_dim else self.rotary_dim,
            "rotary_offset": self.rotary_offset or None,
            "scaling": self.scaling,
            "inv_freq": tuple(self._inv_freq.tolist()) if self.base is None else None,
            "axis_of_freq": None if self._axis_of_freq is None else tuple(self._axis_of_freq.tolist()),
            "precision": None if self.precision == "exact" else self.precision,
        }
        return {name: value for name, value in every.items() if value is not None}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Rope is immutable; make another one with a different {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Rope is immutable")

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Rope) else NotImplemented

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._arguments(),)

    def __repr__(self) -> str:
        named = (f"{name}={value!r}" for name, value in self._arguments().items() if name != "head_dim")
        return f"Rope({self.head_dim}, {', '.join(named)})"


@lru_cache(maxsize=64)
def _fixed(rope: Rope, seq_len: int) -> Rope:
    """Make the Rope of a length. Kept for a while: token after token, LongRoPE has two and no more."""
    from posenc.scaling import InverseFrequencies

    inv_freq, factor = rope._scaled(rope.rotary_dim + rope.rotary_dim % 2, seq_len)
    return rope._replace(scaling=InverseFrequencies(tuple(inv_freq.tolist()), factor))


def _rebuild(arguments: dict[str, Any]) -> Rope:
    return Rope(**arguments)
