"""Room for a run on machines: arithmetic, worked by hand and against slow references."""

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.rllib.algorithms.algorithm import Algorithm

from prefix_rft_rllib import PrefixRFT
from prefix_rft_rllib.settings.placement import Demand, Node, Part, advice, gpus_of, obstacles
from prefix_rft_rllib.settings.placement_checks import demand_of
from tests.small_configs import config

TWO_CORES = [Node("here", {"CPU": 2.0, "memory": 8e9})]


def demand(*, runners=2, learners=1, is_trial=False, **changes) -> Demand:
    """Settings of the README: two env runners and a learner, one CPU each."""
    return Demand(
        **{
            "main": {"CPU": 1},
            "env_runner": {"CPU": 1, "GPU": 0},
            "num_env_runners": runners,
            "learner": {"CPU": 1, "GPU": 0},
            "num_learners": learners,
            "is_trial": is_trial,
            **changes,
        }
    )


def shares(runner: float, learner: float, count: int = 8) -> Demand:
    """As many env runners as learners, each with a share of a GPU and no CPU."""
    return demand(
        runners=count, learners=count, env_runner={"GPU": runner}, learner={"GPU": learner}
    )


def gpu_nodes(*counts: int) -> list[Node]:
    return [Node(f"node{i}", {"CPU": 64.0, "GPU": float(n)}) for i, n in enumerate(counts)]


def test_three_cpus_do_not_fit_two_cores_and_the_settings_are_named():
    (reason,) = obstacles(demand().parts(), TWO_CORES)
    assert reason == (
        "3 CPU asked for by 2 env runners x 1 (`num_env_runners`, `num_cpus_per_env_runner`), "
        "1 learner x 1 (`num_learners`, `num_cpus_per_learner`), 2 there"
    )
    assert advice(demand(), TWO_CORES) == [
        "config.env_runners(num_env_runners=1)",
        "config.learners(num_learners=0)",
    ]


def test_a_trial_needs_a_cpu_for_its_main_process_too():
    # 1 + 2 + 1 = 4 CPUs. Without the learner actor 1 + 2 = 3, so one env runner less too.
    (reason,) = obstacles(demand(is_trial=True).parts(), TWO_CORES)
    assert reason.startswith("4 CPU asked for by 1 main process x 1 (`num_cpus_for_main_process`)")
    assert advice(demand(is_trial=True), TWO_CORES) == [
        "config.env_runners(num_env_runners=1) with config.learners(num_learners=0)"
    ]
    assert not obstacles(demand(runners=1, learners=0, is_trial=True).parts(), TWO_CORES)


def test_whatever_fits_is_no_obstacle():
    assert obstacles(demand(runners=1).parts(), TWO_CORES) == []
    assert obstacles(demand(runners=0, learners=0).parts(), TWO_CORES) == []
    # Ray counts in ten-thousandths: ten times 0.1 is one CPU, whatever floats say.
    tenths = demand(runners=20, learners=0, env_runner={"CPU": 0.1})
    assert obstacles(tenths.parts(), TWO_CORES) == []


def test_four_gpus_of_one_process_need_one_node_that_has_them():
    wanted = demand(runners=1, learners=0, env_runner={"CPU": 1, "GPU": 4})
    (reason,) = obstacles(wanted.parts(), gpu_nodes(2, 2))
    assert "each env runner needs 1 CPU (`num_cpus_per_env_runner`) and 4 GPU" in reason
    assert "(`num_gpus_per_env_runner`) on one node: there is room for 0 of 1" in reason
    assert obstacles(wanted.parts(), gpu_nodes(2, 4)) == []


def test_three_processes_of_four_gpus_do_not_fit_two_nodes_of_six():
    # 12 GPUs are there and 12 asked for, but each node has room for one process only.
    wanted = demand(runners=3, learners=0, env_runner={"GPU": 4})
    (reason,) = obstacles(wanted.parts(), gpu_nodes(6, 6))
    assert "room for 2 of 3" in reason


def test_a_custom_resource_is_missing_by_its_setting():
    wanted = demand(learner={"CPU": 0, "trainer": 2}, learners=2)
    (reason,) = obstacles(wanted.parts(), [Node("here", {"CPU": 64, "trainer": 3})])
    assert reason == (
        "4 trainer asked for by 2 learners x 2 (`num_learners`, `custom_resources_per_learner`), "
        "3 there"
    )


def test_a_third_of_a_gpu_is_no_part_of_two_gpus():
    # Three fit one GPU: 0.33 * 3 = 0.99. Seven need three GPUs although 7 * 0.28 < 2.
    wanted = demand(runners=7, learners=0, env_runner={"GPU": 0.28})
    (reason,) = obstacles(wanted.parts(), gpu_nodes(2))
    assert "room for 6 of 7" in reason
    assert obstacles(wanted.parts(), gpu_nodes(2, 1)) == []


def test_the_larger_share_must_start_first():
    assert obstacles(shares(0.51, 0.49).parts(), gpu_nodes(8)) == []
    # Env runners of 0.49 fill four GPUs, learners of 0.51 get the other four.
    (reason,) = obstacles(shares(0.49, 0.51).parts(), gpu_nodes(8))
    assert reason.startswith("room on the GPUs for 4 of 8 learners x 0.51")


@pytest.mark.parametrize(
    ("runner", "learner", "expected"),
    [
        # The example of the docs: one of each on every GPU.
        (0.51, 0.49, [0, 1, 2, 3, 4, 5, 6, 7]),
        (0.6, 0.4, [0, 1, 2, 3, 4, 5, 6, 7]),
        # Two env runners fill a GPU each, then two learners.
        (0.5, 0.5, [4, 4, 5, 5, 6, 6, 7, 7]),
        # Two learners of 0.2 fit beside one env runner.
        (0.6, 0.2, [0, 0, 1, 1, 2, 2, 3, 3]),
        (1, 1, [8, 9, 10, 11, 12, 13, 14, 15]),
    ],
)
def test_ray_fills_a_gpu_before_it_opens_the_next(runner, learner, expected):
    assert gpus_of(shares(runner, learner).parts())["learner"] == expected


parts = st.lists(
    st.builds(
        lambda count, gpu: Part("part", "per_learner", "num", count, {"GPU": gpu}),
        st.integers(1, 2),
        st.sampled_from([0.25, 0.3, 0.5, 0.51, 0.75, 1, 2]),
    ),
    min_size=1,
    max_size=2,
)


def fits_somehow(shares: list[int], num_gpus: int) -> bool:
    """Whether some order of first-fit puts percentages of GPUs on GPUs."""
    for order in set(permutations(shares)):
        free = [100] * num_gpus
        for share in order:
            if share > 100:
                whole = [i for i, room in enumerate(free) if room == 100][: share // 100]
                if len(whole) < share // 100:
                    break
                for i in whole:
                    free[i] = 0
            else:
                found = [i for i, room in enumerate(free) if room >= share]
                if not found:
                    break
                free[found[0]] -= share
        else:
            return True
    return False


@given(parts, st.integers(1, 4))
def test_what_no_order_of_placing_fits_is_always_an_obstacle(wanted, num_gpus):
    percent = [round(100 * part.resources["GPU"]) for part in wanted for _ in range(part.count)]
    if not fits_somehow(percent, num_gpus):
        assert obstacles(wanted, gpu_nodes(num_gpus))


@given(parts)
def test_no_gpu_is_given_away_more_than_once(wanted):
    wanted = [
        Part(f"part{i}", *list(vars(part).values())[1:])
        for i, part in enumerate(wanted)
        if part.resources["GPU"] <= 1
    ]
    used = Counter()
    for part in wanted:
        for gpu in gpus_of(wanted)[part.name]:
            used[gpu] += round(10_000 * part.resources["GPU"])
    assert all(share <= 10_000 for share in used.values())


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.env_runners(num_env_runners=2).learners(num_learners=1),
        lambda c: c.env_runners(num_env_runners=3, num_cpus_per_env_runner=2).learners(
            num_learners=2, num_gpus_per_learner=1
        ),
        lambda c: c.env_runners(num_env_runners=1).learners(
            num_learners=0, num_cpus_per_learner=4, num_gpus_per_learner=0.5
        ),
        lambda c: (
            c.env_runners(
                num_env_runners=2,
                num_gpus_per_env_runner=1,
                custom_resources_per_env_runner={"sampler": 1},
            )
            .learners(num_learners=2, custom_resources_per_learner={"trainer": 0.5})
            .resources(num_cpus_for_main_process=2, custom_resources_for_main_process={"head": 1})
        ),
        lambda c: (
            c.learners(num_learners=2)
            .env_runners(num_env_runners=1)
            .evaluation(
                custom_evaluation_function=None, evaluation_num_env_runners=2, evaluation_interval=1
            )
        ),
        lambda c: c.env_runners(num_env_runners=1).evaluation(
            evaluation_interval=1,
            evaluation_num_env_runners=2,
            evaluation_config={"num_cpus_per_env_runner": 3},
            demonstration_probes={"train": 1},
        ),
        lambda c: c.evaluation(evaluation_interval=1, demonstration_probes={"train": 1}),
    ],
)
def test_a_trial_asks_for_what_rllib_reserves(change):
    settings = change(config())
    request = Algorithm.default_resource_request.__func__(PrefixRFT, settings.to_dict())
    asked: Counter[str] = Counter()
    for part in demand_of(settings, is_trial=True).parts():
        for name, amount in part.resources.items():
            asked[name] += part.count * amount
    wanted = {name: amount for name, amount in asked.items() if amount}
    assert wanted == pytest.approx(request.required_resources)
