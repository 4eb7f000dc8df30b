import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.engines import GenerationRequest
from prefix_rft_rllib.engines.transformers.batching import plan_batches, unique_prompts

_REQUESTS = st.lists(
    st.builds(
        GenerationRequest,
        prompt_ids=st.lists(st.integers(0, 2), min_size=1, max_size=6),
        max_new_tokens=st.integers(1, 8),
    ),
    max_size=20,
)


@given(requests=_REQUESTS, size=st.integers(1, 6), tokens=st.integers(14, 60))
@settings(max_examples=100, deadline=None)
def test_batches_hold_every_request_once_within_the_limits(requests, size, tokens):
    batches = plan_batches(requests, size, tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(requests)))
    for batch in batches:
        assert 1 <= len(batch) <= size
        longest_prompt = max(len(requests[index].prompt_ids) for index in batch)
        longest_new = max(requests[index].max_new_tokens for index in batch)
        assert len(batch) * (longest_prompt + longest_new) <= tokens


def test_batches_are_sorted_by_length_with_equal_prompts_together():
    prompts = [[9, 9, 9], [1], [2, 2], [1], [9, 9, 9], [8]]
    requests = [GenerationRequest(prompt, 4) for prompt in prompts]
    assert plan_batches(requests, 3, 1000) == [[1, 3, 5], [2, 0, 4]]


def test_a_request_above_the_token_limit_is_an_error():
    with pytest.raises(ValueError, match=r"`max_batch_tokens` \(10\).*request 1"):
        plan_batches([GenerationRequest([1], 4), GenerationRequest([1] * 5, 6)], 4, 10)


def test_unique_prompts_keep_the_order_of_appearance():
    requests = [GenerationRequest(prompt, 1) for prompt in ([5, 6], (7,), (5, 6), [7], [8])]
    assert unique_prompts(requests) == ([[5, 6], [7], [8]], [0, 1, 0, 1, 2])
