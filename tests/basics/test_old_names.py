"""Old import paths give the modules of the present ones, with a note."""

import copy
import importlib
import importlib.util
import inspect
import pickle
import pkgutil
import re
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import pytest
from ray import cloudpickle

from prefix_rft_rllib.basics import old_names

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


RENAMED = [
    (module, old, new) for module, names in old_names.RENAMED.items() for old, new in names.items()
]


@pytest.mark.parametrize(("module", "old", "new"), RENAMED)
def test_old_names_are_the_present_ones(module, old, new):
    present = old_names.MOVED.get(module, module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = getattr(importlib.import_module(module), old)
    # `MathVerifier.shared` is a new bound method each time, so that names are compared by `==`.
    place = new if ":" in new else f"{present}:{new}"
    assert found == pkgutil.resolve_name(place)


@pytest.mark.parametrize(
    ("module", "old", "new"), [row for row in RENAMED if row[0] not in old_names.MOVED]
)
def test_old_names_in_modules_that_stayed_say_the_present_ones(module, old, new):
    module = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=f"is called `{new}` now") as warned:
        getattr(module, old)
    assert warned[0].filename == __file__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        module.Nothing  # noqa: B018


def names_before():
    """By module of version 0.1, the public names that it defined."""
    for line in Path(__file__).with_name("names_of_version_0_1.txt").read_text().splitlines():
        module, _, names = line.partition(":")
        yield f"{old_names.PACKAGE}.{module}".rstrip("."), names.split()


# Helpers of modules that nobody but the package used; the CHANGELOG has them.
GONE = {
    ("core.shares", "check_at_least"),
    ("core.shares", "check_coefficient"),
    ("core.state_arrays", "memory_of"),
    ("core.surrogates", "check_bound"),
    ("envs.prompt_settings", "check_prompt_settings"),
    ("envs.prompt_settings", "checked_extra_fields"),
    ("methods.tables", "table_of"),
    ("rllib_settings", "UNUSED_BY_HELD_OUT"),
    ("rollout_sampling", "end_env_runners"),
    ("rollout_sampling", "sample_rollouts"),
    ("samplers", "SAMPLERS"),
}
GONE_MODULES = {"envs.verifiers.one_per_config"}


def test_every_public_name_of_the_version_before_is_found():
    missing = set()
    for module, names in names_before():
        inner = module.removeprefix(f"{old_names.PACKAGE}.")
        if inner in GONE_MODULES or (inner in NEEDS_VLLM and not HAS_VLLM):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            loaded = importlib.import_module(module)
            missing |= {(inner, name) for name in names if not hasattr(loaded, name)}
    assert missing == GONE


def test_the_changelog_has_what_is_gone():
    text = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
    for name in {name for _, name in GONE} | {m.rpartition(".")[2] for m in GONE_MODULES}:
        assert f"`{name}`" in text, name


def load(old, monkeypatch):
    """The module at an old import path, imported anew."""
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match="has moved"):
        return importlib.import_module(old)


def test_what_is_set_in_an_old_module_is_set_in_the_present_one(monkeypatch):
    from prefix_rft_rllib.basics import shares

    load("prefix_rft_rllib.core.shares", monkeypatch)
    floor_share = shares.floor_share
    with mock.patch("prefix_rft_rllib.core.shares.floor_share", return_value=7):
        assert shares.floor_share(0.5, 2) == 7
    assert shares.floor_share is floor_share
    assert shares.floor_share(0.5, 2) == 1


def test_star_imports_and_lists_of_names_see_old_and_present_ones(monkeypatch):
    old = load("prefix_rft_rllib.feedback", monkeypatch)
    names = {}
    exec("from prefix_rft_rllib.feedback import *", names)
    assert names["Feedback"] is names["CarriedOver"]
    assert {"Feedback", "CarriedOver"} <= set(dir(old))
    assert not [name for name in names if name.startswith("_") and name != "__builtins__"]


def test_a_function_that_uses_an_old_module_travels(monkeypatch):
    old = load("prefix_rft_rllib.core.shares", monkeypatch)
    names = {"shares": old, "__name__": "__main__"}  # what is defined in a script travels by value
    exec("def half(count): return shares.floor_share(0.5, count)", names)
    assert cloudpickle.loads(cloudpickle.dumps(names["half"]))(7) == 3
    assert copy.deepcopy(old) is old


def test_inspect_finds_the_present_module_by_its_file(monkeypatch):
    load("prefix_rft_rllib.core.shares", monkeypatch)
    from prefix_rft_rllib.basics import shares

    assert inspect.getmodule(shares.floor_share.__code__) is shares
    assert inspect.getsource(importlib.import_module("prefix_rft_rllib.core.shares")).startswith(
        '"""Shares in [0, 1]'
    )


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
