"""Which requests are generated together."""

from collections.abc import Sequence

from prefix_rft_rllib.engines.engine import GenerationRequest


def plan_batches(
    requests: Sequence[GenerationRequest], max_batch_size: int, max_batch_tokens: int
) -> list[list[int]]:
    """Split requests into batches of similar prompt lengths, equal prompts side by side.

    Args:
        requests: What to generate.
        max_batch_size: Most rows in a batch.
        max_batch_tokens: Most token places a batch may need at its end: rows, times its longest
            prompt plus its largest `max_new_tokens`.

    Returns:
        Batches of indices into `requests`; every index occurs once.

    Raises:
        ValueError: If a single request needs more than `max_batch_tokens`.
    """

    def sort_key(index: int) -> tuple[int, Sequence[int], int]:
        prompt = requests[index].prompt_ids
        return len(prompt), tuple(prompt), index

    batches: list[list[int]] = []
    longest_prompt = longest_new = 0
    for index in sorted(range(len(requests)), key=sort_key):
        num_prompt, num_new = len(requests[index].prompt_ids), requests[index].max_new_tokens
        if num_prompt + num_new > max_batch_tokens:
            raise ValueError(
                f"`max_batch_tokens` ({max_batch_tokens}) is too small for request {index}: its "
                f"prompt of {num_prompt} tokens plus `max_new_tokens` of {num_new} make "
                f"{num_prompt + num_new}. Raise `max_batch_tokens`."
            )
        longest_prompt, longest_new = max(longest_prompt, num_prompt), max(longest_new, num_new)
        num_rows = len(batches[-1]) + 1 if batches else 1
        is_full = num_rows > max_batch_size or (
            num_rows * (longest_prompt + longest_new) > max_batch_tokens
        )
        if not batches or is_full:
            batches.append([])
            longest_prompt, longest_new = num_prompt, num_new
        batches[-1].append(index)
    return batches


def unique_prompts(
    requests: Sequence[GenerationRequest],
) -> tuple[list[list[int]], list[int]]:
    """Return the different prompts in order of appearance, and each request's place among them."""
    places: dict[tuple[int, ...], int] = {}
    prompt_of_row = [places.setdefault(tuple(r.prompt_ids), len(places)) for r in requests]
    return [list(prompt) for prompt in places], prompt_of_row
