r"""lm-evaluation-harness on this project's engines, as its model "prefix_rft".

    python -m prefix_rft_rllib.evaluation.lm_eval_adapter run --model prefix_rft \
        --model_args pretrained=DIR --tasks gsm8k

is the command `lm_eval` with that model registered; every other argument is its own. In a program,
importing this module registers it. Needs the extra `lm-eval` (docs/evaluation.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from tqdm import tqdm

from prefix_rft_rllib.basics.hub_models import model_directory
from prefix_rft_rllib.basics.random_draws import stable_hash
from prefix_rft_rllib.basics.ranges import whole
from prefix_rft_rllib.engines import Engine, GenerationRequest, build_engine
from prefix_rft_rllib.envs.prompts.end_tokens import EndTokens, declared_end_ids, end_tokens
from prefix_rft_rllib.envs.prompts.prompting import decode_response, load_tokenizer
from prefix_rft_rllib.models.causal_lm import load_lm

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
except ImportError as error:
    raise ImportError(
        f"lm-evaluation-harness cannot be imported ({error}). Install it: "
        "pip install 'prefix_rft_rllib[lm-eval]'."
    ) from error

KNOWN_SETTINGS = ("until", "max_gen_toks", "do_sample", "temperature", "top_p")
"""Settings of generation, under lm-eval's names, that an engine can follow."""

COMMANDS_DEVICE = ("device", "cuda:0")
"""The device that lm-eval's command names where nobody does, on machines without GPU too."""


class EngineLM(TemplateLM):
    """A model of lm-eval that answers with an engine; it generates and does not score.

    The engine generates up to an end token or `max_gen_toks`, and stop strings are cut off
    afterwards. Sampling draws are a function of `seed`, context and the number of the repeat.

    Args:
        engine: With weights.
        tokenizer: The model's; lm-eval applies its chat template if `apply_chat_template` is set.
        ends: The engine's end tokens.
        batch_size: Requests that the engine gets at a time; "auto": all, and it plans the batches.
        max_gen_toks: Most tokens of an answer where a task does not say.
        seed: Of sampling.

    Raises:
        ValueError: If a setting is outside its range.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Any,
        ends: EndTokens,
        *,
        batch_size: int | str = "auto",
        max_gen_toks: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__()
        whole(1).check("max_gen_toks", max_gen_toks)
        whole(0).check("seed", seed)
        self.engine = engine
        self.tokenizer = tokenizer
        self.max_gen_toks = max_gen_toks
        self._ends = ends
        self._batch_size = _batch_size(batch_size)
        self._seed = seed
        added = tokenizer.added_tokens_decoder
        self._special_ids = {token.content: i for i, token in added.items() if token.special}

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._ends.of_turn

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval calls the tokenizer in the names of its caches."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Encode a text as lm-eval's own models do.

        Args:
            string: The text.
            add_special_tokens: Whether the tokenizer adds what it adds by itself; None: unless the
                text begins with the begin token already.
            **kwargs: None is known.

        Returns:
            Token ids.
        """
        if add_special_tokens is None:
            begin = self.tokenizer.bos_token
            add_special_tokens = begin is None or not string.startswith(begin)
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens, **kwargs)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Write messages as the tokenizer's chat template does.

        Args:
            chat_history: Messages with `role` and `content`.
            add_generation_prompt: False: the last message, an assistant's, is to be continued.

        Returns:
            The prompt.
        """
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer requests.

        Args:
            requests: Each with the arguments (context, settings of generation).
            disable_tqdm: Whether to show no progress.

        Returns:
            The answers in the order of the requests: without end tokens and special tokens, and
            without what comes from the first stop string on.

        Raises:
            ValueError: If a setting is unknown, or a prompt does not fit the model. Nothing is
                truncated.
        """
        asked = list(self._generation_requests(requests))
        # The longest come first, so that one that does not fit fails at once.
        order = sorted(range(len(asked)), key=lambda i: -_num_positions(asked[i][0]))
        answers = [""] * len(asked)
        with tqdm(total=len(asked), disable=disable_tqdm, unit="answer") as bar:
            size = self._batch_size or max(1, len(order))
            for batch in (order[i : i + size] for i in range(0, len(order), size)):
                generations = self.engine.generate([asked[i][0] for i in batch])
                for i, generation in zip(batch, generations, strict=True):
                    answers[i] = self._text(generation.token_ids, asked[i][1])
                    self.cache_hook.add_partial("generate_until", requests[i].args, answers[i])
                bar.update(len(batch))
        return answers

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Refuse: see `loglikelihood_rolling`."""
        _refuse_scoring()

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Refuse to score given text.

        Raises:
            NotImplementedError: Always.
        """
        _refuse_scoring()

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        _refuse_scoring()

    def _generation_requests(
        self, requests: Sequence[Instance]
    ) -> Iterator[tuple[GenerationRequest, list[str]]]:
        """Each request as the engine reads it, with its stop strings."""
        num_seen: Counter[str] = Counter()
        for request in requests:
            context, given = request.args
            settings = normalize_gen_kwargs(given, self.max_gen_toks)
            for name in settings:
                if name not in KNOWN_SETTINGS:
                    raise ValueError(
                        f"The task's `generation_kwargs` have {name!r}, which no engine follows. "
                        f"Known settings: {', '.join(KNOWN_SETTINGS)}. Overwrite the task's "
                        "`generation_kwargs` without it."
                    )
            draw = stable_hash("lm_eval", self._seed, context, num_seen[context])
            num_seen[context] += 1
            asked = GenerationRequest(
                prompt_ids=self.tok_encode(context),
                max_new_tokens=settings["max_gen_toks"],
                temperature=settings.get("temperature", 0.0),
                top_p=settings.get("top_p", 1.0),
                seed=draw,
            )
            yield asked, settings["until"]

    def _text(self, token_ids: Sequence[int], until: Sequence[str]) -> str:
        """What is before the first stop string."""
        # A stop string that is a special token would be left out of the decoded text.
        stops = {self._special_ids[text] for text in until if text in self._special_ids}
        kept = list(takewhile(lambda i: i not in stops, self._ends.without(token_ids)))
        text = decode_response(self.tokenizer, kept)
        return postprocess_generated_text(text, list(until), think_end_token=None)


@register_model("prefix_rft")
class PrefixRFTLM(EngineLM):
    """A model in Hugging Face form on an engine, under lm-eval's name "prefix_rft".

    Args:
        pretrained: A directory that `save_pretrained` wrote, or a name of the hub, "org/name" or
            "org/name@revision".
        tokenizer: Another tokenizer than the model's own.
        engine: "transformers" or "vllm".
        batch_size: As of `EngineLM`; lm-eval's command sets it to 1 where none is given.
        max_gen_toks: As of `EngineLM`.
        **engine_config: Options of the engine, such as `dtype` and `device`. The device "cuda:0",
            which lm-eval's command names where nobody does, leaves the choice to the engine: a GPU
            if there is one.

    Raises:
        ValueError: If the model, the tokenizer or a setting is wrong.
        ImportError: If the engine's library is not installed.
    """

    def __init__(
        self,
        pretrained: str,
        tokenizer: str | None = None,
        engine: str = "transformers",
        batch_size: int | str = "auto",
        max_gen_toks: int = 256,
        **engine_config: Any,
    ) -> None:
        setting = "`pretrained`"
        directory = model_directory(pretrained, setting)
        loaded = load_tokenizer(tokenizer or directory)
        lm = load_lm(directory)
        vocab_size = lm.config.get_text_config(decoder=True).vocab_size
        ends = end_tokens(loaded, "", declared_end_ids(directory), vocab_size)
        options = {k: v for k, v in engine_config.items() if (k, v) != COMMANDS_DEVICE}
        built = build_engine(engine, lm.config, eos_token_ids=ends.ids, **options)
        built.load_weights(lm.state_dict(), version=0)
        super().__init__(built, loaded, ends, batch_size=batch_size, max_gen_toks=max_gen_toks)


def _batch_size(value: int | str) -> int:
    """Requests at a time; 0 for all."""
    if value == "auto":
        return 0
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    whole(1).advising("Use 'auto' for all at once.").check("batch_size", number)
    return int(number)


def _num_positions(request: GenerationRequest) -> int:
    return len(request.prompt_ids) + request.max_new_tokens


def _refuse_scoring() -> NoReturn:
    raise NotImplementedError(
        "The task asks for log-likelihoods of given text (multiple choice or perplexity). Engines "
        "generate and do not score: measure it with lm-eval's own model, `--model hf "
        "--model_args pretrained=DIR` with the directory that `save_pretrained` wrote."
    )


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
