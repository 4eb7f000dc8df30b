"""Generation with vLLM, on CPUs and GPUs."""

import contextlib
import copy
import gc
import itertools
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import PretrainedConfig

from prefix_rft_rllib.engines.engine import (
    Engine,
    EngineBrokenError,
    Generation,
    GenerationRequest,
    WeightReceiver,
)
from prefix_rft_rllib.engines.lm_of_config import outline_of_config
from prefix_rft_rllib.engines.state_dict_checks import complete_weights
from prefix_rft_rllib.engines.vllm.options import WORKER_EXTENSION, VLLMEngineOptions, import_vllm
from prefix_rft_rllib.engines.vllm.requests import sampling_params, to_generation
from prefix_rft_rllib.engines.vllm.watched_calls import Call, WatchedCalls
from prefix_rft_rllib.engines.vllm.weight_receiver import VLLMWeightReceiver

T = TypeVar("T")


class VLLMEngine(Engine):
    """Generates with a `vllm.LLM` inside this process, which must be the engine's own.

    Tokens are drawn by vLLM, so the same seed gives other tokens than in the transformers engine,
    and other ones on a GPU than on a CPU. On one device a sequence's draws depend on its seed
    alone; its logits differ by rounding between batches, as in the transformers engine.

    Every call runs in one thread of the engine, so that a step of vLLM that hangs is noticed and
    finished sequences can be used while others are generated.

    Args:
        model_config: Configuration of a decoder-only model that vLLM knows and whose state dict
            has the names of its checkpoint. Only its shape is used; weights come with
            `load_weights`.
        eos_token_ids: Ids that end a sequence, at least one.
        **options: `timeout_s`, and any argument of `vllm.LLM` but those the engine sets itself;
            see `VLLMEngineOptions`.

    Raises:
        ValueError: For an unknown or reserved option, or a value outside its range.
        ImportError: If vLLM is not installed.
        RuntimeError: If vLLM finds no device, or a process group exists in this process.
    """

    def __init__(
        self, model_config: PretrainedConfig, *, eos_token_ids: Sequence[int], **options: Any
    ) -> None:
        self._options = VLLMEngineOptions.from_config(options)
        super().__init__(model_config, eos_token_ids)
        _check_process()
        self._outline = outline_of_config(model_config)
        self._logit_scale = 1.0
        self._is_asleep = False
        self._broken: str | None = None
        self._call_numbers = itertools.count()
        self._directory = tempfile.TemporaryDirectory(prefix="prefix_rft_vllm_")
        self._calls = WatchedCalls("vllm_engine")
        self._llm: Any = None
        try:
            self._llm = self._calls.thread.submit(partial(self._build, model_config)).result()
        except BaseException:
            self._calls.stop()
            self._directory.cleanup()
            raise
        core, run = self._llm.llm_engine, self._run_or_break
        self._receiver = VLLMWeightReceiver(core, self._outline, run, self._wake, self._set_version)
        self._max_model_len: int = self._llm.llm_engine.model_config.max_model_len

    def load_weights(self, state_dict: Mapping[str, torch.Tensor], version: int) -> None:
        """Copy weights into the model, cast to the engine's dtype, from any device.

        Args:
            state_dict: All tensors of the model's `state_dict()`. Of tensors that the model ties
                together (input and output embeddings) one is enough.
            version: Any number that names these weights; see `weights_version`.

        Raises:
            ValueError: If names or shapes do not fit; then the engine is unchanged.
            EngineBrokenError: If vLLM fails on weights that fit: its model holds parts of both.
        """
        self._check_usable()
        self._run_or_break(partial(self._load, complete_weights(self._outline, state_dict)))
        self._set_version(version)

    @property
    def weight_receiver(self) -> WeightReceiver:
        """Takes weights directly from a learner; needs the option `weight_transfer`."""
        if self._options.weight_transfer is None:
            return super().weight_receiver
        self._check_usable()
        return self._receiver

    def sleep(self) -> None:
        """Give the GPU memory of weights and cache to others until the next weights come.

        Needs `enable_sleep_mode=True` of vLLM, else nothing happens.
        """
        if not self._options.llm_arguments.get("enable_sleep_mode"):
            return
        self._check_usable()
        self._run_or_break(partial(self._llm.sleep, level=2))  # keeps no copy of the weights
        self._is_asleep, self._weights_version = True, None

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Generate one sequence per request; see `Engine.generate`.

        Raises:
            ValueError: If a prompt has ids outside the vocabulary, or a request is longer than
                the model's positions or `max_model_len`.
            RuntimeError: If no weights were loaded, or the logits are not finite.
            TimeoutError: If no token was generated for `timeout_s`.
            EngineBrokenError: If the engine is broken, also by a step that hangs in this call.
        """
        generations = dict(self.generate_stream(requests))
        return [generations[index] for index in range(len(requests))]

    def generate_stream(
        self, requests: Sequence[GenerationRequest]
    ) -> Iterator[tuple[int, Generation]]:
        """Generate one sequence per request, each given away while others are generated.

        See `Engine.generate_stream`; errors are those of `generate`.
        """
        self._check_usable()
        self._check_requests(requests)
        for request in requests:
            self._check_length(request)
        yield from self._calls.stream(
            partial(self._generate, list(requests)), self._options.timeout_s
        )

    def close(self) -> None:
        """Shut vLLM down; the engine cannot be used afterwards."""
        if self._llm is None:
            return
        llm, self._llm = self._llm, None
        # A thread that is stuck shuts vLLM down when its step ever ends; nobody waits for that.
        shutdown = self._calls.thread.submit(llm.llm_engine.engine_core.shutdown)
        self._calls.stop()
        wait([shutdown], timeout=0 if self._calls.is_stuck else self._options.timeout_s)
        self._directory.cleanup()
        del llm, shutdown
        gc.collect()

    def _set_version(self, version: int) -> None:
        self._is_asleep, self._weights_version = False, version

    def _run_or_break(self, function: Callable[[], T]) -> T:
        """Run a step that must not stop half way in the engine's thread.

        Raises:
            EngineBrokenError: If it fails, or is not done within `timeout_s`.
        """
        try:
            return self._calls.run(function, self._options.timeout_s)
        except BaseException as error:
            self._broken = f"vLLM failed in a change of its weights ({error!r})"
            if isinstance(error, Exception):
                raise EngineBrokenError(f"{self._broken}. Build a new engine.") from error
            raise

    def _check_usable(self) -> None:
        if self._llm is None:
            raise RuntimeError("The engine was closed. Build a new one.")
        broken = "vLLM did not come back from a step" if self._calls.is_stuck else self._broken
        if broken is not None:
            raise EngineBrokenError(f"The engine is broken: {broken}. Build a new one.")

    def _check_length(self, request: GenerationRequest) -> None:
        num_tokens = len(request.prompt_ids) + request.max_new_tokens
        if num_tokens > self._max_model_len:
            raise ValueError(
                f"A prompt of {len(request.prompt_ids)} tokens plus `max_new_tokens` "
                f"({request.max_new_tokens}) makes {num_tokens} tokens; this engine has room for "
                f"sequences of {self._max_model_len}. Raise `kv_cache_memory_bytes` or "
                "`max_model_len` in engine_config, or shorten the request."
            )

    # Everything below runs in the engine's thread.

    def _build(self, model_config: PretrainedConfig) -> Any:
        vllm = import_vllm()
        from vllm.platforms import current_platform

        if current_platform.is_unspecified():
            raise RuntimeError(
                "vLLM finds no device it was built for. On a machine with GPUs give the env "
                "runners one, config.env_runners(num_gpus_per_env_runner=1); without GPUs "
                "install vLLM's build for CPUs (requirements-cpu.txt)."
            )
        config = copy.deepcopy(model_config)
        config.architectures = [type(self._outline).__name__]
        config.save_pretrained(self._directory.name)
        with _kept_generators(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries that vLLM uses
            try:
                return vllm.LLM(
                    model=self._directory.name,
                    load_format="dummy",
                    skip_tokenizer_init=True,
                    generation_config="vllm",
                    logprobs_mode="raw_logprobs",
                    worker_extension_cls=WORKER_EXTENSION,
                    seed=0,
                    **self._options.arguments_for(is_cpu=current_platform.is_cpu()),
                )
            except BaseException:
                # Else no other engine could be built in this process.
                if torch.distributed.is_initialized():
                    vllm.distributed.cleanup_dist_env_and_memory()
                raise

    def _wake(self, what: str) -> None:
        """Give a sleeping engine its "weights" back, without values, or then its "kv_cache"."""
        if self._is_asleep:
            self._llm.wake_up(tags=[what])

    def _load(self, weights: dict[str, torch.Tensor]) -> None:
        engine = self._llm.llm_engine
        self._wake("weights")
        weights = {name: tensor.detach() for name, tensor in weights.items()}
        if engine.vllm_config.parallel_config.world_size == 1:
            arguments = {"weights_iterator": iter(weights.items())}
            engine.collective_rpc("reload_weights", kwargs=arguments)
        else:  # the workers are other processes on this machine
            path = Path(self._directory.name) / "weights.pt"
            torch.save({name: tensor.cpu() for name, tensor in weights.items()}, path)
            engine.collective_rpc("load_weights_file", args=(str(path),))
            path.unlink()
        self._wake("kv_cache")
        if not engine.reset_prefix_cache():
            raise RuntimeError("vLLM kept keys and values of the old weights")

    def _set_logit_scale(self, scale: float) -> None:
        if scale == self._logit_scale:
            return
        set_scale = partial(self._llm.llm_engine.collective_rpc, "set_logit_scale")
        most_layers = max(set_scale(args=(scale,)))
        if most_layers != 1:
            set_scale(args=(self._logit_scale,))
            raise RuntimeError(
                f"This model computes logits in {most_layers} places of vLLM, so no temperature "
                "but 0 and 1 is possible. Use temperature 1, or engine='transformers'."
            )
        self._logit_scale = scale

    def _generate(self, requests: list[GenerationRequest], call: Call) -> None:
        """Give away each request's index and generation when it is finished."""
        # vLLM has one logit scale at a time: requests of one temperature run together. Greedy
        # ones need no scale, as those of temperature 1.
        by_temperature: dict[float, dict[int, GenerationRequest]] = {}
        for index, request in enumerate(requests):
            by_temperature.setdefault(request.temperature or 1.0, {})[index] = request
        with _kept_generators():
            for temperature, chosen in by_temperature.items():
                self._set_logit_scale(1.0 / temperature)
                self._generate_unscaled(chosen, call)

    def _generate_unscaled(self, requests: Mapping[int, GenerationRequest], call: Call) -> None:
        """Generate for requests whose temperature is set."""
        engine = self._llm.llm_engine
        call_number = next(self._call_numbers)
        waiting: dict[str, int] = {}
        try:
            for index, request in requests.items():
                request_id = f"{call_number}_{index}"
                waiting[request_id] = index
                prompt = {"type": "token", "prompt_token_ids": list(request.prompt_ids)}
                params = sampling_params(request, self._eos_token_ids)
                engine.add_request(request_id, prompt, params)
            while waiting:
                call.check()
                for output in engine.step():
                    call.note_progress()
                    if output.finished:
                        index = waiting.pop(output.request_id)
                        generation = to_generation(output.outputs[0], self._eos_token_ids)
                        call.give((index, generation))
        finally:
            if waiting:
                self._abort(list(waiting))

    def _abort(self, request_ids: list[str]) -> None:
        """Drop the requests of a call that failed; its error is the one to be seen."""
        engine = self._llm.llm_engine
        try:
            engine.abort_request(request_ids)
            is_clean = not engine.has_unfinished_requests()
        except Exception:
            is_clean = False
        if not is_clean:
            self._broken = "vLLM did not drop the requests of a call that failed"


def _check_process() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise RuntimeError(
            "torch.distributed is in use in this process, by a learner or another vLLM engine. "
            "vLLM would share its process group and destroy it when it closes. Give the engine a "
            "process of its own: config.env_runners(num_env_runners=1) or more."
        )


@contextlib.contextmanager
def _kept_generators() -> Iterator[None]:
    """Put the process's random generators back: vLLM seeds and draws from them."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
