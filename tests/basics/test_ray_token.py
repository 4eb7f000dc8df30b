"""Ray's token without a home directory."""

import os
from pathlib import Path

import pytest

from prefix_rft_rllib.basics import ray_token


@pytest.fixture
def environment(monkeypatch, tmp_path) -> Path:
    """No settings for Ray's token; gives the home directory."""
    for name in ray_token.USER_SETTINGS:
        monkeypatch.setenv(name, "known to monkeypatch, which takes back what the product sets")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("place", ["file", "file/home", "/proc/no_home", "/dev/null"])
def test_a_home_that_cannot_be_written_gets_a_token_in_the_environment(
    place, environment, monkeypatch
):
    (environment / "file").touch()
    monkeypatch.setenv("HOME", str(environment / place))
    ray_token.provide_token()
    first = os.environ["RAY_AUTH_TOKEN"]
    assert len(first) == 64
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    ray_token.provide_token()
    assert os.environ["RAY_AUTH_TOKEN"] != first


@pytest.mark.parametrize("home", [".", "not/made/yet"])
def test_a_home_that_can_be_written_stays_as_it_is(home, environment, monkeypatch):
    monkeypatch.setenv("HOME", str(environment / home))
    ray_token.provide_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert not list(environment.iterdir())


@pytest.mark.parametrize("name", ray_token.USER_SETTINGS)
def test_what_the_user_says_about_tokens_or_cluster_stands(name, environment, monkeypatch):
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setenv(name, "mine")
    ray_token.provide_token()
    assert os.environ[name] == "mine"
    assert [n for n in ray_token.USER_SETTINGS if n in os.environ] == [name]


def test_a_token_file_in_a_read_only_home_is_enough(environment, monkeypatch):
    (environment / ".ray").mkdir()
    (environment / ".ray" / "auth_token").write_text("saved")
    monkeypatch.setattr(ray_token, "can_write", lambda folder: False)
    ray_token.provide_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
