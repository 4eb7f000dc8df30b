"""Engines sleep during updates, where the settings say so."""

import pytest

from tests.algorithm_runs import numbers_of

pytest_plugins = ("tests.algorithm_fixtures",)

SLEEPING = {"engine": "vllm", "engine_config": {"enable_sleep_mode": True}, "num_env_runners": 1}


@pytest.mark.integration
def test_engines_sleep_from_the_last_rollout_to_the_next_weights(local_algo, monkeypatch):
    events = []

    def noted(owner, name):
        plain = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: events.append(name) or plain(*a, **k))

    noted(local_algo.env_runner, "sample_and_get_metrics")
    noted(local_algo.env_runner, "sleep")
    noted(local_algo.env_runner, "set_state")
    noted(local_algo.learner_group, "update")
    numbers_of(local_algo.train())
    assert "sleep" not in events
    events.clear()
    monkeypatch.setattr(type(local_algo.config), "engines_sleep", True)
    local_algo.train()
    steps = ["sample_and_get_metrics", "sleep", "update", "set_state"]
    assert [event for event in events if event in steps][:4] == steps
    assert events.count("sleep") == 1


def test_the_option_of_vllm_is_the_switch(make_config):
    assert not make_config().engines_sleep
    assert make_config().env_runners(**SLEEPING).engines_sleep


def test_sleeping_engines_cannot_sample_ahead(make_config):
    config = make_config(max_weight_staleness=1).env_runners(**SLEEPING)
    with pytest.raises(ValueError, match=r"`max_weight_staleness=1`.*`enable_sleep_mode=True` sl"):
        config.validate()
