"""posenc.torch.patch: every rotary module of the installed transformers, small whole models, and the way back."""

from __future__ import annotations

import collections
import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

import posenc.torch as pt
import transformers_zoo as zoo
from posenc.torch import _patch_functions

#: Classes, or their configs, that are left as they are, and a word of the reason.
LEFT = {
    "ClvpRotaryPositionalEmbedding": "hidden_states",  # tables as one tensor of angles, made from activations
    "DINOv3ViTRopePositionEmbedding": "pixel_values",
    "EdgeTamVideoVisionRotaryEmbedding": "probe",  # tables as parameters of a fixed grid
    "EfficientLoFTRRotaryEmbedding": "takes (x)",
    "EomtDinov3RotaryEmbedding": "pixel_values",
    "EsmFold2RotaryEmbedding": "ref_pos",
    "Qwen3OmniMoeCode2WavConfig": "model_type is missing",  # a part's config without a name of its own
    "SaProtConfig": "model_type is missing",
    "Gemma4VisionRotaryEmbedding": "another kind",  # posenc.axes.BlockRope
    "HunYuanVLRotaryEmbedding": "another kind",  # posenc.axes.UnequalRope
    "Llama4VisionRotaryEmbedding": "hidden_states",
    "Molmo2RotaryEmbedding": "layers turn differently",
    "MusicFlamingoRotaryEmbedding": "timestamps",
    "Sam2VideoVisionRotaryEmbedding": "probe",
    "Sam3ViTRotaryEmbedding": "probe",
    "Sam3TrackerVideoVisionRotaryEmbedding": "probe",
    "Sapiens2RopePositionEmbedding": "pixel_values",
    "SeamlessM4TConformerRotaryPositionalEmbedding": "hidden_states",
    "Wav2Vec2BertRotaryPositionalEmbedding": "hidden_states",
    "Wav2Vec2ConformerRotaryPositionalEmbedding": "hidden_states",
}


def reason_of(case: zoo.Case) -> str:
    return LEFT.get(case.rotary) or LEFT.get(case.config, "none")


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_rotary_modules(step: int) -> None:
    """All that take position ids are replaced, their tables and functions found to agree; for the others a reason."""
    replaced = 0
    cases = zoo.cases()[::step]
    for case in cases:
        module = copy.deepcopy(zoo.built(case)[1])
        with pt.patch(torch.nn.ModuleDict({"it": module})) as report:
            assert reason_of(case) in report.left.get("it", "none"), str(case)
            for each in report.replaced:
                assert each.functions, f"{case}: no function turns heads by its tables"
                replaced += 1
        assert "forward" not in vars(module)
    assert replaced == sum(reason_of(case) == "none" for case in cases) > 0.9 * len(cases)
    assert _patch_functions._installed == {}


SMALL = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt_neox": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    "glm": {"head_dim": 8},
    "cohere": {},
    "gemma3_text": {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8},
    "nanochat": {},
    "deepseek_v3": {
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "kv_lora_rank": 8,
        "q_lora_rank": 8,
        "num_key_value_heads": 4,
        "first_k_dense_replace": 2,
    },
}


COMPILED = [kind for kind in MODELS if kind != "llama"]


def small(kind: str, **more: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **MODELS[kind], **more})
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def answer(model: Any, ids: Tensor, positions: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the logits and the gradients of all parameters."""
    output = model(ids, labels=ids, position_ids=positions, use_cache=False)
    found = torch.autograd.grad(output.loss, list(model.parameters()), allow_unused=True)
    return output.logits.detach(), [torch.zeros(()) if g is None else g for g in found]


class Counter:
    """How many heads posenc turned."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        turn = _patch_functions._turn

        def counted(*args: Any) -> Tensor:
            self.calls += 1
            return turn(*args)

        monkeypatch.setattr(_patch_functions, "_turn", counted)


@pytest.mark.parametrize("kind", MODELS)
def test_small_models(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same logits and gradients within float32 noise, for rows with positions of their own; and undone."""
    model, counter = small(kind), Counter(monkeypatch)
    ids = torch.randint(3, 64, (2, 10), generator=torch.Generator().manual_seed(0))
    positions = torch.stack([torch.arange(10), torch.arange(10) + 50])
    logits, grads = answer(model, ids, positions)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert counter.calls == 0
    with pt.patch(model) as report:
        assert not report.left
        new_logits, new_grads = answer(model, ids, positions)
        assert counter.calls == 4  # two layers, q and k
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, state[name])
    torch.testing.assert_close(new_logits, logits, rtol=1e-4, atol=1e-5)
    for new, old in zip(new_grads, grads, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-3, atol=1e-6)
    again, _ = answer(model, ids, positions)
    assert counter.calls == 4
    assert torch.equal(again, logits)


def test_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cache, token by token, also for rows that are padded on the left."""
    model, counter = small("llama"), Counter(monkeypatch)
    ids = torch.randint(3, 64, (2, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])

    def generate() -> Tensor:
        return model.generate(ids, attention_mask=mask, max_new_tokens=8, min_new_tokens=8, do_sample=False)

    wanted = generate()
    with pt.patch(model):
        assert torch.equal(generate(), wanted)
    assert counter.calls == 8 * 4


def test_bfloat16_models_gain_exact_tables() -> None:
    """transformers rounds cosines to bfloat16; posenc turns by float32 ones and rounds once."""
    model = small("llama").to(torch.bfloat16)
    ids = torch.randint(3, 64, (1, 10), generator=torch.Generator().manual_seed(0))
    exact = small("llama").double()
    for parameter, rounded in zip(exact.parameters(), model.parameters(), strict=True):
        parameter.data.copy_(rounded.data)
    with torch.no_grad():
        with pt.patch(exact):
            wanted = exact(ids).logits
        with pt.patch(model):
            error = (model(ids).logits.double() - wanted).abs().mean()
    assert float(error) < 0.02 * float(wanted.abs().mean())


@pytest.mark.broad
def test_two_patches_of_one_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function stays replaced until the last is removed; a model that is not patched is not touched."""
    counter, models = Counter(monkeypatch), [small("llama") for _ in range(3)]
    ids, positions = torch.arange(3, 9)[None], torch.arange(6)[None]
    first, second = pt.patch(models[0]), pt.patch(models[1])
    for model, calls in ((models[2], 0), (models[0], 4), (models[1], 8)):
        answer(model, ids, positions)
        assert counter.calls == calls
    first.remove()
    first.remove()
    answer(models[0], ids, positions)
    assert counter.calls == 8
    answer(models[1], ids, positions)
    assert counter.calls == 12
    second.remove()
    assert _patch_functions._installed == {}


def test_wrong_arguments_are_the_models_own() -> None:
    model = small("llama")
    with pt.patch(model):
        from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as rotate

        q = torch.randn(1, 2, 6, 8)
        cos, sin = model.model.rotary_emb(q, torch.arange(6)[None])
        for args, more in (((q, q, cos, sin, 1, 2), {}), ((q, q, cos, sin), {"q": q}), ((q, q, cos, sin), {"at": 3})):
            with pytest.raises(TypeError, match="argument"):
                rotate(*args, **more)
        assert torch.equal(rotate(q, q, cos=cos, sin=sin)[0], rotate(q, q, cos, sin)[1])


def test_patched_twice() -> None:
    model = small("llama")
    with pt.patch(model):
        with pt.patch(model) as report:
            assert report.left == {"model.rotary_emb": "its forward has been replaced already"}
            assert "left as it is, its forward" in str(report)
        assert "forward" in vars(model.model.rotary_emb)


def test_a_model_that_is_not_what_its_config_says() -> None:
    """A probe finds it: the module's frequencies were changed, so posenc leaves it alone."""
    model = small("llama")
    model.model.rotary_emb.inv_freq *= 1.01
    with pt.patch(model) as report:
        assert report.replaced == []
        assert report.left == {"model.rotary_emb": "its tables are not those that its config says"}


def test_exact_tables() -> None:
    model = small("llama")
    with pt.patch(model, precision="exact") as report:
        (replaced,) = report.replaced
        assert replaced.ropes["all"].precision == "exact"
        far = torch.tensor([[1_000_000]])
        cos, _ = model.model.rotary_emb(torch.zeros(1), far)
        assert torch.equal(cos[..., :4], replaced.ropes["all"].table(far)[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["llama", *(pytest.param(kind, marks=pytest.mark.broad) for kind in COMPILED)])
def test_compiled_models(kind: str) -> None:
    """Without graph breaks, through posenc's operators: the numbers of the patched model that is not compiled."""
    model = small(kind)
    ids = torch.randint(3, 64, (2, 10), generator=torch.Generator().manual_seed(0))
    positions = torch.stack([torch.arange(10), torch.arange(10) + 50])
    own = answer(model, ids, positions)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        through = "aot_eager" if kind == "llama" else "eager"
        return torch._dynamo.lookup_backend(through)(graph, inputs)

    with pt.patch(model) as report:
        wanted = answer(model, ids, positions)
        found = answer(Compiled(model, backend), ids, positions)
    tables = len(report.replaced[0].ropes)  # one for each kind of layer
    with torch.no_grad():
        again = Compiled(model, backend)(ids, position_ids=positions, use_cache=False)  # undone
    assert [calls_of(graph) for graph in graphs] == [(tables, 4), (0, 0)]  # q and k in two layers
    torch.testing.assert_close(again.logits, own[0])
    for mine, its in zip((found[0], *found[1]), (wanted[0], *wanted[1]), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-6)


class Compiled:
    """A model whose forward is compiled without graph breaks."""

    def __init__(self, model: Any, backend: Any) -> None:
        torch._dynamo.reset()
        self.model, self.call = model, torch.compile(model, fullgraph=True, backend=backend)
        self.parameters = model.parameters

    def __call__(self, ids: Tensor, **options: Any) -> Any:
        return self.call(ids, **options)


def calls_of(graph: torch.fx.GraphModule) -> tuple[int, int]:
    """Return how often a graph makes tables and turns heads by posenc."""
    names = [str(node.target) for node in graph.graph.nodes]
    return sum("posenc.rotary_table" in name for name in names), sum("posenc.apply_rotary" in name for name in names)


@pytest.mark.broad
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:The .grad attribute:UserWarning")
def test_compiled_models_of_a_length() -> None:
    """Frequencies that depend on the length are the model's own there; graphs break where they do in the model."""
    more = {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, "max_position_embeddings": 8}
    model, ids = small("llama", **more), torch.arange(3, 19)[None]
    wanted = model(ids, use_cache=False).logits
    with pt.patch(model) as report:
        assert report.replaced
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="eager")
        torch.testing.assert_close(compiled(ids, use_cache=False).logits, wanted, rtol=1e-4, atol=1e-4)


def test_without_rotary_modules() -> None:
    model = AutoModel.from_config(AutoConfig.for_model("gpt2", n_embd=8, n_layer=1, n_head=2, vocab_size=8))
    assert str(pt.patch(model)) == "no rotary module found"
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        pt.patch(ids := [1])  # type: ignore[arg-type]
    assert ids == [1]
    with pytest.raises(ValueError, match="precision"):
        pt.patch(model, precision="double")


def test_kinds_of_forms() -> None:
    """Every form is needed by some family, so none is there in vain."""
    forms: collections.Counter[str] = collections.Counter()
    wanted = _patch_functions.form_of

    def counted(*args: Any) -> str | None:
        form = wanted(*args)
        forms[str(form)] += 1
        return form

    _patch_functions.form_of = counted
    try:
        for folder in ("llama", "cohere", "nanochat", "gpt_oss", "llama4"):
            case = next(case for case in zoo.cases() if case.folder == folder and "Vision" not in case.rotary)
            pt.patch(torch.nn.ModuleDict({"it": copy.deepcopy(zoo.built(case)[1])})).remove()
    finally:
        _patch_functions.form_of = wanted
    assert set(forms) == {*_patch_functions.FORMS, _patch_functions.COMPLEX}
