"""One training iteration of this project against TRL's GRPOTrainer.

An iteration is 128 rollouts (16 problems, groups of 8, 128 tokens each) and two optimizer steps.
Both programs have the same model, prompts, lengths, rewards, loss (Dr. GRPO) and threads, and
sample with transformers in the process that trains. They take turns, each time as a process of its
own; the first iterations of a process are left out. TRL lives in a virtual environment of its own,
which is made if it is not there. Needs as many idle cores as threads.

    python benchmarks/trl_comparison/compare.py --out results.csv
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from models import MODELS, WORKLOADS, write_workload
from workload import BREAKDOWN, Workload, read_rows, write_rows

HERE = Path(__file__).resolve().parent
NUM_LEFT_OUT = 1
"""Iterations of a process left out beside the first, which the programs leave out themselves."""


def make_venv(directory: Path, python: str) -> Path:
    """Make TRL's environment if it is missing.

    Args:
        directory: Where it is.
        python: Interpreter to make it with.

    Returns:
        Its interpreter.
    """
    interpreter, done = directory / "bin" / "python", directory / "installed"
    if not done.exists():
        import torch

        pip = [str(interpreter), "-m", "pip", "install", "-q"]
        subprocess.run([python, "-m", "venv", str(directory)], check=True)
        subprocess.run([*pip, f"torch=={torch.__version__}"], check=True)
        subprocess.run([*pip, "-r", str(HERE / "requirements.txt")], check=True)
        done.touch()
    return interpreter


def run(contender: str, workload: Workload, args: argparse.Namespace) -> list[dict[str, str]]:
    """Run one program once; returns its iterations."""
    out = workload.directory / "seconds.csv"
    options = ["--num-iterations", args.num_iterations + NUM_LEFT_OUT + 1]
    options += ["--threads", args.threads, "--out", out]
    if contender.startswith("trl_"):
        command = [args.trl_python, HERE / "run_trl.py", workload.directory, *options]
        command += ["--rows-per-pass", contender.removeprefix("trl_")]
    else:
        python = args.vllm_python if contender == "ours_vllm" else sys.executable
        engine = contender.removeprefix("ours_")
        command = [python, HERE / "run_ours.py", workload.directory, *options, "--engine", engine]
    threads = str(args.threads)
    env = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    # No network, and no warning of forks after the tokenizer's threads.
    env |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [str(part) for part in command], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise RuntimeError(f"{contender} failed:\n{done.stdout.decode()[-4000:]}")
    return read_rows(out)[NUM_LEFT_OUT:]


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All iterations of all contenders, which alternate."""
    contenders = [f"trl_{number}" for number in args.trl_rows_per_pass]
    contenders += ["ours_transformers", *(["ours_vllm"] if args.vllm_python else [])]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for model in args.models:
            for rewards in args.workloads:
                directory = Path(scratch) / model / rewards
                workload = write_workload(directory, model, rewards, args.num_new_tokens)
                case = {"model": model, "workload": rewards, "threads": args.threads}
                for repetition in range(args.num_runs):
                    for contender in contenders:
                        name = case | {"contender": contender, "run": repetition}
                        found = run(contender, workload, args)
                        rows += [name | row for row in found]
    return rows


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Medians, and the ratio to TRL at its fastest, of every model and workload."""
    by_case: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        of_case = by_case.setdefault((row["model"], row["workload"]), {})
        of_case.setdefault(row["contender"], []).append(row)
    lines = []
    for (model, rewards), contenders in by_case.items():
        trl = min(
            _median(of_trl, "iteration_s")
            for name, of_trl in contenders.items()
            if name.startswith("trl_")
        )
        for contender, of_contender in contenders.items():
            seconds = _median(of_contender, "iteration_s")
            parts = [f"{n} {_median(of_contender, n):.3f}" for n in BREAKDOWN if of_contender[0][n]]
            tokens = _median(of_contender, "num_tokens")
            lines.append(
                f"{model:8} {rewards:12} {contender:18} {seconds:7.3f} s  {seconds / trl:5.2f} of "
                f"TRL's  ({', '.join(parts)}; {tokens:.0f} tokens, {len(of_contender)} iterations)"
            )
    return lines


def _median(rows: list[dict[str, Any]], name: str) -> float:
    return statistics.median(float(row[name]) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--num-new-tokens", type=int, default=128)
    parser.add_argument("--num-iterations", type=int, default=5, help="of a run, measured")
    parser.add_argument("--num-runs", type=int, default=3, help="of each program, in turns")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--trl-rows-per-pass",
        nargs="+",
        type=int,
        default=[64, 16],
        help="TRL's per_device_train_batch_size; each is a contender, ratios are to the fastest",
    )
    parser.add_argument("--trl-venv", type=Path, default=Path(".venv-trl"))
    parser.add_argument("--vllm-python", help="interpreter with vLLM: adds its engine")
    parser.add_argument("--out", type=Path, help="CSV file to write")
    args = parser.parse_args()
    args.trl_python = make_venv(args.trl_venv, sys.executable)
    rows = measure(args)
    print("\n".join(summary(rows)))
    if args.out is not None:
        write_rows(args.out, rows)


if __name__ == "__main__":
    main()
