"""LoRA: only adapters are trained; the engine, exports and the reference know what they need."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from prefix_rft_rllib.learners.torch.default_prefix_rft_torch_rl_module import HF_MODEL_DIRECTORY
from prefix_rft_rllib.models.lora import is_adapter, lora_config
from prefix_rft_rllib.models.state_arrays import state_to_tensors
from tests.learners.torch.learners import build_learner, model_of, two_groups, update
from tests.learners.torch.test_rl_module import batch_of, build_module, save_model

peft = pytest.importorskip("peft")
LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}
GPT2_LORA = {"r": 2, "target_modules": ["c_attn"], "fan_in_fan_out": True}
PICTURES = ["xxxxpprrrrr", "xrrr", "xxdddd", "xxxxxxxxr"]


def shake_adapters(lm):
    """Adapters begin at a contribution of 0: make it visible."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if is_adapter(name):
                parameter += 0.3 * torch.randn_like(parameter)


def lora_module(path, settings=None, **other):
    module = build_module(path, lora=settings or LORA, **other)
    shake_adapters(module.lm)
    return module


def logits_of(model):
    with torch.no_grad():
        return model.eval()(batch_of(PICTURES)["input_ids"]).logits


@pytest.fixture
def learner(tiny_config):
    return build_learner(tiny_config.learners(lora=LORA).training(lr=1e-2, kl_coeff=0.1))


def test_only_adapters_are_trained(learner):
    before = {n: p.detach().clone() for n, p in model_of(learner).named_parameters()}
    for iteration in range(3):
        update(learner, two_groups(), iteration=iteration)
    changed = set()
    for name, parameter in model_of(learner).named_parameters():
        assert parameter.requires_grad == is_adapter(name)
        if not torch.equal(parameter, before[name]):
            changed.add(name)
    adapters = {name for name in before if is_adapter(name)}
    assert changed == adapters
    assert len(adapters) == 2 * 3 * 2  # A and B of three modules in two layers
    # The optimizer's state has these alone.
    (optimizer,) = learner._named_optimizers.values()
    assert len(optimizer.state) == len(adapters)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama_untied", LORA),
        ("llama_tied", LORA | {"use_rslora": True}),
        ("llama_tied", LORA | {"use_dora": True}),
        ("llama_untied", {"r": 2, "target_modules": ["lm_head", "embed_tokens", "o_proj"]}),
        ("gpt2_with_dropout", GPT2_LORA),
    ],
)
def test_weights_for_sampling_are_those_of_the_merged_model(tmp_path, name, settings):
    module = lora_module(save_model(name, tmp_path), settings)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    original = logits_of(plain)
    base = {n: p.detach().clone() for n, p in module.lm.named_parameters()}
    state = module.get_state(inference_only=True)
    assert state.keys() == plain.state_dict().keys()
    plain.load_state_dict(state_to_tensors(state))
    torch.testing.assert_close(logits_of(plain), logits_of(module.lm), rtol=0, atol=1e-4)
    assert (logits_of(plain) - original).abs().max() > 0.1  # negative control
    for n, p in module.lm.named_parameters():
        assert torch.equal(p, base[n])  # nothing stays merged


@pytest.mark.parametrize("name", ["llama_tied", "llama_untied"])
def test_log_probabilities_are_those_of_the_merged_model(tmp_path, name):
    module = lora_module(save_model(name, tmp_path / "a"), use_reference=True)
    merged = build_module(save_model(name, tmp_path / "b", seed=1))
    merged.set_state(module.get_state(inference_only=True))
    batch = batch_of(PICTURES)
    actual, expected = module.token_logps(batch), merged.token_logps(batch)
    for value, reference in zip(actual, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=0, atol=1e-4)


def test_the_reference_is_the_model_without_adapters(tmp_path):
    path = save_model("llama_tied", tmp_path)
    module = lora_module(path, use_reference=True)
    plain, batch = build_module(path), batch_of(PICTURES)
    before = module.token_logps(batch)[0]
    assert torch.equal(module.token_logps(batch, reference=True)[0], plain.token_logps(batch)[0])
    assert (before - plain.token_logps(batch)[0]).abs().max() > 0.1
    # Adapters are on and trainable again afterwards, and there is no second copy.
    assert torch.equal(module.token_logps(batch)[0], before)
    assert all(p.requires_grad == is_adapter(n) for n, p in module.lm.named_parameters())
    num_base = sum(p.numel() for p in plain.parameters())
    num_adapter = sum(v.size for v in module.get_state().values())
    assert sum(p.numel() for p in module.parameters()) == num_base + num_adapter


def test_a_checkpoint_has_the_adapter_in_both_forms(tmp_path):
    path = save_model("llama_tied", tmp_path / "model")
    module = lora_module(path)
    saved = module.save_to_path(str(tmp_path / "checkpoint"))
    assert all(is_adapter(name) for name in module.get_state())
    other = build_module(path, lora=LORA)
    other.restore_from_path(saved)
    assert torch.equal(logits_of(other.lm), logits_of(module.lm))
    base = AutoModelForCausalLM.from_pretrained(path)
    adapter = tmp_path / "checkpoint" / HF_MODEL_DIRECTORY
    loaded = peft.PeftModel.from_pretrained(base, adapter)
    # The names that peft itself would write; others than peft read them too.
    names = load_file(adapter / "adapter_model.safetensors").keys()
    assert names == peft.get_peft_model_state_dict(loaded).keys()
    torch.testing.assert_close(logits_of(loaded), logits_of(module.lm), rtol=0, atol=1e-5)


def test_a_state_of_other_adapters_is_refused(tmp_path):
    path = save_model("llama_tied", tmp_path)
    state = lora_module(path).get_state()
    other = build_module(path, lora={"r": 4, "target_modules": ["q_proj"]})
    with pytest.raises(RuntimeError, match="lora"):
        other.set_state(state)


def test_recomputed_activations_give_the_same_gradients(tmp_path):
    path = save_model("llama_tied", tmp_path)
    gradients = []
    for recomputes in (False, True):
        module = lora_module(path, activation_checkpointing=recomputes).train()
        logp = module.forward_train(batch_of(PICTURES))["action_logp"]
        logp.sum().backward()
        gradients.append({n: p.grad for n, p in module.lm.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradients[1][name], gradient)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 8}, "unknown setting 'rank'"),
        ({"r": 0}, r"lora\['r'\]` must be a whole number"),
        ({"r": True}, r"lora\['r'\]` must be a whole number"),
        ({"lora_dropout": 0.1}, "no effect"),
        ({"modules_to_save": ["lm_head"]}, "no adapters"),
        ({"bias": "all"}, "no adapters"),
        ({"init_lora_weights": "pissa"}, "changes the base model"),
        ({"inference_mode": True}, "train nothing"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(tiny_config, settings, message):
    with pytest.raises(ValueError, match=message):
        lora_config(settings)
    with pytest.raises(ValueError, match=message):
        tiny_config.learners(lora=settings).validate()


def test_refused_settings_may_be_given_at_their_defaults():
    assert lora_config({"bias": "none", "lora_dropout": 0.0, "modules_to_save": None}).r == 8


def test_adapters_that_do_not_fit_the_model_are_refused(tmp_path):
    path = save_model("llama_tied", tmp_path)
    with pytest.raises(ValueError, match="no_such_module"):
        build_module(path, lora={"target_modules": ["no_such_module"]})
    for name in ("embed_tokens", "lm_head"):
        with pytest.raises(ValueError, match="input and output share"):
            build_module(path, lora={"target_modules": [name]})


def test_the_adapters_first_weights_are_a_function_of_the_seed(tmp_path):
    path = save_model("llama_tied", tmp_path)
    first, again, other = (build_module(path, lora=LORA, seed=s).get_state() for s in (1, 1, 2))
    names = [name for name in first if "lora_A" in name]
    assert all((first[name] == again[name]).all() for name in names)
    assert not any((first[name] == other[name]).all() for name in names)
