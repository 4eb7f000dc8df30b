import dataclasses
import inspect
import pickle
import re
from pathlib import Path

import pytest
import torch

from prefix_rft_rllib import methods
from prefix_rft_rllib.core.advantages import GroupMean, TwoLevel
from prefix_rft_rllib.core.demonstration_rows import EveryStep, NoRows
from prefix_rft_rllib.core.logprobs import logp_and_entropy
from prefix_rft_rllib.core.losses import policy_loss
from prefix_rft_rllib.core.prefix_sampling import GroupSpec, Never, PerGroup, WholeGroup, plan_group
from prefix_rft_rllib.core.prefix_schedules import CosineLow
from prefix_rft_rllib.core.token_selection import All, TopEntropy
from prefix_rft_rllib.core.token_weights import prepare_weights
from prefix_rft_rllib.core.tokens import next_token_targets, shift_to_targets
from prefix_rft_rllib.methods import Method, build, by_name
from tests.token_batches import make_columns

DOCS = Path(__file__).parents[1] / "docs" / "methods.md"


def test_prefix_rft_has_the_papers_defaults():
    method = methods.prefix_rft()
    assert method.prefix_sampler == PerGroup(1, CosineLow(0.95, 0.05, 0.95, 500))
    assert method.advantage == GroupMean()
    response, prefix = method.rules
    assert (response.region, response.stream, response.keep) == ("response", "policy", All())
    assert (prefix.region, prefix.stream, prefix.keep) == ("prefix", "policy", TopEntropy(0.2))
    assert method.demonstration_rows == NoRows()
    assert (method.num_sampled, method.clip, method.after_step, method.stages) == (
        None,
        True,
        None,
        (),
    )


def test_rft_is_prefix_rft_without_the_prefix():
    rft, prefix_rft = methods.rft(), methods.prefix_rft()
    assert rft.prefix_sampler == Never()
    assert rft.rules == prefix_rft.rules[:1]
    assert (
        dataclasses.replace(
            prefix_rft, name="rft", prefix_sampler=Never(), rules=prefix_rft.rules[:1]
        )
        == rft
    )


def test_with_every_prefix_fraction_at_zero_the_plans_are_those_of_rft():
    settings = {"low_start": 0.0, "low_end": 0.0, "high": 0.0}
    for iteration in (0, 3, 800):
        group = GroupSpec(
            seed=1,
            iteration=iteration,
            group_id=2,
            problem_id="p",
            num_rollouts=8,
            demonstration_lengths=(30, 40),
            answer_cut=lambda index: None,
            max_response_tokens=64,
        )
        prefix_rft = plan_group(build("prefix_rft", settings).prefix_sampler, group)
        assert prefix_rft == plan_group(build("rft").prefix_sampler, group)


def test_sft_samples_nothing_and_does_not_read_the_old_policy():
    method = methods.sft()
    assert method.num_rollouts(8) == 0
    assert method.demonstration_rows == EveryStep(1)
    assert {rule.stream for rule in method.rules} == {"imitation"}
    assert methods.rft().num_rollouts(8) == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sft_has_the_gradients_of_transformers_own_causal_lm_loss(dtype):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=23,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
    )
    model = transformers.Qwen2ForCausalLM(config).to(dtype)
    columns = make_columns(["xxdddddd", "xdd", "xxxxd", "xddddd"], [0.0] * 4)
    input_ids = torch.randint(0, 23, columns.input_ids.shape)
    attention = (~columns.is_padding).long()
    labels = torch.where(columns.is_demonstration, input_ids, -100)
    model(input_ids, attention_mask=attention, labels=labels).loss.backward()
    theirs = {name: p.grad.clone() for name, p in model.named_parameters()}

    model.zero_grad()
    method = build("sft")
    prepared = prepare_weights(method.rules, columns, max_response_tokens=8)
    # In micro-batches of different sizes: their sum is the mean over all tokens.
    for rows in (torch.tensor([0, 3]), torch.tensor([2]), torch.tensor([1])):
        logits = model(input_ids[rows], attention_mask=attention[rows]).logits
        logp, _ = logp_and_entropy(logits[:, :-1], next_token_targets(input_ids[rows]), chunk=3)
        logp = shift_to_targets(logp)
        policy_loss(prepared.rows(rows).weights(logp), logp, logp.detach()).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name], rtol=0, atol=1e-6)


def test_names_and_settings_make_the_method():
    assert by_name("prefix_rft") == build("prefix_rft") == methods.prefix_rft()
    made = build("prefix_rft", {"entropy_keep_fraction": 0.5, "advantage": "two_level"})
    assert made.rules[1].keep == TopEntropy(0.5)
    assert made.advantage == TwoLevel()
    assert build(made) is made


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown method 'ppo'.*'prefix_rft', 'rft', 'sft'"):
        build("ppo")


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_an_unknown_key_lists_the_known_ones(name):
    with pytest.raises(ValueError, match="Unknown key 'name'"):
        build(name, {"name": "x"})
    with pytest.raises(ValueError, match="Unknown key 'keep'") as error:
        build(name, {"keep": 0.2})
    for key in inspect.signature(methods.METHODS[name]).parameters:
        assert repr(key) in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"entropy_keep_fraction": 20}, r"`entropy_keep_fraction` must be .* got 20\..* 0\.2 for"),
        ({"entropy_keep_fraction": "0.2"}, "`entropy_keep_fraction` must be a number"),
        ({"num_prefix_rollouts": 0}, "`num_prefix_rollouts` must be an integer of at least 1"),
        ({"low_start": 0.99}, r"`low_start` \(0.99\) must not be above `high` \(0.95\)"),
        ({"high": 95}, r"`high` must be in \[0, 1\], got 95"),
        ({"num_schedule_iterations": 0}, "`num_schedule_iterations` must be an integer"),
        ({"advantage": "gae"}, r"`advantage` must be one of 'group_mean', 'two_level', got 'gae'"),
    ],
)
def test_values_out_of_range_name_the_setting_of_the_config(settings, message):
    with pytest.raises(ValueError, match=message):
        build("prefix_rft", settings)


def test_settings_for_a_ready_method_are_refused():
    with pytest.raises(ValueError, match=r"'entropy_keep_fraction'.* no effect"):
        build(methods.rft(), {"entropy_keep_fraction": 0.2})
    with pytest.raises(ValueError, match="`method` must be a name"):
        build(methods.rft)


@pytest.mark.parametrize(
    ("method", "group_size", "message"),
    [
        (methods.rft(), 1, r"`group_size` \(1\) must be at least 2"),
        (dataclasses.replace(methods.rft(), num_sampled=9), 8, "must be at least 9"),
        (methods.prefix_rft(num_prefix_rollouts=9), 8, "`num_prefix_rollouts`"),
        (methods.prefix_rft(num_prefix_rollouts=8, advantage="two_level"), 8, "plain rollouts"),
        (
            dataclasses.replace(
                methods.prefix_rft(advantage="two_level"), prefix_sampler=WholeGroup()
            ),
            8,
            "plain rollouts",
        ),
        (Method(name="both", stages=(methods.sft(), methods.rft())), 1, "at least 2"),
    ],
)
def test_groups_that_do_not_fit_the_method_are_refused(method, group_size, message):
    with pytest.raises(ValueError, match=message):
        method.check(group_size)


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_methods_pickle_compare_and_fit_groups_of_eight(name):
    method = build(name)
    method.check(8)
    assert method.name == name
    assert pickle.loads(pickle.dumps(method)) == method
    assert hash(method) == hash(build(name))


def test_a_method_prints_as_a_table_of_its_pieces():
    assert str(methods.rft()).splitlines() == [
        "rft",
        "  rollouts per group  group_size",
        "  prefix sampler      Never()",
        "  advantage           GroupMean()",
        "  response tokens     policy: TrajectoryAdvantage()",
        "                      keep All(), scale ConstantLength()",
        "  demonstration rows  NoRows()",
        "  PPO clip            on",
    ]


def test_a_method_of_stages_prints_each_of_them():
    text = str(Method(name="sft_then_rft", stages=(methods.sft(), methods.rft())))
    assert text.startswith("sft_then_rft\n  stage 1  sft\n  stage 2  rft\n\nsft\n")
    assert str(methods.rft()) in text


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_the_documentation_shows_each_method_and_all_its_settings(name):
    text = DOCS.read_text(encoding="utf-8")
    assert f"```text\n{build(name)}\n```" in text
    section = re.search(rf"^## `{name}`$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    for key, parameter in inspect.signature(methods.METHODS[name]).parameters.items():
        assert f"| `{key}` | `{parameter.default!r}` |" in section.group(1)
