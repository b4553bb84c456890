"""What has no business being an argument, and some that has."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from conftest import OtherArray
from fuzzing.memory import torch


class OwnError(Exception):
    """What objects in the junk raise by themselves."""


class Raises:
    """Fails with an error of its own, whatever is asked of it."""

    def __index__(self) -> int:
        raise OwnError

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise OwnError

    def __dlpack__(self, **options: Any) -> Any:
        raise OwnError

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def junk() -> list[Any]:
    """Return what has no business being an argument, and some that has."""
    plain = [
        *(None, True, False, 0, 1, -1, 3, 2**31, -(2**31), 2**62, 2**63, 2**64 - 8, 2**64 - 1, 2**70, -(2**70)),
        *(0.0, 1.5, -2.5, float("nan"), float("inf"), 1e300, 10**400, 1j, "half", "", b"x", (), [], [1.0], {}),
        *(np.int8(3), np.uint64(2**64 - 1), np.float32(2), np.bool_(True), np.float64("nan"), range(4), object()),
        *([[1], [1, 2]], [2**70] * 4, [None] * 4, ["a"] * 4, Raises(), type, np.float32, np.dtype(">f4"), Ellipsis),
    ]
    dtypes = (*"?bBhIqQefdgFDO", "S3", "U2", "M8[s]", "m8[s]")
    arrays = [np.zeros(shape, dtype) for dtype in dtypes for shape in ((), 4, (4, 8), (0, 8), (2, 3, 4, 8))]
    strange = [
        *(np.zeros((4, 8), dtype) for dtype in (">f4", ">f8", ">f2", "V2", [("a", "f4")])),
        *(np.zeros((4, 8), dtype) for dtype in (ml_dtypes.float8_e5m2, ml_dtypes.int4, ml_dtypes.bfloat16)),
        *(np.ma.masked_array(np.zeros((4, 8), np.float32)), np.zeros([1] * 40, np.float32), np.matrix(np.ones((4, 8)))),
        *(OtherArray(np.zeros((4, 8), dtype)) for dtype in ("f4", "i4", "f8")),
    ]
    return plain + arrays + strange + (torch_junk() if torch else [])


#: more elements than fit in 32 bits, for calls that must not come to allocate a result
HUGE = [np.broadcast_to(np.float32(1), shape) for shape in ((2**45, 4, 8), (4, 2**45, 8), (2**45, 8), (2, 2**45))]


def torch_junk() -> list[Any]:
    """Return tensors whose memory is not their value, or that are of no use here."""
    x = torch.ones(2, 3, 4, 8)
    return [
        *(
            torch.tensor(3),
            torch.tensor(2.5),
            torch.tensor([1, 2]),
            torch.arange(4),
            torch.arange(4.0),
            torch.ones(0, 8),
        ),
        *(x, x.int(), x.bool(), x.half(), x.to(torch.cfloat), x.to(torch.cfloat).conj(), x[:1].expand(2, 3, 4, 8)),
        *(x.clone().requires_grad_(), torch._neg_view(x), x.to("meta"), x.to_sparse(), x.to_mkldnn()),
        torch.frombuffer(bytearray(4 * 64 + 1), dtype=torch.float32, offset=1, count=64).view(8, 8),
    ]
