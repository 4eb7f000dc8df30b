"""Options of sampling that training cannot have, and why."""

from collections.abc import Iterable, Mapping

_FILTERS = (
    "it takes tokens out of the distribution, other ones after every update: the loss compares "
    "log-probabilities of the whole distribution, softmax(logits / temperature), under the old and "
    "the new policy, and the ratio of a token that only one of them keeps does not exist. Sharpen "
    "with config.env_runners(temperature=...) instead"
)
_PENALTIES = (
    "it changes the logits by what was written before, so responses would come from another "
    "distribution than the one whose log-probabilities are trained; the trained model would be "
    "another without it"
)
_FORBIDDEN = (
    "it forces or forbids tokens, so responses would come from another distribution than the one "
    "whose log-probabilities are trained"
)
_STOPS = (
    "a response ends with an end token, which is sampled and trained like every other; a text may "
    "end inside a token, and the model would never learn to stop. Name tokens in "
    "env_config['eos_token_ids'], or lower env_config['max_response_tokens']"
)
_SEARCH = "every rollout is one sample: set config.training(group_size=...) for more of them"
_LENGTHS = "set env_config['max_response_tokens']"
_TEMPERATURES = (
    "sampling or not follows from the temperature: config.env_runners(temperature=...); greedy "
    "attempts are part of every evaluation of held-out problems"
)

_REASONS = {
    _FILTERS: (
        "top_k min_p top_a top_h typical_p epsilon_cutoff eta_cutoff xtc_probability xtc_threshold"
    ),
    _PENALTIES: (
        "repetition_penalty presence_penalty frequency_penalty encoder_repetition_penalty "
        "no_repeat_ngram_size encoder_no_repeat_ngram_size diversity_penalty length_penalty "
        "exponential_decay_length_penalty repetition_detection guidance_scale dry_multiplier"
    ),
    _FORBIDDEN: (
        "logit_bias bad_words bad_words_ids suppress_tokens begin_suppress_tokens min_tokens "
        "min_length min_new_tokens forced_bos_token_id forced_eos_token_id allowed_token_ids "
        "sequence_bias logits_processor logits_processors guided_decoding structured_outputs "
        "force_words_ids watermarking_config thinking_token_budget"
    ),
    _STOPS: "stop stop_strings stop_words stop_sequences stop_token_ids ignore_eos max_time",
    _SEARCH: "n best_of num_return_sequences num_beams num_beam_groups use_beam_search",
    _LENGTHS: "max_tokens max_new_tokens max_length",
    _TEMPERATURES: "do_sample",
}
REFUSED = {name: reason for reason, names in _REASONS.items() for name in names.split()}
"""Options of transformers' and vLLM's sampling that no setting takes, and why."""

_ELSEWHERE = dict.fromkeys(
    ("temperature", "top_p"), "use config.env_runners(temperature=..., top_p=...)"
)
_NEUTRAL_IS_1 = (
    *("temperature", "top_p", "typical_p", "repetition_penalty", "encoder_repetition_penalty"),
    *("guidance_scale", "length_penalty", "num_beams", "num_return_sequences", "num_beam_groups"),
    "do_sample",
)


def refuse_sampling_options(
    names: Iterable[str], where: str, refused: Mapping[str, str] = REFUSED
) -> None:
    """Refuse options of sampling under which log-probabilities would not be right.

    Args:
        names: Names that a user has given.
        where: The place that they were given at, for the error.
        refused: Reasons by name.

    Raises:
        ValueError: For the first such name, with the reason and what to do instead.
    """
    for name in names:
        if name in refused:
            raise ValueError(f"`{name}` cannot be set in {where}: {refused[name]}.")


def refuse_here(names: Iterable[str], where: str = "engine_config") -> None:
    """Refuse options of sampling at a place that takes none, temperature and top_p neither.

    Raises:
        ValueError: See `refuse_sampling_options`.
    """
    refuse_sampling_options(names, where, {**REFUSED, **_ELSEWHERE})


def unused_settings(generation_settings: Mapping[str, object]) -> dict[str, object]:
    """Find what a model's own generation settings say about sampling.

    Args:
        generation_settings: The content of `generation_config.json`.

    Returns:
        Those that would change how tokens are drawn; rollouts follow none of them.
    """
    names = {*REFUSED, *_ELSEWHERE} - {"max_length", "max_new_tokens", "max_tokens"}
    return {
        name: value
        for name, value in generation_settings.items()
        if name in names
        and value not in (None, 0, [], {})
        and not (name in _NEUTRAL_IS_1 and value == 1)
    }
