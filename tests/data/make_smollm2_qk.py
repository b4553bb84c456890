"""Make ``python/posenc/data/smollm2_qk.npz``: real queries and keys of a real RoPE model.

    pip install ".[test]"
    python tests/data/make_smollm2_qk.py

Runs SmolLM2-135M-Instruct over one sentence and writes what goes into and comes out of the rotary
step of its middle layer. Two runs on one machine write the same bytes; another processor may round
the matrix products before that layer differently. ``tests/test_smollm2.py`` holds the file to the
model.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import transformers

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

import smollm2  # noqa: E402  (it lies in the folder that was just added)

TARGET = TESTS.parent / "python" / "posenc" / "data" / "smollm2_qk.npz"
LAYER = 15  # the middle one of 30
SENTENCE = (
    "Word order carries meaning: the dog that chased the cat is not the cat that chased the dog, "
    "and a model that sees only which words stand there, and never where each one stands, cannot "
    "tell the two stories apart."
)


def main() -> None:
    """Run the model over `SENTENCE` and write `TARGET`."""
    torch.set_num_threads(1)  # the order of a sum may depend on how many threads share it
    tokenizer = smollm2.load_tokenizer()
    input_ids = tokenizer(SENTENCE, return_tensors="pt").input_ids
    tokens = [tokenizer.decode([token]) for token in input_ids[0].tolist()]
    if "".join(tokens) != SENTENCE:
        raise ValueError(f"the tokens must spell the sentence, got {tokens}")
    model = smollm2.load_model()
    arrays = {
        **smollm2.rotary_step(model, input_ids, LAYER),
        "input_ids": input_ids.numpy(),
        "tokens": np.array(tokens),
        "sentence": np.array(SENTENCE),
        "layer": np.array(LAYER),
        "rope_theta": np.array(model.config.rope_parameters["rope_theta"], dtype=np.float64),
        "made_with": np.array(f"transformers {transformers.__version__}, torch {_torch_release()}"),
    }
    write_npz(TARGET, arrays)
    for name, array in arrays.items():
        print(f"{name:<10} {array.dtype.str:<5} {array.shape}")
    print(f"{TARGET.stat().st_size:,} bytes in {TARGET}")


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """
    Write arrays as `numpy.savez_compressed` does, without the time of day.

    The same arrays then make the same file, and version control shows a change only where there is
    one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _torch_release() -> str:
    """Return torch's version without the tag of its build ("+cpu")."""
    return str(torch.__version__).partition("+")[0]


if __name__ == "__main__":
    main()
