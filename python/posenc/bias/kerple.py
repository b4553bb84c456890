"""KERPLE: learned kernels of the distance, a logarithm or a power (Chi et al., arXiv:2205.09921)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc import _series
from posenc.bias import _scores
from posenc.bias.objects import Bias

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

FORMS = ("log", "power")


class Kerple(Bias):
    """KERPLE as a value: a bias of the distance d = abs(query - key) with two positive numbers for each head.

    Form "log" is -r1 * ln(1 + r2 * d), form "power" is -r1 * d ** r2.

    Parameters
    ----------
    r1, r2 : array_like, shape (heads,)
        Positive; r2 at most 2 for form "power". The authors' code calls them bias_p and bias_a ("log"), bias_a and
        bias_p ("power"), and clamps them to at least 0.01 before use.
    form : {"log", "power"}

    Raises
    ------
    TypeError, ValueError

    Notes
    -----
    Chi et al., equation 5; `ParallelKerpleLog` and `ParallelKerplePower` of chijames/KERPLE. Logarithm and power are
    made without the C library, within a few units in the last place of float64.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import Kerple
    >>> Kerple([2.0], [1.0]).dense(2, 3).round(3)
    array([[[-1.386,  0.   , -1.386],
            [-2.197, -1.386,  0.   ]]], dtype=float32)
    """

    def __init__(self, r1: Any, r2: Any, *, form: str = "log") -> None:
        self._form = check.choice("form", form, FORMS)
        self._r1, self._r2 = (_positive(name, value) for name, value in (("r1", r1), ("r2", r2)))
        if self._r1.shape != self._r2.shape:
            raise ValueError(f"r1 and r2 must have the same shape, got {self._r1.shape} and {self._r2.shape}")
        if form == "power" and self._r2.max() > 2:
            raise ValueError(f"r2 must be at most 2 for form 'power', got {self._r2.max()}")
        self.heads = len(self._r1)

    def __call__(self, query_positions: Any, key_positions: Any) -> npt.NDArray[np.float64]:
        """Return the kernel at positions, which may be fractions; see `Bias`."""
        distance = np.abs(np.asarray(query_positions, np.float64) - np.asarray(key_positions, np.float64))
        r1, r2 = (r.reshape(-1, *[1] * distance.ndim) for r in (self._r1, self._r2))
        if self._form == "log":
            return np.asarray(-r1 * _series.log(1 + r2 * distance))
        logarithm = _series.log(np.where(distance > 0, distance, 1))
        return np.asarray(-r1 * np.where(distance > 0, _series.exp(r2 * logarithm), 0))

    def add(self, scores: Any, **options: Any) -> Any:
        """Add the kernel in one pass; see `Bias`. Positions are integers here.

        Its values are made for each distance of the call, not for each score.
        """
        out = options.pop("out", None)
        masks = [options.pop(name, default) for name, default in (("causal", False), ("window", None), ("sinks", 0))]
        positions = (options.pop("query_positions", None), options.pop("key_positions", None))
        if options:
            raise TypeError(f"add has no option {next(iter(options))!r}")
        shape = _scores.shape_of(scores)
        where = _scores.where_of(shape, *positions)
        reach = _reach(where, shape)
        values = self(0, np.arange(reach + 1))
        index = np.abs(np.arange(-max(reach, 1), max(reach, 1) + 1)).astype(np.int32)
        term = (values, "hn", np.minimum(index, reach).astype(np.int32), -max(reach, 1), 1.0)
        return _scores.add(scores, out, where, _scores.mask_of(*masks), term)

    def score_mod(self, offset: int = 0) -> Callable[[Any, Any, Any, Any, Any], Any]:
        """Return a score function; see `Bias`."""
        import torch

        r1, r2 = (torch.from_numpy(r.astype(np.float32)) for r in (self._r1, self._r2))
        first, is_log = check.integer("offset", offset, -(1 << 30), 1 << 30), self._form == "log"

        def score_mod(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
            distance = abs(key - query - first)
            kernel = torch.log1p(r2[head] * distance) if is_log else distance.float().pow(r2[head])
            return score - r1[head] * kernel

        return score_mod


def _positive(name: str, value: Any) -> npt.NDArray[np.float64]:
    array = check.plain_array(name, value)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be numbers of shape (heads,), got shape {array.shape} and dtype {array.dtype}")
    array = array.astype(np.float64)
    if not (np.isfinite(array).all() and array.min() > 0):
        raise ValueError(f"{name} must be positive and finite")
    return array


def _ends(name: str, positions: Any, counted: tuple[int, int]) -> npt.NDArray[Any]:
    """Return positions, or the first and the last where they count up."""
    array = np.array(counted) if positions is None else check.plain_array(name, positions)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(
            f"{name} must be integers here, got {array.dtype}: values are made for each distance; "
            "call the bias for others"
        )
    return array


def _reach(where: _scores.Where, shape: tuple[int, ...]) -> int:
    """Return the largest distance of a call."""
    if len(shape) < 2 or 0 in shape[-2:]:
        return 0
    queries, keys = shape[-2:]
    key = _ends("key_positions", where[1], (0, keys - 1))  # first: queries without positions are at keys
    query = _ends("query_positions", where[0], (where[2], where[2] + queries - 1))
    if not query.size or not key.size:  # C says what is wrong with the shape
        return 0
    reach = max(int(key.max()) - int(query.min()), int(query.max()) - int(key.min()), 0)
    return check.integer("the largest distance", reach, 0, 1 << 24)
