import pytest
import torch

from prefix_rft_rllib.core.tokens import (
    TRAINABLE_REGIONS,
    Region,
    next_token_targets,
    pad_rows,
    shift_to_targets,
)
from tests.token_batches import make_columns


def test_masks_follow_the_picture_token_by_token():
    columns = make_columns(["xxpprr", "xdd"], [1.0, 0.0])
    assert columns.is_prefix.int().tolist() == [[0, 0, 1, 1, 0, 0], [0] * 6]
    assert columns.is_response.int().tolist() == [[0, 0, 0, 0, 1, 1], [0] * 6]
    assert columns.is_demonstration.int().tolist() == [[0] * 6, [0, 1, 1, 0, 0, 0]]
    assert columns.is_padding.int().tolist() == [[0] * 6, [0, 0, 0, 1, 1, 1]]
    for name, mask in [
        ("prefix", columns.is_prefix),
        ("response", columns.is_response),
        ("demonstration", columns.is_demonstration),
    ]:
        assert torch.equal(columns.in_region(name), mask)


def test_prompt_and_padding_are_in_no_trainable_region():
    assert set(TRAINABLE_REGIONS.values()) == set(Region) - {Region.PROMPT, Region.PADDING}


@pytest.mark.parametrize(
    "indices", [torch.tensor([2, 0]), torch.tensor([True, False, True]), slice(1, 3)]
)
def test_rows_takes_the_same_rows_of_every_column(indices):
    columns = make_columns(["xpr", "xrr", "xd"], [1.0, -1.0, 0.0])
    some = columns.rows(indices)
    expected = torch.arange(3)[indices].tolist()
    assert some.row_index.tolist() == expected
    assert some.num_rows == len(expected)
    for name in ("input_ids", "region", "advantage", "row_key", "is_member", "old_logp", "entropy"):
        assert torch.equal(getattr(some, name), getattr(columns, name)[expected])
    assert torch.equal(some.engine_logp.isnan(), columns.engine_logp[expected].isnan())


def test_columns_before_the_old_policy_pass_can_be_cut_and_moved():
    columns = make_columns(["xpr", "xrr"], [1.0, -1.0])
    early = type(columns)(
        **{
            **{name: getattr(columns, name) for name in columns.__dataclass_fields__},
            "old_logp": None,
            "entropy": None,
        }
    )
    some = early.rows(slice(0, 1)).to("cpu")
    assert some.old_logp is None
    assert some.entropy is None
    assert some.num_rows == 1


def test_columns_of_different_shapes_are_refused():
    columns = make_columns(["xpr"], [1.0])
    with pytest.raises(AssertionError, match="entropy"):
        type(columns)(**{**columns._columns(), "entropy": torch.zeros(1, 4)})


def test_pad_rows_pads_on_the_right():
    padded = pad_rows([[1, 2, 3], [4]], pad_value=-1, dtype=torch.int64)
    assert padded.tolist() == [[1, 2, 3], [4, -1, -1]]
    assert pad_rows([[1.5]], pad_value=0, dtype=torch.float32, num_positions=3).tolist() == [
        [1.5, 0, 0]
    ]
    assert pad_rows([], pad_value=0, dtype=torch.int8).shape == (0, 0)


def test_pad_rows_keeps_63_bit_keys_exactly():
    key = 2**62 + 1
    assert pad_rows([[key]], pad_value=0, dtype=torch.int64).item() == key


def test_pad_rows_refuses_to_truncate():
    with pytest.raises(ValueError, match=r"`num_positions` \(2\) is shorter"):
        pad_rows([[1, 2, 3]], pad_value=0, dtype=torch.int64, num_positions=2)


def test_a_prediction_lands_at_the_token_it_is_about():
    # A "model" whose logits at a position predict (position's token + 1).
    input_ids = torch.tensor([[3, 4, 5, 9]])
    predicted = input_ids[:, :-1] + 1
    is_right = (predicted == next_token_targets(input_ids)).float()
    # Tokens 4 and 5 follow the rule, 9 does not; nothing predicts the first token.
    assert shift_to_targets(is_right).tolist() == [[0, 1, 1, 0]]
