"""Configs of models: what their positions are, read from a config.json, a dictionary or a config object.

Layouts, bases where a config has none, and layers without positions are known for each family, with their source; a
family that is not known is an error, never a guess.

>>> from posenc import config
>>> llama = {"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32}
>>> config.read({**llama, "rope_theta": 500000.0}).rope()
Rope(128, layout='half', base=500000.0)
"""

from posenc.config._diff import Difference, diff
from posenc.config._explain import Explanation, explain, unturned
from posenc.config._families import FAMILIES
from posenc.config._model import ModelPositions
from posenc.config._read import read
from posenc.config._report import ConfigWarning

__all__ = [
    "FAMILIES",
    "ConfigWarning",
    "Difference",
    "Explanation",
    "ModelPositions",
    "diff",
    "explain",
    "read",
    "unturned",
]
