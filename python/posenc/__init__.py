"""posenc: position encodings for transformers.

Exact numbers, over the caller's own NumPy and torch CPU memory, at the speed of memory.

>>> import numpy as np
>>> import posenc
>>> rope = posenc.Rope(128, layout="half", base=500_000.0)
>>> q, k = np.ones((1, 32, 16, 128), np.float32), np.ones((1, 8, 16, 128), np.float32)
>>> q2, k2 = rope(q, k)                            # new arrays
>>> q3, k3 = rope(q, k, out=(q, k))                # in place
>>> q3 is q and bool((q2 == q).all())
True
"""

import importlib
from typing import TYPE_CHECKING, Any

from posenc.rotary import Rope
from posenc.runtime import get_num_threads, set_num_threads, show_runtime
from posenc.tables import apply_rotary_emb, rotary_table
from posenc.weights import permute_rotary_weights

if TYPE_CHECKING:  # what type checkers and editors know of names that are loaded on their first use
    from posenc import (
        additive,
        axes,
        bias,
        checks,
        config,
        consistency,
        golden,
        gradients,
        plot,
        positions,
        query_scale,
        rerotate,
        scaling,
        stateful,
        table_forms,
        testing,
        xpos,
    )
    from posenc import torch as torch
    from posenc.additive import (
        add_positions,
        add_sinusoidal,
        position_table_gradient,
        resize_table,
        sinusoidal_grid,
        sinusoidal_table,
        timestep_embedding,
    )
    from posenc.bias import add_alibi, add_t5_bias, alibi_bias, alibi_slopes, mask_scores, t5_bias, t5_bucket

__version__ = "0.1.0"

__all__ = [
    "Rope",
    "add_alibi",
    "add_positions",
    "add_sinusoidal",
    "add_t5_bias",
    "additive",
    "alibi_bias",
    "alibi_slopes",
    "apply_rotary_emb",
    "axes",
    "bias",
    "checks",
    "config",
    "consistency",
    "get_num_threads",
    "golden",
    "gradients",
    "mask_scores",
    "permute_rotary_weights",
    "plot",
    "position_table_gradient",
    "positions",
    "query_scale",
    "rerotate",
    "resize_table",
    "rotary_table",
    "scaling",
    "set_num_threads",
    "show_runtime",
    "sinusoidal_grid",
    "sinusoidal_table",
    "stateful",
    "t5_bias",
    "t5_bucket",
    "table_forms",
    "testing",
    "timestep_embedding",
    "xpos",
]

_LAZY = {
    "additive",
    "axes",
    "bias",
    "checks",
    "config",
    "consistency",
    "golden",
    "gradients",
    "plot",
    "positions",
    "query_scale",
    "rerotate",
    "scaling",
    "stateful",
    "table_forms",
    "testing",
    "torch",
    "xpos",
}

#: function -> the module that it is taken from on its first use
_LAZY_FUNCTIONS = {
    "add_positions": "additive",
    "add_sinusoidal": "additive",
    "position_table_gradient": "additive",
    "resize_table": "additive",
    "sinusoidal_grid": "additive",
    "sinusoidal_table": "additive",
    "timestep_embedding": "additive",
    "add_alibi": "bias",
    "add_t5_bias": "bias",
    "alibi_bias": "bias",
    "alibi_slopes": "bias",
    "mask_scores": "bias",
    "t5_bias": "bias",
    "t5_bucket": "bias",
}


if not TYPE_CHECKING:  # to which every name would be one that exists

    def __getattr__(name: str) -> Any:
        if name in _LAZY:
            return importlib.import_module(f"posenc.{name}")
        if name in _LAZY_FUNCTIONS:
            found = globals()[name] = getattr(importlib.import_module(f"posenc.{_LAZY_FUNCTIONS[name]}"), name)
            return found
        raise AttributeError(f"module 'posenc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | _LAZY | set(_LAZY_FUNCTIONS))
