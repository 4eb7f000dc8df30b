r"""Measure a model on benchmarks.

    python -m prefix_rft_rllib.evaluate --model DIR|NAME|CHECKPOINT --benchmark NAME|FILE ...

Each problem is attempted once greedily and `--num-samples` times by sampling. Reported are avg@k,
pass@k, maj@k, greedy pass@1, response length and the share of truncated responses, with 95%
intervals over problems, for all problems and for each value of the fields of `--breakdown`; with
several `--seeds` mean and deviation over them; with `--compare` a paired test against another
model's completions. Every completion is a line of OUT/BENCHMARK.jsonl: a killed run that is started
again goes on behind the last one. OUT/results.json holds what the table at the end shows.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefix_rft_rllib.basics.command_line import json_object
from prefix_rft_rllib.basics.declarations import Declaration, declarations
from prefix_rft_rllib.basics.text import without_controls
from prefix_rft_rllib.evaluation.benchmarks import BENCHMARKS, ChosenBenchmark, find_benchmark
from prefix_rft_rllib.evaluation.options import EvaluationOptions

if TYPE_CHECKING:
    from prefix_rft_rllib.prefix_rft_config import PrefixRFTConfig
    from prefix_rft_rllib.transfers.evaluated_model import EvaluatedModel

__all__ = ["EvaluationOptions", "evaluate", "main"]

RESULTS = "results.json"
"""Name of the file with all results."""

ONLY_SPEED = (
    *("device", "max_batch_size", "max_batch_tokens", "gpu_memory_utilization"),
    *("tensor_parallel_size", "max_num_seqs", "max_num_batched_tokens"),
)
"""Settings of engines that say where and how fast they work: a run may go on with others."""


def evaluate(
    model: str,
    benchmarks: Sequence[str],
    out: str | Path,
    *,
    options: EvaluationOptions | None = None,
    tokenizer: str | None = None,
    compare: str | Path | None = None,
) -> dict[str, Any]:
    """Measure a model on benchmarks.

    Args:
        model: A directory in Hugging Face form, a name of the hub, or a checkpoint of `PrefixRFT`.
        benchmarks: Names of recipes, "NAME=FILE", or sources of problems (`find_benchmark`).
        out: Directory for completions and results; made if missing.
        options: How the model is asked; None for the defaults.
        tokenizer: Another tokenizer than the model's own.
        compare: A file of completions of another model, for a paired comparison; of one benchmark.

    Returns:
        What `results.json` holds: `model`, and by benchmark `num_problems`, `num_samples`, `seeds`,
        `fingerprint`, what `evaluation.scores.score` returns, `num_ungradeable_answers` and maybe
        `comparison`.

    Raises:
        ValueError: If a setting, model, benchmark or file of completions is wrong.
    """
    from prefix_rft_rllib.evaluation.report import write_results
    from prefix_rft_rllib.transfers.evaluated_model import find_model

    options = options or EvaluationOptions()
    chosen = [find_benchmark(text) for text in benchmarks]
    names = [benchmark.name for benchmark in chosen]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`benchmark` must name one or more different benchmarks, got {names}.")
    if compare is not None and len(chosen) > 1:
        raise ValueError(f"`compare` takes one benchmark, got {names}: a file belongs to one.")
    for benchmark in chosen:
        options.of_protocol(benchmark.recipe.num_samples)
    found = find_model(model, tokenizer)
    results: dict[str, Any] = {"model": model, "benchmarks": {}}
    for benchmark in chosen:
        results["benchmarks"][benchmark.name] = _measure(
            found, benchmark, Path(out) / f"{benchmark.name}.jsonl", options, compare
        )
    write_results(Path(out) / RESULTS, results)
    return results


def _measure(
    model: EvaluatedModel,
    benchmark: ChosenBenchmark,
    path: Path,
    options: EvaluationOptions,
    compare: str | Path | None,
) -> dict[str, Any]:
    """Ask what is missing, and score all."""
    from prefix_rft_rllib.envs.problems import load_problem_set
    from prefix_rft_rllib.evaluation import asking, comparison, questions, scores
    from prefix_rft_rllib.evaluation.completions import CompletionsFile
    from prefix_rft_rllib.evaluation.votes import Votes
    from prefix_rft_rllib.settings.setup_checks import check_model_and_engine
    from prefix_rft_rllib.transfers.evaluated_model import env_runners_of

    options = options.of_protocol(benchmark.recipe.num_samples)
    config = config_of(model, options, benchmark.recipe.env_config(benchmark.source))
    problem_set = load_problem_set(config.token_env_config())
    check_model_and_engine(config, problem_set)
    problems = questions.spread_evenly(problem_set.problems, options.num_problems)
    for field in options.breakdown:
        scores.by_field(problems, field)
    hashes = {problem.problem_id: asking.problem_hash(problem) for problem in problems}
    other = comparison.read_other(Path(compare), hashes) if compare is not None else None
    fingerprint = {
        "model": model.path,
        "model_files": model.files_hash(),
        **asking.data_fingerprint(problem_set, problems),
        **{name: getattr(options, name) for name in ("temperature", "top_p", "engine")},
        "engine_config": {k: v for k, v in options.engine_config.items() if k not in ONLY_SPEED},
    }
    num_ungradeable = asking.num_ungradeable(problem_set, problems)
    with CompletionsFile(path, fingerprint) as file:
        asked = asking.answers(
            lambda: env_runners_of(config, problem_set), problem_set, problems, options, file
        )
    answers = scores.collect(problems, asked, options, Votes(problem_set.settings))
    limit = problem_set.settings.max_response_tokens
    results = {
        "num_problems": len(problems),
        "num_samples": options.num_samples,
        "seeds": list(options.seeds),
        "fingerprint": fingerprint,
        **scores.score(answers, options, max_response_tokens=limit),
        "num_ungradeable_answers": num_ungradeable,
    }
    if other is not None:
        ours = list(asked.values())
        results["comparison"] = comparison.compare_completions(ours, fingerprint, other)
    return results


def config_of(
    model: EvaluatedModel, options: EvaluationOptions, env_config: Mapping[str, Any]
) -> PrefixRFTConfig:
    """Write the settings of env runners that answer, and are not trained.

    Args:
        model: Model and tokenizer.
        options: Of the evaluation.
        env_config: Of the benchmark; the options' own keys win.

    Returns:
        Validated settings.

    Raises:
        ValueError: Naming the setting that is wrong.
    """
    from prefix_rft_rllib.prefix_rft_config import PrefixRFTConfig

    sizes = {name: getattr(options, name) for name in ("max_prompt_tokens", "max_response_tokens")}
    own = {"tokenizer": model.tokenizer, "cut_prefix_before_answer": False, **sizes}
    # In this process the engine takes the GPU that a learner in it would have.
    gpus_here = 0 if options.num_env_runners else options.num_gpus_per_env_runner
    config = (
        PrefixRFTConfig()
        .environment("PrefixRFT/Math-v0", env_config={**own, **env_config, **options.env_config})
        .env_runners(
            num_env_runners=options.num_env_runners,
            num_gpus_per_env_runner=options.num_gpus_per_env_runner,
            engine=options.engine,
            engine_config=options.engine_config,
            temperature=options.temperature,
            top_p=options.top_p,
        )
        .learners(num_learners=0, num_gpus_per_learner=gpus_here)
        .training(model_path=model.path, method="rft")
    )
    config.validate()
    return config


_ARGUMENTS: dict[str, dict[str, Any]] = {
    "num_samples": {"type": int},
    "greedy": {"action": argparse.BooleanOptionalAction},
    "seeds": {"type": int, "nargs": "+"},
    "ks": {"type": int, "nargs": "+"},
    "temperature": {"type": float},
    "top_p": {"type": float},
    "num_problems": {"type": int},
    "breakdown": {"nargs": "*", "metavar": "FIELD"},
    "attempts_per_call": {"type": int},
    "max_prompt_tokens": {"type": int},
    "max_response_tokens": {"type": int},
    "engine": {},
    "engine_config": {"type": json_object, "metavar": "JSON"},
    "num_env_runners": {"type": int},
    "num_gpus_per_env_runner": {"type": float},
    "env_config": {"type": json_object, "metavar": "JSON"},
}
"""How a command line writes each option."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m prefix_rft_rllib.evaluate",
        description=__doc__,
        epilog=f"Benchmarks: {', '.join(BENCHMARKS)}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="directory, name of the hub, or checkpoint")
    parser.add_argument(
        "--benchmark", required=True, nargs="+", help="NAME, NAME=FILE, or a source of problems"
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the results")
    parser.add_argument("--tokenizer", help="another one than the model's own")
    parser.add_argument("--compare", type=Path, metavar="OTHER.jsonl", help="its completions")
    for declaration in declarations(EvaluationOptions):
        flag = "--" + declaration.name.replace("_", "-")
        how = _ARGUMENTS[declaration.name]
        parser.add_argument(flag, default=None, help=_help(declaration), **how)
    return parser


def _help(declaration: Declaration) -> str:
    default = declaration.default
    default = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{declaration.description} Default: {default}".replace("%", "%%")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, or 2 if something given is wrong."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parsed = vars(_parser().parse_args(arguments))
    given = {name: parsed.pop(name) for name in _ARGUMENTS}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
    try:
        options = EvaluationOptions(**values)
        results = evaluate(
            parsed["model"],
            parsed["benchmark"],
            parsed["out"],
            options=options,
            tokenizer=parsed["tokenizer"],
            compare=parsed["compare"],
        )
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {without_controls(str(error))}", file=sys.stderr)
        return 2
    from prefix_rft_rllib.evaluation.report import table

    print(table(results))
    print(f"\n{parsed['out'] / RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
