"""Tables of cosines and sines as other systems keep them, to posenc's half-width (cos, sin) and back.

A form says how the two tables lie together, and how often each value is stored. Both directions go through the same
views of a table: splitting reads through them, joining writes through them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from posenc import _angles
from posenc import _parameters as check

if TYPE_CHECKING:
    import numpy.typing as npt


class _Form(NamedTuple):
    arrangement: str
    copies: str


#: a form as `split_table` and `join_table` know it -> how the two tables lie together, how often each value is stored
FORMS = {
    "doubled": _Form("pair", "doubled"),
    "repeated": _Form("pair", "repeated"),
    "cos_sin": _Form("cos_sin", "single"),
    "doubled_cos_sin": _Form("cos_sin", "doubled"),
    "sin_cos": _Form("sin_cos", "single"),
    "doubled_sin_cos": _Form("sin_cos", "doubled"),
    "repeated_sin_cos": _Form("sin_cos", "repeated"),
    "stacked": _Form("stacked", "single"),
    "complex": _Form("complex", "single"),
    "angles": _Form("angles", "single"),
    "doubled_angles": _Form("angles", "doubled"),
    "repeated_angles": _Form("angles", "repeated"),
}


def _halves(t: Any) -> tuple[Any, Any]:
    middle = t.shape[-1] // 2
    return t[..., :middle], t[..., middle:]


_Views = Callable[[Any], tuple[Any, ...]]

#: views of the cosines and of the sines; angles are neither, and one
_PARTS: dict[str, _Views] = {
    "pair": tuple,
    "cos_sin": _halves,
    "sin_cos": lambda t: _halves(t)[::-1],
    "stacked": lambda t: (t[..., 0], t[..., 1]),
    "complex": lambda t: (t.real, t.imag),
    "angles": lambda t: (t,),
}

#: views of width rotary_dim/2, all of the same values
_COPIES: dict[str, _Views] = {
    "single": lambda t: (t,),
    "doubled": _halves,
    "repeated": lambda t: (t[..., 0::2], t[..., 1::2]),
}
_WIDTH = {"single": 1, "doubled": 2, "repeated": 2}

_FLOATS = ("float32", "float64", "float16", "bfloat16")
_COMPLEX = {"float32": "complex64", "float64": "complex128"}
_ON_THE_CIRCLE = 1e-6  # how far cos**2 + sin**2 of rounded float32 may be from 1, with room to spare


def split_table(table: Any, form: str) -> tuple[Any, Any]:
    """Return (cos, sin) of half width, as `apply_rotary_emb` takes them, from a table of another system.

    Parameters
    ----------
    table : NumPy array or torch tensor, or a pair of them
        Axes before the last stay as they are (Megatron's (seq, 1, 1, rotary_dim) keeps its ones). float32, float64,
        float16 or bfloat16; complex64 or complex128 for "complex". Rows P, r = rotary_dim:

        ===================  ==========================  ==========================================================
        form                 table                       found in
        ===================  ==========================  ==========================================================
        "doubled"            (cos, sin), each (P, r),    transformers' Llama and most others
                             [c0 c1 .. | c0 c1 ..]
        "repeated"           (cos, sin), each (P, r),    transformers' Cohere; diffusers' repeat_interleave_real
                             [c0 c0 c1 c1 ..]
        "cos_sin"            (P, r), [cos | sin]         vLLM's, SGLang's and FlashInfer's cos_sin_cache
        "doubled_cos_sin"    (P, 2r), each doubled       torchtitan's rope_cache
        "sin_cos"            (P, r), [sin | cos]         transformers' GPT-J and CodeGen, embed_positions
        "doubled_sin_cos"    (P, 2r), each doubled       timm's RotaryEmbeddingDinoV3
        "repeated_sin_cos"   (P, 2r), each repeated      timm's RotaryEmbeddingCat
        "stacked"            (P, r/2, 2), (cos, sin)     torchtune's RotaryPositionalEmbeddings cache
        "complex"            (P, r/2), cos + i sin       Meta's freqs_cis, transformers' Llama 4
        "angles"             (P, r/2), radians           before the cosine is taken, anywhere
        "doubled_angles"     (P, r), radians             Megatron's and TransformerEngine's freqs
        "repeated_angles"    (P, r), radians             the same with rotary_interleaved; rotary-embedding-torch
        ===================  ==========================  ==========================================================
    form : str
        A name from above.

    Returns
    -------
    cos, sin : arrays of shape (..., rotary_dim/2), of the table's kind
        Views of the table. Copies only of 16-bit tables, widened to float32, and of angles, whose cosines and sines are
        made as those of `rotary_table` are: within 0.501 ulp of float32, 1 ulp of float64.

    Raises
    ------
    TypeError
        For another kind or dtype.
    ValueError
        For a shape that does not fit the form, and for a doubled or repeated table whose copies differ: two members of
        a pair would turn by different angles, which is no rotation.

    Examples
    --------
    >>> import numpy as np
    >>> import posenc
    >>> from posenc.table_forms import split_table
    >>> angles = np.arange(16.0)[:, None] * [1.0, 0.01]
    >>> freqs_cis = np.exp(1j * angles).astype(np.complex64)                      # Meta's
    >>> cos, sin = split_table(freqs_cis, "complex")
    >>> cos.shape, cos.base is freqs_cis
    ((16, 2), True)
    >>> posenc.apply_rotary_emb(np.ones((16, 4), np.float32), cos, sin, layout="interleaved").shape
    (16, 4)
    """
    arrangement, copies = FORMS[check.choice("form", form, FORMS)]
    parts = _parts(table, form, arrangement, copies)
    for part in parts:
        _check_copies(part, form, copies)
    first = tuple(_COPIES[copies](part)[0] for part in parts)
    if arrangement == "angles":
        return _turned(first[0])
    cos, sin = (_widened(part) for part in first)
    return cos, sin


def join_table(cos: Any, sin: Any, form: str) -> Any:
    """Return (cos, sin) of half width as a table of another system: what `split_table` undoes.

    Parameters
    ----------
    cos, sin : NumPy arrays or torch tensors, shape (..., rotary_dim/2)
        float32, float64, float16 or bfloat16, both alike; float32 or float64 for "complex" and the angles.
    form : str
        A name of `split_table`.

    Returns
    -------
    array, or (array, array) for "doubled" and "repeated"
        New, of the kind and dtype of cos; for "complex" the complex type of that width. Angles lie between -pi and pi,
        within 2 ulp of float64 before they are rounded to the dtype: those of the positions, less whole turns.

    Raises
    ------
    TypeError
        For another kind or dtype.
    ValueError
        For shapes that differ, and for angles of a (cos, sin) off the unit circle: an angle holds no attention factor.

    Examples
    --------
    >>> import posenc
    >>> from posenc.table_forms import join_table, split_table
    >>> cos, sin = posenc.Rope(128, layout="half").table(4096)
    >>> cos_sin_cache = join_table(cos, sin, "cos_sin")                           # vLLM's
    >>> cos_sin_cache.shape
    (4096, 128)
    >>> bool((split_table(cos_sin_cache, "cos_sin")[1] == sin).all())
    True
    """
    arrangement, copies = FORMS[check.choice("form", form, FORMS)]
    _check_floats("cos", cos, (*_COMPLEX,) if arrangement in ("complex", "angles") else _FLOATS)
    _check_alike(("cos", cos), ("sin", sin))
    values = (_angle_of(cos, sin),) if arrangement == "angles" else (cos, sin)
    table = _new_table(cos, arrangement, _WIDTH[copies])
    for part, value in zip(_PARTS[arrangement](table), values, strict=True):
        for copy in _COPIES[copies](part):
            copy[...] = value
    return table


# ---- checks ----


def _dtype_name(array: Any) -> str:
    return str(array.dtype).removeprefix("torch.")


def _check_floats(name: str, array: Any, dtypes: tuple[str, ...]) -> None:
    if not (isinstance(array, np.ndarray) or hasattr(array, "new_empty")):
        raise TypeError(f"{name} must be a NumPy array or a torch tensor, got {type(array)}")
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be ignored; pass {name}.data or {name}.filled()")
    if _dtype_name(array) not in dtypes:
        raise TypeError(f"{name} must be {' or '.join(dtypes)}, got {_dtype_name(array)}")


def _check_alike(first: tuple[str, Any], second: tuple[str, Any]) -> None:
    (a_name, a), (b_name, b) = first, second
    if type(a) is not type(b) or a.dtype != b.dtype:
        got = [f"{type(x).__name__} of {_dtype_name(x)}" if hasattr(x, "dtype") else str(type(x)) for x in (a, b)]
        raise TypeError(f"{b_name} must be of the kind and dtype of {a_name}, {got[0]}, got {got[1]}")
    if a.shape != b.shape:
        raise ValueError(f"{b_name} must have the shape of {a_name}, {tuple(a.shape)}, got {tuple(b.shape)}")


def _parts(table: Any, form: str, arrangement: str, copies: str) -> tuple[Any, ...]:
    """Return the table's views of cosines and sines, each with all its copies, once they are as the form says."""
    if arrangement == "pair":
        if not isinstance(table, (tuple, list)) or len(table) != 2:
            raise TypeError(f"table must be a pair (cos, sin) for form {form!r}, got {type(table)}")
        _check_floats("cos", table[0], _FLOATS)
        _check_alike(("cos", table[0]), ("sin", table[1]))
        _check_width("cos", table[0], form, _WIDTH[copies])
    else:
        _check_floats("table", table, tuple(_COMPLEX.values()) if arrangement == "complex" else _FLOATS)
        fused = arrangement in ("cos_sin", "sin_cos")
        _check_width("table", table, form, _WIDTH[copies] * (1 + fused))
        if arrangement == "stacked" and (table.ndim < 2 or table.shape[-1] != 2):
            raise ValueError(
                f"table must have shape (..., rotary_dim/2, 2) for form {form!r}, got {tuple(table.shape)}"
            )
    return _PARTS[arrangement](table)


def _check_width(name: str, array: Any, form: str, multiple: int) -> None:
    if array.ndim < 1 or array.shape[-1] % multiple:
        what = "an axis" if multiple == 1 else f"a last axis of a multiple of {multiple}"
        raise ValueError(f"{name} must have {what} for form {form!r}, got shape {tuple(array.shape)}")


def _differences(part: Any, copies: str) -> Any:
    """Return where the copies of a value differ; NaN equals NaN."""
    a, b = _COPIES[copies](part)
    return (a != b) & ~((a != a) & (b != b))


def _check_copies(part: Any, form: str, copies: str) -> None:
    if copies == "single" or not bool((different := _differences(part, copies)).any()):
        return
    other = "repeated" if copies == "doubled" else "doubled"
    hint = "" if bool(_differences(part, other).any()) else f"; the table is {other}"
    where = tuple(np.argwhere(np.asarray(different))[0].tolist())
    a, b = (view[where].item() for view in _COPIES[copies](part))
    raise ValueError(
        f"both copies of a value must be the same for form {form!r}, but those of {where} are {a} and {b}{hint}"
    )


# ---- values ----


def _widened(part: Any) -> Any:
    if part.dtype.itemsize > 2:
        return part
    return part.astype(np.float32) if isinstance(part, np.ndarray) else part.float()


def _as_numpy(name: str, array: Any) -> npt.NDArray[Any]:
    if isinstance(array, np.ndarray):
        return array
    try:
        return array.numpy()  # type: ignore[no-any-return]
    except (RuntimeError, TypeError) as error:  # on another device, with a gradient to record
        raise TypeError(f"{name} is a tensor that NumPy cannot read: {error}") from None


def _like(result: npt.NDArray[Any], array: Any) -> Any:
    return result if isinstance(array, np.ndarray) else sys.modules["torch"].from_numpy(result)


def _turned(angles: Any) -> tuple[Any, Any]:
    values = _as_numpy("table", _widened(angles))
    if not bool((np.abs(values) < 2.0**31).all()):
        raise ValueError("angles must be finite and below 2**31")
    cos, sin = _angles.cos_sin(values)
    return _like(cos, angles), _like(sin, angles)


def _angle_of(cos: Any, sin: Any) -> Any:
    c, s = (np.asarray(_as_numpy(name, value), np.float64) for name, value in (("cos", cos), ("sin", sin)))
    if not bool((np.abs(c * c + s * s - 1) < _ON_THE_CIRCLE).all()):
        raise ValueError("cos**2 + sin**2 must be 1 for a form of angles, which can hold no attention factor")
    return _like(_angles.angle(c, s), cos)


def _new_table(cos: Any, arrangement: str, copies: int) -> Any:
    *lead, width = cos.shape
    width *= copies

    def new(*last: int, dtype: Any = cos.dtype) -> Any:
        shape = (*lead, *last)
        return np.empty(shape, dtype) if isinstance(cos, np.ndarray) else cos.new_empty(shape, dtype=dtype)

    if arrangement == "pair":
        return new(width), new(width)
    if arrangement == "complex":
        name = _COMPLEX[_dtype_name(cos)]
        return new(width, dtype=name if isinstance(cos, np.ndarray) else getattr(sys.modules["torch"], name))
    if arrangement == "stacked":
        return new(width, 2)
    return new(width) if arrangement == "angles" else new(2 * width)
