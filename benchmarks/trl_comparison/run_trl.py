"""Seconds per iteration of TRL's GRPOTrainer; runs in TRL's own environment.

python benchmarks/trl_comparison/run_trl.py WORKLOAD --out seconds.csv
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from workload import BREAKDOWN, Workload, trl_reward, write_rows


class TimedTrainer(GRPOTrainer):
    """GRPOTrainer with the seconds of its parts; an iteration ends with its last optimizer step."""

    def __init__(self, *args: Any, num_steps: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._num_steps = num_steps
        self._seconds: dict[str, float] = defaultdict(float)
        self._num_tokens = 0
        self._last_end: float | None = None
        self.rows: list[dict[str, Any]] = []

    def _timed(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = function(*args, **kwargs)
        self._seconds[name] += time.perf_counter() - started
        return result

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        result = self._timed("generation_s", super()._generate_single_turn, *args, **kwargs)
        self._num_tokens += sum(map(len, result[0]))
        return result

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        function = super()._get_per_token_logps_and_entropies
        if torch.is_grad_enabled():
            return function(*args, **kwargs)
        return self._timed("old_logps_s", function, *args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Time what `_prepare_inputs` (rollouts) leaves of a step."""
        before = self._seconds["inputs"]
        loss = self._timed("update_s", super().training_step, *args, **kwargs)
        self._seconds["update_s"] -= self._seconds["inputs"] - before
        return loss

    def _prepare_inputs(self, *args: Any, **kwargs: Any) -> Any:
        return self._timed("inputs", super()._prepare_inputs, *args, **kwargs)

    def end_step(self, step: int) -> None:
        """An optimizer step is over; the first iteration has no beginning and is not recorded."""
        if step % self._num_steps:
            return
        now = time.perf_counter()
        if self._last_end is not None:
            seconds = {"iteration_s": now - self._last_end, **dict.fromkeys(BREAKDOWN, 0.0)}
            seconds |= {name: self._seconds[name] for name in BREAKDOWN[:3]}
            seconds["other_s"] = seconds["iteration_s"] - sum(seconds[n] for n in BREAKDOWN[:3])
            self.rows.append(
                {name: round(value, 4) for name, value in seconds.items()}
                | {"num_tokens": self._num_tokens}
            )
        self._seconds.clear()
        self._num_tokens = 0
        self._last_end = now


class EndOfStep(TrainerCallback):
    """Tells the trainer that a step is over."""

    trainer: TimedTrainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer after every optimizer step."""
        self.trainer.end_step(state.global_step)


def settings(workload: Workload, args: argparse.Namespace) -> GRPOConfig:
    """Dr. GRPO on the workload, with nothing switched on that costs time and is not needed."""
    rows_of_step = workload.num_rows // workload.num_steps
    accumulation = rows_of_step // args.rows_per_pass
    return GRPOConfig(
        output_dir=str(workload.directory / "trl"),
        per_device_train_batch_size=args.rows_per_pass,
        gradient_accumulation_steps=accumulation,
        # All rollouts of an iteration are generated at once, and serve `num_steps` steps.
        steps_per_generation=accumulation * workload.num_steps,
        num_generations=workload.group_size,
        max_steps=args.num_iterations * workload.num_steps,
        max_completion_length=workload.num_new_tokens,
        loss_type="dr_grpo",
        scale_rewards="none",
        beta=0.0,
        num_iterations=1,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        learning_rate=1e-6,
        max_grad_norm=1.0,
        lr_scheduler_type="constant",
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,  # on by default; memory is no issue here
        use_vllm=False,
        cache_implementation=args.cache,
        use_transformers_continuous_batching=args.continuous_batching,
        torch_compile=args.torch_compile,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", type=Path)
    parser.add_argument("--num-iterations", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows-per-pass", type=int, default=64)
    parser.add_argument("--cache", default=None, help="TRL's cache_implementation")
    parser.add_argument("--continuous-batching", action="store_true")
    parser.add_argument("--torch-compile", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    workload = Workload.load(args.workload)
    tokenizer = AutoTokenizer.from_pretrained(workload.model_dir)
    end_of_step = EndOfStep()
    end_of_step.trainer = TimedTrainer(
        model=AutoModelForCausalLM.from_pretrained(workload.model_dir, dtype=torch.float32),
        reward_funcs=trl_reward,
        args=settings(workload, args),
        train_dataset=load_dataset("json", data_files=str(workload.problems_file), split="train"),
        processing_class=tokenizer,
        callbacks=[end_of_step],
        num_steps=workload.num_steps,
    )
    end_of_step.trainer.train()
    write_rows(args.out, end_of_step.trainer.rows)


if __name__ == "__main__":
    main()
