"""Settings and figures of the method comparison, without training."""

import csv
import json

import numpy as np
import pytest
from matplotlib.colors import to_hex

from prefix_rft_rllib.envs.problems import load_problem_set
from prefix_rft_rllib.methods import METHODS

# The example scripts, as they import each other.
import method_styles  # isort: skip
import plot_methods  # isort: skip
import toy_arithmetic_methods as example  # isort: skip
from toy_arithmetic_prefix_rft import build_config, method_config_for  # isort: skip

RUN = {"method_config": "{}", "demonstration_fraction": 1.0, "flawed_fraction": 0.0}


def arguments_of(*arguments: str):
    return example.parse_arguments(["--method", "all", "--seeds", "1", *arguments])


@pytest.mark.parametrize("num_iterations", [1, 6, 80])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_valid_config_for_any_run_length(method, num_iterations):
    build_config(method, num_iterations=num_iterations).validate()


def test_schedules_fit_the_run_length():
    expected = {
        "prefix_rft": {"num_schedule_iterations": 80},
        "uft": {"num_schedule_iterations": 48},
        "dr_po": {"num_schedule_iterations": 80},
        "update_all": {"num_schedule_iterations": 80},
        "sft_rft": {"num_sft_iterations": 40, "sft_lr": 3e-4},
        "relift": {"buffer_size": 16, "imitation_lr": 3e-4},
        # A third of 80 is 26.7: 26 up, 54 down.
        "chord": {"num_warmup_iterations": 26, "num_decay_iterations": 54},
        "rft": {},
        "luffy": {},
    }
    assert {name: method_config_for(name, 80) for name in expected} == expected


def test_an_unknown_method_is_refused_with_all_names(capsys):
    with pytest.raises(ValueError, match="Known methods: 'prefix_rft'"):
        build_config("lufy")
    with pytest.raises(SystemExit):
        example.parse_arguments(["--method", "lufy", "--seeds", "1"])
    message = capsys.readouterr().err
    assert all(name in message for name in METHODS)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_method_config_that_is_no_json_object_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        arguments_of("--method-config", text)
    assert "--method-config" in capsys.readouterr().err


def test_given_settings_go_on_top_of_the_fitted_ones():
    args = arguments_of(
        "--method-config", '{"entropy_keep_fraction": 0.5}', "--num-iterations", "4"
    )
    config = example.config_of(args, "prefix_rft", seed=2)
    assert config.method_config == {"num_schedule_iterations": 4, "entropy_keep_fraction": 0.5}
    assert config.seed == config.env_config["data_config"]["seed"] == 2
    assert config.run_dir.endswith("toy_methods_prefix_rft_entropy_keep_fraction=0.5_seed2")


def test_fewer_and_flawed_demonstrations_leave_the_problems_as_they_are():
    changes = ((), ("--flawed-fraction", "0.3"), ("--demonstration-fraction", "0.1"))
    usual, flawed, few = (
        load_problem_set(
            example.config_of(arguments_of(*change), "prefix_rft", seed=0).token_env_config()
        )
        for change in changes
    )
    for other in (flawed, few):
        for a, b in zip(usual.train, other.train, strict=True):
            assert (a.problem_id, a.prompt_ids, a.answer) == (b.problem_id, b.prompt_ids, b.answer)
    pairs = zip(usual.train, flawed.train, strict=True)
    # 2 to 6 clauses, 30% flawed each: (.7^2 + ... + .7^6) / 5 = .27 of them stay as they are.
    num_equal = sum(a.demonstration_ids == b.demonstration_ids for a, b in pairs)
    assert num_equal / len(usual.train) == pytest.approx(0.27, abs=0.03)
    assert sum(bool(problem.demonstration_ids) for problem in few.train) == 200


def test_a_table_of_another_kind_is_not_written_to(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has the columns a, b"):
        example.Table(path, ("method", "seed"))


def test_every_method_has_a_look_of_its_own():
    styles = method_styles.STYLES
    assert styles.keys() == METHODS.keys()
    looks = {name: (to_hex(s.colour), s.line) for name, s in styles.items()}
    assert len(set(looks.values())) == len(METHODS)
    # In a figure of rewards the line tells plain from prefix rollouts.
    assert len({(s.colour, s.marker) for s in styles.values()}) == len(METHODS)
    assert len({s.label for s in styles.values()}) == len(METHODS)


def test_interval_by_hand():
    # .2, .4, .6: standard deviation .2, standard error .2 / sqrt(3) = .115470; t of 2 degrees of
    # freedom at 97.5%: 4.302653.
    assert method_styles.half_width([0.2, 0.4, 0.6]) == pytest.approx(0.496828, abs=1e-6)
    assert method_styles.half_width([0.4]) == 0.0


def write_accuracies(path, methods=("prefix_rft", "sft"), **changes) -> None:
    rows = [
        {**RUN, "method": method, "seed": seed, "iteration": iteration, "set": name}
        | {"avg_at_k": 0.1 + 0.1 * seed + 0.05 * iteration, "pass_at_k": 0.5}
        | {"greedy_accuracy": 0.5, **changes}
        for method in methods
        for seed in range(3)
        for iteration in (0, 2)
        for name in ("new", "harder")
    ]
    write(path, rows)


def write(path, rows) -> None:
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if path.stat().st_size == 0:
            writer.writeheader()
        writer.writerows(rows)


def texts_of(figure) -> str:
    artists = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return "\n".join(artist.get_text() for artist in artists)


def test_accuracies_are_drawn_with_the_rows_beside_the_figure(tmp_path):
    write_accuracies(tmp_path / "table.csv")
    write_accuracies(tmp_path / "table.csv", flawed_fraction=0.3)
    drawn = tmp_path / "figures" / "drawn"
    plot_methods.main([str(tmp_path / "table.csv"), "--out", str(drawn), "--method", "sft"])
    assert drawn.with_suffix(".png").stat().st_size > 10_000
    rows = list(csv.DictReader(drawn.with_suffix(".csv").open()))
    assert len(rows) == 24 and {row["method"] for row in rows} == {"sft"}


def test_panels_share_limits_and_the_caption_tells_seeds_and_interval(tmp_path):
    write_accuracies(tmp_path / "table.csv")
    write_accuracies(tmp_path / "table.csv", flawed_fraction=0.3)
    rows = plot_methods.read_rows([tmp_path / "table.csv"])
    figure, counts = plot_methods.draw_accuracy(rows, "avg_at_k")
    plot_methods.finish(figure, rows, "Equal", counts)
    assert len(figure.axes) == 4 and len({panel.get_ylim() for panel in figure.axes}) == 1
    text = texts_of(figure)
    assert "mean of 3 seeds, band: 95% interval" in text and "Equal" in text
    assert "30% of steps flawed" in text and "Prefix-RFT" in text
    # Seeds 0, 1, 2 have .1, .2, .3 before training: mean .2, half the interval worked above.
    one = [row for row in rows if row["set"] == "new" and row["method"] == "sft"]
    points = plot_methods.curve([r for r in one if r["flawed_fraction"] == "0.0"], "avg_at_k")
    expected = np.array([[0, 0.2, 0.248414, 3], [2, 0.3, 0.248414, 3]])
    np.testing.assert_allclose(points, expected, rtol=0, atol=1e-6)


def test_rewards_are_drawn_solid_and_dashed_with_the_window(tmp_path):
    prefix = {"reward_prefix_mean": 0.9, "prefix_window_low": 0.5, "prefix_window_high": 0.95}
    none = dict.fromkeys(prefix, "")
    made = {"prefix_rft": {"reward_plain_mean": 0.1, **prefix}, "grpo": none, "sft": none}
    made["grpo"] = {"reward_plain_mean": 0.2, **none}
    made["sft"] = {"reward_plain_mean": "", **none}
    rows = [
        {**RUN, "method": method, "seed": 0, "iteration": i, **values}
        for method, values in made.items()
        for i in (1, 2)
    ]
    write(tmp_path / "rewards.csv", rows)
    plot_methods.main([str(tmp_path / "rewards.csv"), "--window", "--out", str(tmp_path / "drawn")])
    assert (tmp_path / "drawn.png").stat().st_size > 10_000
    rows = plot_methods.read_rows([tmp_path / "drawn.csv"])
    figure, counts = plot_methods.draw_rewards(rows, window=True)
    plot_methods.finish(figure, rows, "Rewards", counts)
    styles = [line.get_linestyle() for line in figure.axes[0].lines]
    assert styles == ["-", "-", "--"], "two methods plain, one from a prefix"
    assert "SFT: no rollouts" in texts_of(figure) and "(1 seed)" in texts_of(figure)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "several settings"),
        (("--method", "rft"), "--method rft: not in the tables"),
        (("--where", "seed=7"), "No row matches"),
        (("--where", "sed=0"), "no such column"),
    ],
)
def test_a_selection_that_cannot_be_drawn_is_refused(tmp_path, arguments, message):
    write_accuracies(tmp_path / "table.csv")
    other = json.dumps({"num_rows_per_problem": 2})
    write_accuracies(tmp_path / "table.csv", methods=["sft"], method_config=other)
    with pytest.raises(ValueError, match=message):
        plot_methods.main([str(tmp_path / "table.csv"), "--out", str(tmp_path / "o"), *arguments])


def test_a_figure_does_not_write_over_a_table_and_a_run_is_not_counted_twice(tmp_path):
    for name in ("a.csv", "b.csv"):
        write_accuracies(tmp_path / name)
    with pytest.raises(SystemExit):
        plot_methods.main([str(tmp_path / "a.csv"), "--out", str(tmp_path / "a")])
    with pytest.raises(ValueError, match="both hold the run"):
        plot_methods.read_rows([tmp_path / "a.csv", tmp_path / "b.csv"])


def test_a_method_without_a_style_is_not_left_out_silently(tmp_path):
    write_accuracies(tmp_path / "table.csv", methods=["sft", "my_method"])
    with pytest.raises(ValueError, match=r"No style for my_method: .* method_styles\.py"):
        plot_methods.main([str(tmp_path / "table.csv"), "--out", str(tmp_path / "o")])
