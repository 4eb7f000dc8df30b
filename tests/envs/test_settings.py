import pytest

from prefix_rft_rllib.envs.settings import EnvSettings
from tests.envs.problem_data import error_of, load
from tests.envs.small_tokenizers import save_byte_level_bpe


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_tokens": 1}, "Unknown env_config key 'max_tokens'. Known keys: data, tokenizer"),
        ({"data": None}, "env_config['data'] is missing"),
        ({"data": 3}, "must be a path, a dataset name"),
        ({"data": []}, "empty list"),
        ({"data": {"path": "x"}}, 'Allowed: "data" (needed)'),
        ({"data": ["a", "b"], "data_config": {"seed": 1}}, "not clear which source"),
        ({"data_config": [1]}, "must be a dict of keyword arguments"),
        ({"data_config": {"seed": 1}}, "has no meaning for the file"),
        ({"tokenizer": None}, "env_config['tokenizer'] is missing"),
        ({"tokenizer": "/no/such/dir"}, "'/no/such/dir') is not a directory"),
        ({"tokenizer": "no/model"}, "neither a directory here nor a model in the local"),
        ({"max_prompt_tokens": 0}, "at least 1, got 0"),
        ({"max_response_tokens": 8192.0}, "whole number of at least 1, got 8192.0"),
        ({"max_response_tokens": True}, "whole number"),
        ({"max_response_tokens": None}, "whole number"),
        ({"vocab_size": "many"}, "'vocab_size'] must be a whole number"),
        ({"held_out_fraction": 20}, "in [0, 1), got 20. It is a share, not a percentage: use 0.2"),
        ({"held_out_fraction": 1}, "in [0, 1), got 1"),
        ({"held_out_fraction": "0.2"}, "in [0, 1), got '0.2'"),
        ({"held_out_data": "x.jsonl"}, "must be a dict of names to sources"),
        ({"held_out_data": {"train": "x.jsonl"}}, "has the name 'train'"),
        ({"held_out_data": {"aime/24": "x.jsonl"}}, "has the name 'aime/24'"),
        ({"held_out_data": {"held_out": "x"}, "held_out_fraction": 0.1}, "Rename it"),
        ({"filters": ["too_long"]}, "Unknown filter 'too_long'. Known filters: prompt_too_long"),
        ({"filters": "prompt_too_long"}, "must be a list of names"),
        ({"fields": {"question": "q"}}, "It maps our field names"),
        ({"rewards": {"RIGHT": 1.0}}, "unknown verdict 'RIGHT'. Verdicts: CORRECT, WRONG"),
        ({"rewards": {"WRONG": float("inf")}}, "finite number, got inf"),
        ({"rewards": {"WRONG": "-1"}}, "finite number, got '-1'"),
        ({"rewards": 1.0}, "must be a dict"),
        ({"verifier": 3}, "must be a text"),
        ({"verifier": "mathematics"}, "mathematics"),
        ({"system_prompt": 3}, "must be a text"),
        ({"system_prompt": "a\ud83d"}, "half of a surrogate pair"),
        ({"prompt_template": "\udfff{prompt}"}, "half of a surrogate pair"),
        ({"prompt_template": "Solve:"}, "does not contain {prompt}"),
        (
            {"chat_template": "chatml"},
            "must be True or False, or None to use the tokenizer's if it has one, got",
        ),
        ({"cut_prefix_before_answer": None}, "True or False, got None"),
        (
            {"verifier": "math", "verifier_config": {"extract": "last"}},
            "cut_prefix_before_answer=False or extract='boxed'",
        ),
        ({"verifier": "math", "verifier_config": {"speed": 1}}, "speed"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(config, changes, expected):
    def build():
        return load(config, **changes).grader

    with pytest.raises(ValueError) as caught:
        build()
    assert expected in str(caught.value)


def test_settings_can_be_checked_without_reading_anything():
    settings = EnvSettings.from_config({"data": "later.jsonl", "tokenizer": "later"})
    assert (settings.max_prompt_tokens, settings.max_response_tokens) == (1024, 8192)
    assert settings.rewards == {"CORRECT": 1.0}


def test_a_tokenizer_without_end_token_is_an_error(config, tmp_path):
    directory = save_byte_level_bpe(tmp_path / "endless", end=None)
    assert "has no end token" in error_of(config, tokenizer=directory)


def test_a_directory_without_tokenizer_is_an_error(config, tmp_path):
    assert "holds no tokenizer" in error_of(config, tokenizer=str(tmp_path))


def test_an_unknown_problem_id_shows_what_ids_look_like(config):
    with pytest.raises(ValueError, match=r"no problem with the id 'z'.*'a', 'b', 'c'"):
        load(config).by_id("z")
