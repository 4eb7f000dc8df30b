"""Metrics of rollouts worked out by hand, and records of logged rows."""

import pytest

from prefix_rft_rllib import metrics
from prefix_rft_rllib.core.prefix_sampling import PlannedRollout
from prefix_rft_rllib.core.prefix_schedules import UniformWindow
from prefix_rft_rllib.envs.problems import Problem
from prefix_rft_rllib.iterations.groups import Group
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.row_data import build_episode
from prefix_rft_rllib.runs.rollout_report import imitation_metrics, rollout_metrics, rollout_records

END = 9


def problem(name: str) -> Problem:
    return Problem(
        problem_id=name,
        domain="math",
        prompt=name,
        prompt_ids=(7, 8),
        answer="1",
        demonstration_ids=((1, 2, 3, 4, 5, END),),
        split="train",
        source="made:1",
    )


def group_of(group_id: int, members: list[dict]) -> Group:
    """A group with finished episodes; a member says what it was given, got and cost."""
    rollouts, episodes = [], []
    for member, values in enumerate(members):
        given = values.get("given", 0)
        rollout = PlannedRollout(
            problem_id=f"p{group_id}",
            group_id=group_id,
            member=member,
            seed=0,
            num_prefix_tokens=given,
            prefix_fraction=values.get("fraction", 0.0),
            drawn_prefix_tokens=values.get("drawn", given),
            was_cut=values.get("drawn", given) > given,
            window_low=0.3 if "fraction" in values else None,
            window_high=0.9 if "fraction" in values else None,
        )
        ended = values.get("ended", True)
        sampled = [4] * (values["sampled"] - ended) + [END] * ended
        episode = build_episode(
            (7, 8),
            [1] * given + sampled,
            reward=values["reward"],
            terminated=ended,
            logps=[float("nan")] * given + [-0.5] * len(sampled),
            custom_data={
                row_data.ROLLOUT: rollout,
                row_data.IS_DEMONSTRATION: False,
                row_data.VERDICT: values["verdict"],
                row_data.VERDICT_DETAILS: values.get("details", {}),
                row_data.FINISH_REASON: "stop" if ended else "length",
                row_data.WEIGHTS_SEQ_NO: 3,
                row_data.WEIGHT_STALENESS: values.get("staleness", 0),
            },
        )
        rollouts.append(rollout)
        episodes.append(episode)
    return Group(group_id, problem(f"p{group_id}"), rollouts, [], episodes=episodes)


HYBRID = {"given": 3, "drawn": 5, "fraction": 0.9, "sampled": 2, "reward": 1.0}
GROUPS = [
    group_of(
        0,
        [
            {**HYBRID, "verdict": "CORRECT"},
            {"sampled": 4, "reward": 0.0, "verdict": "WRONG"},
            {
                "sampled": 6,
                "reward": 0.0,
                "verdict": "UNPARSEABLE",
                "ended": False,
                "staleness": 1,
            },
        ],
    ),
    group_of(
        1,
        [
            {
                **HYBRID,
                "given": 1,
                "drawn": 1,
                "fraction": 0.4,
                "reward": 0.25,
                "verdict": "SCORED",
            },
            {"sampled": 1, "reward": 0.25, "verdict": "SCORED"},
            {"sampled": 3, "reward": 0.25, "verdict": "SCORED"},
        ],
    ),
]


def test_metrics_by_hand():
    values = rollout_metrics(GROUPS, UniformWindow(0.3, 0.9))
    # Response lengths: 3 + 2, 4, 6 and 1 + 2, 1, 3: 22 tokens, of which 3 + 1 were given.
    expected = {
        metrics.NUM_GROUPS: 2,
        metrics.NUM_GROUPS_WITH_SIGNAL: 1,  # the second group's rewards are all 0.25
        metrics.NUM_ROLLOUTS: 6,
        metrics.NUM_PREFIX_ROLLOUTS: 2,
        metrics.NUM_PREFIXES_CUT: 1,  # 5 drawn, 3 given
        metrics.NUM_SAMPLED_TOKENS: 18,
        metrics.REWARD_MEAN: (1 + 0 + 0 + 3 * 0.25) / 6,
        metrics.REWARD_PREFIX_MEAN: (1 + 0.25) / 2,
        metrics.REWARD_PLAIN_MEAN: (0 + 0 + 0.25 + 0.25) / 4,
        metrics.PREFIX_FRACTION_MEAN: (0.9 + 0.4) / 2,
        metrics.PREFIX_TOKENS_DRAWN_MEAN: (5 + 1) / 2,
        metrics.PREFIX_TOKENS_MEAN: (3 + 1) / 2,
        metrics.RESPONSE_LENGTH_MEAN: 22 / 6,
        metrics.TRUNCATED_FRACTION: 1 / 6,
        metrics.WEIGHT_STALENESS_MEAN: 1 / 6,
        metrics.PREFIX_TOKEN_FRACTION: 4 / 22,
        metrics.PREFIX_WINDOW_LOW: 0.3,
        metrics.PREFIX_WINDOW_HIGH: 0.9,
        "verdicts/CORRECT": 1,
        "verdicts/WRONG": 1,
        "verdicts/UNPARSEABLE": 1,
        "verdicts/TIMEOUT": 0,
        "verdicts/ERROR": 0,
        "verdicts/SCORED": 3,
    }
    assert values == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (["none", "namespaces", "none", None], 2),
        (["namespaces", None], 0),
        ([None, None], None),  # nothing says how it ran: no such metric
    ],
)
def test_rollouts_without_isolation_are_counted_where_isolation_is_told(levels, expected):
    members = [
        {
            "sampled": 2,
            "reward": 0.0,
            "verdict": "WRONG",
            "details": {"reason": "r"} | ({} if level is None else {"isolation": level}),
        }
        for level in levels
    ]
    # In two groups: all of them count.
    groups = [group_of(0, members[:1]), group_of(1, members[1:])]
    values = rollout_metrics(groups, window=None)
    assert values.get(metrics.NUM_WITHOUT_ISOLATION) == expected


def test_means_over_nothing_are_left_out():
    plain = group_of(0, [{"sampled": 2, "reward": 0.0, "verdict": "WRONG"}] * 2)
    values = rollout_metrics([plain], window=None)
    for name in (
        metrics.REWARD_PREFIX_MEAN,
        metrics.REWARD_DEMONSTRATION_MEAN,
        metrics.PREFIX_TOKENS_MEAN,
        metrics.PREFIX_WINDOW_LOW,
        metrics.PREFIX_WINDOW_HIGH,
    ):
        assert name not in values
    assert values[metrics.REWARD_PLAIN_MEAN] == 0.0
    assert values[metrics.PREFIX_TOKEN_FRACTION] == 0.0


def test_a_method_without_rollouts_reports_counts_only():
    values = rollout_metrics([Group(0, problem("p"), [], [0])], window=None)
    assert values[metrics.NUM_GROUPS] == 1
    assert values[metrics.NUM_ROLLOUTS] == values[metrics.NUM_GROUPS_WITH_SIGNAL] == 0
    assert metrics.REWARD_MEAN not in values


def test_a_hybrid_rollout_whose_prefix_was_cut_to_nothing_counts_as_plain():
    cut = {**HYBRID, "given": 0, "drawn": 5, "verdict": "CORRECT"}
    values = rollout_metrics([group_of(0, [cut])], UniformWindow(0.3, 0.9))
    assert values[metrics.NUM_PREFIX_ROLLOUTS] == 0
    assert values[metrics.REWARD_PLAIN_MEAN] == 1.0


def rows_of(group: Group, logged: set[int]) -> list:
    rows = list(group.episodes)
    rows.append(
        build_episode(
            group.problem.prompt_ids,
            group.problem.demonstration_ids[0],
            custom_data={
                row_data.ROLLOUT: PlannedRollout(problem_id="p0", group_id=0, member=3, seed=0),
                row_data.IS_DEMONSTRATION: True,
            },
        )
    )
    for index, row in enumerate(rows):
        row.custom_data.update(
            {
                row_data.ADVANTAGE: 0.5 * index,
                row_data.IS_MEMBER: not row.custom_data[row_data.IS_DEMONSTRATION],
                row_data.ROW_INDEX: index,
                row_data.MINIBATCH: 1,
                row_data.IS_LOGGED: index in logged,
            }
        )
    return rows


def token_values(row) -> dict:
    numbers = [0.25] * len(row)
    return {"entropy": numbers, "old_logp": numbers, "weight": numbers, "kept": [True] * len(row)}


def test_records_hold_the_logged_rows_in_order():
    rows = rows_of(GROUPS[0], logged={0, 2, 3})
    values = {index: token_values(rows[index]) for index in (0, 2, 3)}
    hybrid, truncated, demonstration = rollout_records(rows, values, iteration=4)
    assert (hybrid.iteration, hybrid.minibatch) == (4, 1)
    assert (hybrid.window_low, hybrid.window_high) == (0.3, 0.9)
    assert (truncated.window_low, truncated.window_high) == (None, None)
    assert (hybrid.drawn_prefix_tokens, hybrid.num_prefix_tokens, hybrid.was_cut) == (5, 3, True)
    assert hybrid.prefix_fraction == 0.9
    assert hybrid.region == ["prefix"] * 3 + ["response"] * 2
    assert hybrid.prompt_ids == [7, 8]
    assert hybrid.response_ids == [1, 1, 1, 4, END]
    assert (hybrid.reward, hybrid.verdict, hybrid.finish_reason) == (1.0, "CORRECT", "stop")
    assert (hybrid.weights_seq_no, hybrid.weight_staleness) == (3, 0)
    assert [value != value for value in hybrid.engine_logp] == [True] * 3 + [False] * 2
    assert hybrid.entropy == [0.25] * 5
    assert (truncated.member, truncated.advantage) == (2, 1.0)
    assert truncated.finish_reason == "length"
    assert demonstration.region == ["demonstration"] * 6
    assert demonstration.response_ids == [1, 2, 3, 4, 5, END]
    assert demonstration.member is None
    assert demonstration.verdict is demonstration.finish_reason is None


def test_records_hold_what_the_verifier_says_beside_the_verdict():
    details = {"reason": "r", "test": "assert f(1) == 2", "num_passed": 0}
    member = {"sampled": 2, "reward": 0.0, "verdict": "WRONG"}
    group = group_of(0, [{**member, "details": details}, member])
    rows = rows_of(group, logged={0, 1, 2})
    values = {index: token_values(rows[index]) for index in range(3)}
    told, untold, demonstration = rollout_records(rows, values, iteration=4)
    assert told.verdict_details == details
    assert untold.verdict_details is demonstration.verdict_details is None


def test_a_demonstration_that_is_a_member_has_its_number_and_its_reward_in_the_record():
    row = rows_of(GROUPS[0], logged=set())[-1]
    row.custom_data[row_data.IS_MEMBER] = row.custom_data[row_data.IS_LOGGED] = True
    (record,) = rollout_records([row], {3: token_values(row)}, iteration=1)
    assert (record.member, record.demonstration_index, record.advantage) == (3, 0, 1.5)
    assert (record.window_low, record.window_high) == (None, None)


def test_demonstrations_that_are_members_count_in_signal_and_in_a_mean_of_their_own():
    failed = {"sampled": 2, "reward": 0.0, "verdict": "WRONG"}
    with_reward = group_of(0, [failed, failed])
    with_reward.demonstration_rewards = [1.0]
    without = group_of(1, [failed, failed])
    without.demonstration_rewards = [0.0]
    values = rollout_metrics([with_reward, without], window=None)
    assert values[metrics.REWARD_DEMONSTRATION_MEAN] == 0.5
    assert values[metrics.NUM_GROUPS_WITH_SIGNAL] == 1
    assert values[metrics.NUM_ROLLOUTS] == 4
    assert values[metrics.REWARD_MEAN] == 0.0


def test_the_metrics_of_an_imitation_step_are_those_of_its_optimizer_step():
    step = {"loss": 2.5, "grad_norm": 0.5, "lr": 1e-3, "step": 7, "minibatch": 0}
    assert imitation_metrics(GROUPS[0].episodes, [step]) == {
        metrics.NUM_ROWS: 3,
        metrics.LOSS: 2.5,
        metrics.GRAD_NORM: 0.5,
        metrics.LEARNING_RATE: 1e-3,
    }
    with pytest.raises(ValueError, match="too many values"):
        imitation_metrics(GROUPS[0].episodes, [step, step])
