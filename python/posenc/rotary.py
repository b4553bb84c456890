"""Rotate: RoPE over queries and keys, in every layout, for any positions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from posenc import _core, _views, runtime
from posenc import _parameters as check
from posenc._rope_numbers import RopeNumbers
from posenc.tables import make_table

if TYPE_CHECKING:
    import numpy.typing as npt

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _entered_in_c(method: _Method) -> _Method:
    """Let plain calls that are not split enter C at once; all others run the method."""
    return _core.rotate_call(method, vars(RopeNumbers)["_fixed_spec"], runtime.SPLIT_BYTES)


class Rope(RopeNumbers):
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
        transformers does; off the exact value by about position * 6e-8 (7e-3 at 131072, 6e-2 at a million).

    Attributes
    ----------
    inv_freq : ndarray of float64, shape (rotary_dim/2,)
        Read-only.
    attention_factor : float
        Multiplies cosine and sine.
    wavelengths : ndarray of float64, shape (rotary_dim/2,)
        Tokens per turn, 2 pi / |inv_freq|.

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

    __slots__ = ()

    @classmethod
    def from_config(
        cls,
        source: Any,
        *,
        layer_type: str | None = None,
        part: str | None = None,
        layout: str | None = None,
        precision: str = "exact",
        strict: bool = True,
    ) -> Any:
        """Return the rotation of a model by its config, in any spelling; see `posenc.config`.

        Parameters
        ----------
        source : path, mapping or object with to_dict()
            A config.json or its directory, its contents, a config object of transformers, or GGUF metadata.
        layer_type : str, optional
            Needed where layers turn differently: "full_attention", "sliding_attention", ..
        part : str, optional
            Of a composite model: "text" (the default), "vision", ..
        layout : str, optional
            For a family that is not known, and only there; see `posenc.config.read`.
        precision : {"exact", "float32"}
            As in `Rope`.
        strict : bool
            Keys that contradict each other or are not known are errors; else warnings.

        Returns
        -------
        Rope
            For a few vision towers an object of `posenc.axes` that is called alike.

        Raises
        ------
        TypeError, ValueError
            For what cannot be read: the message names the key, what came and what was expected. A model that rotates
            nothing is an error that says what it does instead.

        Examples
        --------
        >>> llama = {"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32, "rope_theta": 500000.0}
        >>> posenc.Rope.from_config(llama)
        Rope(128, layout='half', base=500000.0)
        """
        from posenc.config import read

        found = read(source, part=part, layout=layout, precision=precision, strict=strict)
        return found.rope(layer_type)

    @_entered_in_c
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
            _core.rotate(self._spec, q, k, out, positions, offset, seq_axis, 0, 1)  # checks, and defers all work
            rope = self.at(check.sequence_length(seq_len, positions, offset, _views.sliceable(q).shape[seq_axis]))
            return rope(q, k, positions=positions, offset=offset, seq_axis=seq_axis, inverse=inverse, out=out)
        if seq_len is not None:
            check.integer("seq_len", seq_len, 1)
        spec = self._spec if inverse is False or not check.flag("inverse", inverse) else self._inverse_spec
        return runtime.call(_core.rotate, spec, q, k, out, positions, offset, seq_axis)

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
            if isinstance(positions, np.integer):
                positions = int(positions)
            _core.table(self._spec, positions, check.is_float64(dtype), out, 0, 1)  # checks, and defers all work
            largest = positions - 1 if isinstance(positions, int) else positions
            fixed = self.at(check.sequence_length(None, largest, 0, 0))
            return fixed.table(positions, dtype=dtype, out=out)
        return make_table(self._spec, positions, dtype, out)


def as_rope(rope: Any, name: str = "rope") -> Rope:
    """Return a Rope as it is, and refuse what is none."""
    if not isinstance(rope, Rope):
        raise TypeError(f"{name} must be a posenc.Rope, got {check.shown(rope)}")
    return rope


@lru_cache(maxsize=64)
def _fixed(rope: Rope, seq_len: int) -> Rope:
    """Make the Rope of a length. Kept for a while: token after token, LongRoPE has two and no more."""
    from posenc.scaling import InverseFrequencies

    inv_freq, factor = rope._scaled(rope.rotary_dim + rope.rotary_dim % 2, seq_len)
    return rope._replace(scaling=InverseFrequencies(tuple(inv_freq.tolist()), factor))
