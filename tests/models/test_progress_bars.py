"""Models load and are written without the bars of transformers; the user's setting comes back."""

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from prefix_rft_rllib.models.causal_lm import load_lm
from prefix_rft_rllib.models.export import save_pretrained
from prefix_rft_rllib.models.progress_bars import no_progress_bars
from prefix_rft_rllib.models.state_arrays import state_to_arrays
from prefix_rft_rllib.models.trained_weights import trained_weights


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """Bars are on, as in a fresh process, and again after the test."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", None)
    logging.enable_progress_bar()
    yield
    logging.enable_progress_bar()


def test_loading_and_writing_a_model_prints_nothing(tiny_model_dir, tmp_path, capsys):
    AutoModelForCausalLM.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "control")
    written = capsys.readouterr().err
    assert "Loading weights" in written
    assert "Writing model shards" in written
    lm = load_lm(tiny_model_dir)
    weights = trained_weights(lm, None, seed=0)
    weights.save_pretrained(tmp_path / "module", dict(lm.state_dict()))
    state = state_to_arrays(lm.state_dict())
    save_pretrained(tiny_model_dir, state, tiny_model_dir, (2,), tmp_path / "out")
    assert capsys.readouterr().err == ""
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert "Loading weights" in capsys.readouterr().err


def test_the_users_setting_is_back_after_an_error():
    @no_progress_bars()
    def fail() -> None:
        assert not logging.is_progress_bar_enabled()
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert logging.is_progress_bar_enabled()
    assert not are_progress_bars_disabled()


def test_bars_that_the_user_switched_off_stay_off():
    logging.disable_progress_bar()
    with no_progress_bars():
        assert not logging.is_progress_bar_enabled()
    assert not logging.is_progress_bar_enabled()
    enable_progress_bars()
    logging.enable_progress_bar()
    disable_progress_bars()  # those of the hub alone
    with no_progress_bars():
        pass
    assert logging.is_progress_bar_enabled()
    assert are_progress_bars_disabled()


def test_the_environment_variable_of_the_hub_decides(monkeypatch, recwarn):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", False)
    with no_progress_bars():
        assert logging.is_progress_bar_enabled()
    assert not recwarn
