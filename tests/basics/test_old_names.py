"""Old import paths give the modules of the present ones, with a note."""

import importlib
import importlib.util
import pickle
import re
import subprocess
import sys
import warnings

import pytest

from prefix_rft_rllib.basics import old_names
from prefix_rft_rllib.core import prefix_sampling, token_selection

NEEDS_VLLM = {"engines.vllm_worker", "engines.vllm_weight_sender"}
HAS_VLLM = importlib.util.find_spec("vllm") is not None


@pytest.mark.parametrize("old", sorted(old_names.MOVED))
def test_an_old_path_gives_the_module_of_the_new_one(old, monkeypatch):
    if old.removeprefix("prefix_rft_rllib.") in NEEDS_VLLM and not HAS_VLLM:
        pytest.skip("vllm is not installed")
    monkeypatch.delitem(sys.modules, old, raising=False)
    new = old_names.MOVED[old]
    with pytest.warns(DeprecationWarning, match=f"`{old}` has moved to `{new}`") as warned:
        module = importlib.import_module(old)
    assert len([w for w in warned if old in str(w.message)]) == 1
    present = importlib.import_module(new)
    public = [name for name in vars(present) if not name.startswith("__")]
    assert public
    assert all(getattr(module, name) is getattr(present, name) for name in public)


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (module, old, new)
        for module, names in old_names.RENAMED.items()
        for old, new in names.items()
    ],
)
def test_old_names_in_old_modules_are_the_present_ones(module, old, new):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old_module = importlib.import_module(module)
    present = importlib.import_module(old_names.MOVED[module])
    assert getattr(old_module, old) is getattr(present, new)


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [(prefix_sampling, "Rollout", "PlannedRollout"), (token_selection, "Pool", "Collectives")],
)
def test_old_names_in_modules_that_stayed(module, old, new):
    with pytest.warns(DeprecationWarning, match=f"is called `{new}` now") as warned:
        assert getattr(module, old) is getattr(module, new)
    assert warned[0].filename == __file__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        module.Nothing  # noqa: B018


def test_unknown_names_of_old_modules_and_of_the_package_are_errors():
    import prefix_rft_rllib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old = importlib.import_module("prefix_rft_rllib.rollout_log")
    with pytest.raises(AttributeError, match="nothing_of_it"):
        old.nothing_of_it  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'nothing_of_it'"):
        prefix_rft_rllib.nothing_of_it  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match="nothing_of_it"):
        importlib.import_module("prefix_rft_rllib.nothing_of_it")


def test_a_function_that_has_the_name_of_an_old_module_can_still_be_called(monkeypatch):
    from prefix_rft_rllib import envs

    function = envs.answer_cut
    monkeypatch.setattr(envs, "answer_cut", function)  # put back afterwards
    monkeypatch.delitem(sys.modules, "prefix_rft_rllib.envs.answer_cut", raising=False)
    with pytest.warns(DeprecationWarning, match="has moved"):
        importlib.import_module("prefix_rft_rllib.envs.answer_cut")
    with pytest.raises(TypeError) as caught:
        envs.answer_cut()
    with pytest.raises(TypeError, match=re.escape(str(caught.value))):
        function()


def test_pickles_that_name_old_modules_load():
    # Protocol 0 is text: a pickle of the class as an older version named it.
    old = b"cprefix_rft_rllib.feedback\nFeedback\n."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert pickle.loads(old).__name__ == "CarriedOver"


SCRIPT = """
import warnings
warnings.simplefilter("error", DeprecationWarning)
import prefix_rft_rllib
try:
    import prefix_rft_rllib.run_directory
except DeprecationWarning as warning:
    assert "has moved" in str(warning)
else:
    raise SystemExit("no warning")
warnings.simplefilter("default", DeprecationWarning)
import prefix_rft_rllib.run_directory
"""


def test_the_note_names_the_line_that_imports():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("<string>:12: DeprecationWarning"), done.stderr
