"""Batched sampling on any causal language model of transformers."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel

from prefix_rft_rllib.basics.ranges import one_of, whole
from prefix_rft_rllib.engines.engine import (
    NOT_FINITE,
    Engine,
    FinishReason,
    Generation,
    GenerationRequest,
)
from prefix_rft_rllib.engines.lm_of_config import lm_of_config
from prefix_rft_rllib.engines.sampling_options import refuse_here
from prefix_rft_rllib.engines.state_dict_checks import copy_weights
from prefix_rft_rllib.engines.transformers.batching import plan_batches, unique_prompts
from prefix_rft_rllib.engines.transformers.kv_cache import growing_cache
from prefix_rft_rllib.engines.transformers.sampling import TokenSampler

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class TransformersEngineOptions:
    """Settings of `TransformersEngine`.

    Attributes:
        dtype: Type of weights and activations: "float32", "bfloat16" or "float16".
            Log-probabilities are computed in float32 from the logits.
        device: Torch device, such as "cpu" or "cuda:0"; None takes CUDA if there is one.
        max_batch_size: Most sequences generated at the same time.
        max_batch_tokens: Most tokens in the key-value cache if every sequence of a batch
            became as long as it may: rows x (longest prompt + largest max_new_tokens).
        attn_implementation: Attention of transformers ("sdpa", "eager", ...); None keeps the
            model's own choice.
    """

    dtype: str = "float32"
    device: str | None = None
    max_batch_size: int = 256
    max_batch_tokens: int = 524_288
    attn_implementation: str | None = None

    def __post_init__(self) -> None:
        one_of(DTYPES).check("dtype", self.dtype)
        for name in ("max_batch_size", "max_batch_tokens"):
            whole(1).check(name, getattr(self, name))

    @classmethod
    def from_config(cls, options: Mapping[str, Any]) -> "TransformersEngineOptions":
        """Make the options from plain data.

        Raises:
            ValueError: For an unknown option or a value outside its range.
        """
        refuse_here(options)
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise ValueError(
                    f"Unknown option {name!r} of the transformers engine. "
                    f"Known options: {', '.join(known)}."
                )
        return cls(**options)


class TransformersEngine(Engine):
    """Generates with `AutoModelForCausalLM`, without `generate()`.

    Every sequence has its own temperature, top-p, seed and length limit. Equal prompts of a
    batch are prefilled once, finished sequences leave the batch at once, and the cache is
    written in place. A sequence's draws do not depend on its neighbours; its logits differ by
    float rounding between batches (about 1e-6 in float32), so a token changes only where a draw
    lies that close to a boundary.

    Args:
        model_config: Configuration of a decoder-only model. Only its shape is used; weights come
            with `load_weights`.
        eos_token_ids: Ids that end a sequence, at least one.
        **options: Fields of `TransformersEngineOptions`.

    Raises:
        ValueError: For an unknown option or a value outside its range.
    """

    def __init__(
        self, model_config: PretrainedConfig, *, eos_token_ids: Sequence[int], **options: Any
    ) -> None:
        self._options = TransformersEngineOptions.from_config(options)
        super().__init__(model_config, eos_token_ids)
        self._device = torch.device(
            self._options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        )
        self._model: PreTrainedModel | None = _build_model(
            model_config, self._options, self._device
        )
        parameters = inspect.signature(self._model.forward).parameters
        # The model's name for its cache: transformers renamed it in 5.24.
        self._cache_argument = "cache" if "cache" in parameters else "past_key_values"
        self._forward_options = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    def load_weights(self, state_dict: Mapping[str, torch.Tensor], version: int) -> None:
        """Copy weights into the model, cast to the engine's dtype, from any device.

        Args:
            state_dict: All tensors of the model's `state_dict()`. Of tensors that the model ties
                together (input and output embeddings) one is enough.
            version: Any number that names these weights; see `weights_version`.

        Raises:
            ValueError: If names or shapes do not fit; then the engine is unchanged.
        """
        copy_weights(self._open_model(), state_dict)
        self._weights_version = version

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Generate one sequence per request; see `Engine.generate`.

        Raises:
            ValueError: If a prompt has ids outside the vocabulary, or a request is longer than
                the model's positions or `max_batch_tokens`.
            RuntimeError: If no weights were loaded, or the logits are not finite.
        """
        generations = dict(self.generate_stream(requests))
        return [generations[index] for index in range(len(requests))]

    @torch.inference_mode()
    def generate_stream(
        self, requests: Sequence[GenerationRequest]
    ) -> Iterator[tuple[int, Generation]]:
        """Generate one sequence per request, each given away when it leaves its batch.

        See `Engine.generate_stream`; errors are those of `generate`.
        """
        model = self._open_model()
        self._check_requests(requests)
        options = self._options
        batches = plan_batches(requests, options.max_batch_size, options.max_batch_tokens)
        for batch in batches:
            finished = self._generate_batch(model, [requests[index] for index in batch])
            yield from ((batch[row], generation) for row, generation in finished)

    def close(self) -> None:
        """Free the model; the engine cannot be used afterwards."""
        self._model = None

    def _open_model(self) -> PreTrainedModel:
        if self._model is None:
            raise RuntimeError("The engine was closed. Build a new one.")
        return self._model

    def _generate_batch(
        self, model: PreTrainedModel, requests: list[GenerationRequest]
    ) -> Iterator[tuple[int, Generation]]:
        """Yield each row of a batch, with its number, when it is finished."""
        cache = growing_cache(model.config)
        options = {self._cache_argument: cache, **self._forward_options}
        decoder = _BatchDecoder(model, requests, cache, options)
        sampler = TokenSampler(
            [request.temperature for request in requests],
            [request.top_p for request in requests],
            [request.seed for request in requests],
            self._device,
        )
        limits = torch.tensor([request.max_new_tokens for request in requests])
        eos = torch.tensor(sorted(self._eos_token_ids), device=self._device)
        max_new_tokens = int(limits.max())
        tokens = torch.zeros(len(requests), max_new_tokens, dtype=torch.int64, device=self._device)
        logps = torch.zeros(len(requests), max_new_tokens, device=self._device)
        live = torch.arange(len(requests))  # the decoder's rows, as indices into `requests`
        rows = live.to(self._device)
        for position in range(max_new_tokens):
            new_tokens, new_logps = sampler(decoder.logits, rows, position)
            tokens[rows, position], logps[rows, position] = new_tokens, new_logps
            is_finished = torch.isin(new_tokens, eos).cpu() | (limits[live] == position + 1)
            if is_finished.any():
                done = live[is_finished]
                on_device = done.to(self._device)
                yield from self._finished(
                    done, tokens[on_device, : position + 1], logps[on_device, : position + 1]
                )
                kept = _close_gaps(is_finished)
                live = live[kept]
                if len(live) == 0:
                    break
                rows, new_tokens = live.to(self._device), new_tokens[kept.to(self._device)]
                decoder.keep_rows(kept)
            decoder.append(new_tokens)

    def _finished(
        self, rows: torch.Tensor, tokens: torch.Tensor, logps: torch.Tensor
    ) -> Iterator[tuple[int, Generation]]:
        """Rows of the same length as generations. `rows` (N,), `tokens` and `logps` (N, length)."""
        if not logps.isfinite().all():
            raise RuntimeError(NOT_FINITE)
        for row, ids, row_logps in zip(rows.tolist(), tokens.tolist(), logps.tolist(), strict=True):
            reason: FinishReason = "stop" if ids[-1] in self._eos_token_ids else "length"
            yield row, Generation(ids, row_logps, reason)


class _BatchDecoder:
    """A batch's cache, positions and newest logits."""

    def __init__(
        self,
        model: PreTrainedModel,
        requests: list[GenerationRequest],
        cache: DynamicCache,
        options: dict[str, Any],
    ) -> None:
        self._model, self._cache, self._options = model, cache, options
        prompts, prompt_of_row = unique_prompts(requests)
        width = max(map(len, prompts))
        max_new_tokens = max(request.max_new_tokens for request in requests)
        # Padding stands on the left, so that every row's newest token is in the last column.
        ids = torch.zeros(len(prompts), width, dtype=torch.int64)
        is_token = torch.ones(len(prompts), width + max_new_tokens, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            is_token[row, : width - len(prompt)] = False
        self._is_token = is_token.to(model.device)
        self._num_columns = width
        positions = (self._is_token[:, :width].cumsum(-1) - 1).clamp(min=0)
        self.logits = self._forward(ids.to(model.device), positions)
        self._next_position = positions[:, -1] + 1
        if len(prompt_of_row) > len(prompts):
            self.keep_rows(torch.tensor(prompt_of_row))

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Make `rows[i]` the new row i. `rows` is on the CPU, int64, and may repeat rows."""
        self._cache.batch_select_indices(rows)
        rows = rows.to(self._is_token.device)
        self._is_token = self._is_token[rows]
        self._next_position = self._next_position[rows]
        self.logits = self.logits[rows]

    def append(self, token_ids: torch.Tensor) -> None:
        """Add one token per row, shape (B,), and compute the logits after it, shape (B, V)."""
        self._num_columns += 1
        self.logits = self._forward(token_ids[:, None], self._next_position[:, None])
        self._next_position += 1

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        output = self._model(
            ids,
            attention_mask=self._is_token[:, : self._num_columns],
            position_ids=positions,
            use_cache=True,
            **self._options,
        )
        return output.logits[:, -1]


def _build_model(
    config: PretrainedConfig, options: TransformersEngineOptions, device: torch.device
) -> PreTrainedModel:
    lm = lm_of_config(
        config, dtype=DTYPES[options.dtype], attn_implementation=options.attn_implementation
    )
    model: PreTrainedModel = lm.to(device).eval().requires_grad_(False)
    return model


def _close_gaps(is_finished: torch.Tensor) -> torch.Tensor:
    """Rows that go on, so ordered that as few as possible move: the last ones fill the gaps."""
    num_live = int((~is_finished).sum())
    kept = torch.arange(num_live)
    kept[is_finished[:num_live]] = (~is_finished[num_live:]).nonzero()[:, 0] + num_live
    return kept
