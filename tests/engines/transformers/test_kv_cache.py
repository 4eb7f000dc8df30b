import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from prefix_rft_rllib.engines.transformers.kv_cache import GrowingLayer, growing_cache
from tests.engines.models import CONFIGS


def _states(num_rows, num_tokens):
    return torch.randn(num_rows, 2, num_tokens, 3), torch.randn(num_rows, 2, num_tokens, 3)


def test_growing_layer_holds_what_a_concatenating_layer_holds():
    torch.manual_seed(0)
    growing, plain = GrowingLayer(), DynamicLayer()
    num_rows = 3
    steps = [torch.tensor([0, 1, 1, 2, 0]), torch.tensor([0, 4, 2]), torch.tensor([2, 1])]
    for rows in [None, *steps]:
        if rows is not None:
            for layer in (growing, plain):
                layer.batch_select_indices(rows)
            num_rows = len(rows)
        for num_tokens in [5, *[1] * 150]:  # beyond the spare room, more than once
            states = _states(num_rows, num_tokens)
            for ours, theirs in zip(growing.update(*states), plain.update(*states), strict=True):
                assert torch.equal(ours, theirs)
        assert growing.get_seq_length() == plain.get_seq_length()
        assert growing.get_mask_sizes(1) == plain.get_mask_sizes(1)


def test_sliding_window_layers_stay_as_transformers_builds_them():
    cache = growing_cache(CONFIGS["mistral_sliding_window"])
    assert all(type(layer) is DynamicSlidingWindowLayer for layer in cache.layers)


def test_full_attention_layers_grow_in_place():
    cache = growing_cache(CONFIGS["llama"])
    assert isinstance(cache, DynamicCache)
    assert [type(layer) for layer in cache.layers] == [GrowingLayer, GrowingLayer]


def test_a_new_token_does_not_copy_the_old_ones():
    layer = GrowingLayer()
    keys, _ = layer.update(*_states(2, 4))
    more_keys, _ = layer.update(*_states(2, 1))
    assert keys.data_ptr() == more_keys.data_ptr()
