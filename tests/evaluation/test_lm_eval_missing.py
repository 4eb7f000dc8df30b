"""The adapter where lm-evaluation-harness is not installed."""

import importlib
import sys

import pytest


def test_what_to_install_is_said_where_it_is_missing(monkeypatch):
    monkeypatch.delitem(sys.modules, "prefix_rft_rllib.evaluation.lm_eval_adapter", raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.api.instance", None)
    with pytest.raises(ImportError, match=r"pip install 'prefix_rft_rllib\[lm-eval\]'"):
        importlib.import_module("prefix_rft_rllib.evaluation.lm_eval_adapter")
