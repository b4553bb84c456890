"""Memory for large results: NumPy's, which asks the system for huge pages.

A result of tens of MiB is fresh memory in every call, and touching it for the first time page by page takes longer than
the rotation (measured: 48 ms for 40 MiB of 4 KiB pages, 12 with huge ones, 4 where the pages are there). torch asks for
huge pages only where THP_MEM_ALLOC_ENABLE=1 is set.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LARGE_BYTES = 4 << 20  # from here on NumPy asks


def fresh(x: Tensor) -> Tensor | None:
    """Return a new tensor of the dtype, shape and memory order of a plain CPU tensor, or None where it is small."""
    if x.numel() * x.element_size() < LARGE_BYTES:
        return None
    half = x.dtype is torch.bfloat16  # which NumPy does not know
    array = np.empty_like((x.view(torch.int16) if half else x).numpy(), subok=False)
    result = torch.from_numpy(array)
    return result.view(torch.bfloat16) if half else result
