"""The interface of every generation engine."""

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from prefix_rft_rllib.basics.ranges import real, whole

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FinishReason = Literal["stop", "length"]

NOT_FINITE = (
    "The model's log-probabilities are not finite. Look for NaN or infinite weights; "
    "with float16, try bfloat16 or float32."
)


class EngineBrokenError(RuntimeError):
    """The engine cannot be used any more, only a new one: in a new process if it hangs."""


_TEMPERATURE = real(0).advising("Use 0 for greedy decoding, 1 to sample from the model as it is.")
_TOP_P = real(above=0, most=1).advising("Use 1 to sample from all tokens.")


@dataclass(frozen=True)
class GenerationRequest:
    """One sequence to generate.

    Attributes:
        prompt_ids: Token ids to continue; at least one.
        max_new_tokens: Largest number of generated tokens, the end token included.
        temperature: Divides the logits before sampling; 0 takes the most probable token.
        top_p: Sample only from the smallest set of most probable tokens whose probabilities
            reach `top_p`, in (0, 1]; 1 samples from all.
        seed: Any integer, taken modulo 2**64. The draw for the i-th generated token is a
            function of (seed, i) alone, so one seed gives one sequence in any batch.

    Raises:
        ValueError: If a field is outside its range.
    """

    prompt_ids: Sequence[int]
    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.prompt_ids) == 0:
            raise ValueError(
                "`prompt_ids` must hold at least one token id, got none. A model continues text: "
                "start with its begin token if there is no prompt."
            )
        whole(1).check("max_new_tokens", self.max_new_tokens)
        _TEMPERATURE.check("temperature", self.temperature)
        _TOP_P.check("top_p", self.top_p)


@dataclass(frozen=True)
class Generation:
    """What an engine made of one request.

    Attributes:
        token_ids: Generated ids without the prompt, with the end token if it was sampled.
        logps: Log-probability in nats of each of `token_ids` under
            softmax(logits / temperature), before the top-p filter; at temperature 0 that of
            softmax(logits). float32 precision.
        finish_reason: "stop" if the last token is an end token, else "length".
    """

    token_ids: list[int]
    logps: list[float]
    finish_reason: FinishReason


class WeightReceiver(abc.ABC):
    """An engine's end of a transfer of weights from learner to engine without Ray.

    In this order: `check` and `connect` once, then for each update `start`, `receive` any number of
    times, `finish`. The sender's end is `vllm.weight_sender`.
    """

    @property
    @abc.abstractmethod
    def connection(self) -> str | None:
        """Name of the sender that this engine is connected with; None if there is none."""

    @abc.abstractmethod
    def check(self, shapes: Mapping[str, Sequence[int]]) -> int:
        """Check names and shapes of all weights to come; returns how many processes receive.

        Raises:
            ValueError: If they do not fit.
        """

    @abc.abstractmethod
    def connect(self, connection: str, init_info: dict[str, Any]) -> None:
        """Meet a sender; returns when both are there."""

    @abc.abstractmethod
    def start(self) -> None:
        """Get ready for new weights."""

    @abc.abstractmethod
    def receive(self, update_info: dict[str, Any]) -> None:
        """Take weights while the sender sends them."""

    @abc.abstractmethod
    def finish(self, version: int) -> None:
        """Use the new weights from now on; `version` is their number."""


class Engine(abc.ABC):
    """Generates with one causal language model whose weights are replaced during training.

    Args:
        model_config: The model's configuration.
        eos_token_ids: Ids that end a sequence, at least one.

    Raises:
        ValueError: If there is no end token, or one is outside the vocabulary.
    """

    def __init__(self, model_config: "PretrainedConfig", eos_token_ids: Sequence[int]) -> None:
        text_config = model_config.get_text_config(decoder=True)
        self._vocab_size: int = text_config.vocab_size
        self._max_positions: int | None = getattr(text_config, "max_position_embeddings", None)
        check_eos_token_ids(eos_token_ids, self._vocab_size)
        self._eos_token_ids = frozenset(eos_token_ids)
        self._weights_version: int | None = None

    @property
    def weights_version(self) -> int | None:
        """Version given with the newest `load_weights`; None before the first."""
        return self._weights_version

    def _check_requests(self, requests: Sequence[GenerationRequest]) -> None:
        """Check that there are weights, and that all requests fit the model.

        Raises:
            ValueError: If a request does not fit.
            RuntimeError: If no weights were loaded.
        """
        if self._weights_version is None:
            raise RuntimeError("The engine has no weights yet. Call `load_weights` first.")
        for request in requests:
            check_request(request, self._vocab_size, self._max_positions)

    @abc.abstractmethod
    def load_weights(self, state_dict: Mapping[str, torch.Tensor], version: int) -> None:
        """Copy a Hugging Face state dict into the model.

        Raises:
            ValueError: If names or shapes do not fit; then the engine is unchanged.
        """

    @property
    def weight_receiver(self) -> WeightReceiver:
        """Takes weights directly from a learner, instead of by `load_weights`.

        Raises:
            NotImplementedError: If this engine has none.
        """
        raise NotImplementedError(f"{type(self).__name__} takes weights by `load_weights` only.")

    def sleep(self) -> None:  # noqa: B027
        """Give memory to others until the next weights come; the old ones are gone.

        For an engine that shares its GPU with a learner. Those that cannot sleep stay as they are.
        """

    @abc.abstractmethod
    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Generate one sequence per request.

        Args:
            requests: Any number of requests, in any order.

        Returns:
            One generation per request, in the order of `requests`.

        Raises:
            ValueError: If a request does not fit the model.
            RuntimeError: If no weights were loaded; an `EngineBrokenError` if the engine is broken.
        """

    def generate_stream(
        self, requests: Sequence[GenerationRequest]
    ) -> Iterator[tuple[int, Generation]]:
        """Generate one sequence per request, and give each away when it is finished.

        An engine that finishes sequences at different times overrides this; by default all come at
        the end. `generate` must not be called before the last one was taken, or the iterator
        closed, which drops the sequences that are not finished.

        Args:
            requests: As of `generate`.

        Yields:
            Index in `requests`, and what `generate` returns for that request; each index once.

        Raises:
            ValueError: If a request does not fit the model.
            RuntimeError: If no weights were loaded.
        """
        yield from enumerate(self.generate(requests))

    @abc.abstractmethod
    def close(self) -> None:
        """Free the model; the engine cannot be used afterwards."""


def check_token_ids(name: str, token_ids: Sequence[int], vocab_size: int) -> None:
    """Check that ids are inside the model's vocabulary.

    Raises:
        ValueError: Naming the first id outside [0, vocab_size).
    """
    for token_id in (min(token_ids), max(token_ids)):
        if not 0 <= token_id < vocab_size:
            raise ValueError(
                f"`{name}` holds id {token_id}; the model's vocabulary has ids 0 to "
                f"{vocab_size - 1}. Do tokenizer and model belong together?"
            )


def check_eos_token_ids(eos_token_ids: Sequence[int], vocab_size: int) -> None:
    """Check the ids that end a sequence.

    Raises:
        ValueError: If there is none, or one is outside the vocabulary.
    """
    if len(eos_token_ids) == 0:
        raise ValueError(
            "`eos_token_ids` must hold at least one id, got none: no sequence could end. "
            "Use the tokenizer's `eos_token_id`."
        )
    check_token_ids("eos_token_ids", eos_token_ids, vocab_size)


def check_request(request: GenerationRequest, vocab_size: int, max_positions: int | None) -> None:
    """Check that a request fits a model.

    Args:
        request: What to generate.
        vocab_size: Number of the model's tokens.
        max_positions: The model's `max_position_embeddings`; None if it has no such limit.

    Raises:
        ValueError: For ids outside the vocabulary, or more tokens than positions.
    """
    check_token_ids("prompt_ids", request.prompt_ids, vocab_size)
    num_tokens = len(request.prompt_ids) + request.max_new_tokens
    if max_positions is not None and num_tokens > max_positions:
        raise ValueError(
            f"A prompt of {len(request.prompt_ids)} tokens plus `max_new_tokens` "
            f"({request.max_new_tokens}) makes {num_tokens} positions; the model's "
            f"`max_position_embeddings` is {max_positions}. Shorten the prompt or "
            "lower `max_new_tokens`."
        )
