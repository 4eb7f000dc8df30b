import dataclasses
import pickle

import pytest
import torch
from transformers import Qwen2Config

from prefix_rft_rllib import methods
from prefix_rft_rllib.core.advantages import GroupMean
from prefix_rft_rllib.core.demonstration_rows import EveryStep, NoRows
from prefix_rft_rllib.core.logprobs import logp_and_entropy
from prefix_rft_rllib.core.losses import policy_loss
from prefix_rft_rllib.core.prefix_sampling import GroupSpec, Never, PerGroup, WholeGroup, plan_group
from prefix_rft_rllib.core.prefix_schedules import CosineLow
from prefix_rft_rllib.core.surrogates import PPOClip
from prefix_rft_rllib.core.token_selection import All, TopEntropy
from prefix_rft_rllib.core.token_weights import prepare_weights
from prefix_rft_rllib.core.tokens import next_token_targets, shift_to_targets
from prefix_rft_rllib.methods import build
from tests.random_models import SIZES, random_lm
from tests.token_batches import make_columns


def test_prefix_rft_has_the_papers_defaults():
    method = methods.prefix_rft()
    assert method.prefix_sampler == PerGroup(1, CosineLow(0.95, 0.05, 0.95, 500))
    assert method.advantage == GroupMean()
    response, prefix = method.rules
    assert (response.region, response.stream, response.keep) == ("response", "policy", All())
    assert (prefix.region, prefix.stream, prefix.keep) == ("prefix", "policy", TopEntropy(0.2))
    assert method.demonstration_rows == NoRows()
    assert (method.num_sampled, method.surrogate, method.after_step, method.stages) == (
        None,
        PPOClip(),
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
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen2Config(**SIZES | heads, vocab_size=23, max_position_embeddings=32)
    model = random_lm(config).to(dtype)
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
        (methods.sft_rft(), 1, "at least 2"),
        # One member is the demonstration: nobody is left to compare it with.
        (methods.luffy(), 1, r"`group_size` \(1\) must be at least 2"),
        (methods.relift(), 1, "at least 2"),
        (methods.uft(), 1, "at least 2"),
    ],
)
def test_groups_that_do_not_fit_the_method_are_refused(method, group_size, message):
    with pytest.raises(ValueError, match=message):
        method.check(group_size)


def test_methods_that_fit_small_groups_are_accepted():
    methods.luffy().check(2)
    methods.rft().check(2)
    methods.prefix_rft(num_prefix_rollouts=8).check(8)
    # Nothing is compared.
    methods.sft().check(1)


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_methods_pickle_compare_and_fit_groups_of_eight(name):
    method = build(name)
    method.check(8)
    assert method.name == name
    again = pickle.loads(pickle.dumps(method))
    assert again == method
    assert hash(again) == hash(method) == hash(build(name))
    assert again.objectives() == method.objectives()
    assert str(again) == str(method)


def test_methods_with_other_names_or_settings_differ():
    assert len({build(name) for name in methods.METHODS}) == 22
    for name, settings in (
        ("prefix_rft", {"high": 0.96}),
        ("prefix_rft_adaptive", {"gain": 0.4}),
        ("sft", {"num_rows_per_problem": 2}),
        ("sft_rft", {"sft_warmup_fraction": 0.2}),
        ("uft", {"max_chunks": 4}),
        ("luffy", {"clip": True}),
        ("relift", {"imitation_lr": 2e-6}),
        ("chord", {"phi": False}),
    ):
        assert build(name, settings) != build(name)
        assert build(name, settings).name == name


def test_names_keep_their_order_for_tables():
    assert list(methods.METHODS)[:3] == ["prefix_rft", "prefix_rft_adaptive", "rft"]
    assert len(methods.METHODS) == 22


def test_the_papers_rows_are_methods():
    built = {row: build(name, settings) for row, (name, settings) in methods.PAPER_ROWS.items()}
    assert len(set(built.values())) == len(built) == 10
    assert built["entropy top 80%"].rules[1].keep == TopEntropy(0.8)
    assert built["several prefixes per problem"].prefix_sampler.num_prefix_rollouts == 4


def test_demonstrations_that_are_members_take_the_place_of_rollouts():
    luffy = methods.luffy()
    assert luffy.num_rollouts(8) == 7
    assert luffy.num_rollouts(8, num_demonstrations=3) == 7
    # A problem without demonstrations is sampled with the whole group.
    assert luffy.num_rollouts(8, num_demonstrations=0) == 8
    for name in ("rft", "prefix_rft", "chord", "rl_with_sft_loss", "relift", "uft"):
        assert build(name).num_rollouts(8, num_demonstrations=1) == 8
    assert methods.sft().num_rollouts(8, num_demonstrations=1) == 0


def test_a_method_prints_as_a_table_of_its_pieces():
    assert str(methods.rft()).splitlines() == [
        "rft",
        "  rollouts per group  group_size",
        "  prefix sampler      Never()",
        "  advantage           GroupMean()",
        "  response tokens     policy: TrajectoryAdvantage()",
        "                      keep All(), scale ConstantLength()",
        "  demonstration rows  NoRows()",
        "  surrogate           PPOClip with the config's bounds",
    ]


def test_luffy_prints_its_member_and_its_shape():
    assert str(methods.luffy()).splitlines() == [
        "luffy",
        "  rollouts per group    group_size - 1",
        "  prefix sampler        Never()",
        "  advantage             GroupMean()",
        "  response tokens       policy: TrajectoryAdvantage()",
        "                        keep All(), scale ConstantLength()",
        "  demonstration tokens  imitation: PolicyShaped(gamma=0.1)",
        "                        keep All(), scale ConstantLength()",
        "  demonstration rows    OneRowPerGroup()",
        "  surrogate             NoClip()",
    ]


def test_relift_prints_its_separate_step():
    line = "  after each step     ImitationStep(buffer_size=128, lr=1e-06)"
    assert line in str(methods.relift()).splitlines()


def test_a_method_of_stages_prints_each_of_them():
    text = str(methods.sft_rft(num_sft_iterations=50))
    assert text.startswith(
        "sft_rft\n"
        "  stage 1  sft, 50 iterations, lr 5e-05 after a warm-up of 5 iterations\n"
        "  stage 2  rft, to the end, the config's lr\n"
        "\n"
        "sft\n"
    )
    assert text.split("\n\n")[1:] == [str(methods.sft()), str(methods.rft())]
