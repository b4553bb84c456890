"""The numbers of a rotation: what a Rope is, without what it does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from posenc import _core
from posenc import _parameters as check
from posenc._frequencies import PRECISIONS, unscaled
from posenc.tables import LAYOUTS

if TYPE_CHECKING:
    import numpy.typing as npt


class RopeNumbers:
    """An immutable value: hashable, comparable, picklable, its repr rebuilds it. Its parameters are those of `Rope`."""

    __slots__ = (
        "_axis_of_freq",
        "_fixed_spec",
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
    _fixed_spec: Any  # the first again; None where the length of a call has a say
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
        self._put({"_fixed_spec": None if self._varies else self._spec})
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

    def _replace(self, **changes: Any) -> Self:
        return type(self)(**{**self._arguments(), **changes})

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
        return self._key == other._key if isinstance(other, RopeNumbers) else NotImplemented

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._arguments())

    def __repr__(self) -> str:
        named = (f"{name}={value!r}" for name, value in self._arguments().items() if name != "head_dim")
        return f"{type(self).__name__}({self.head_dim}, {', '.join(named)})"


RopeNumbers.__init__.__qualname__ = "Rope"  # what Python calls it where `layout` is missing


def _rebuild(kind: type[RopeNumbers], arguments: dict[str, Any]) -> RopeNumbers:
    return kind(**arguments)
