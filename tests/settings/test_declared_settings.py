"""Setters, docstrings, checks, the record of a run and the page say what the declarations say."""

import inspect
import re
from pathlib import Path

import pytest
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.basics.declarations import NEEDED, declarations
from prefix_rft_rllib.envs.settings import ENV_DECLARATIONS, EnvSettings
from prefix_rft_rllib.settings.page import main, settings_page
from prefix_rft_rllib.settings.settings import DECLARATIONS, SETTERS, Settings
from tests.small_configs import config, error_of

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "settings.md").read_text(encoding="utf-8")
OF_RLLIB = set(vars(AlgorithmConfig()))


def arguments_of(docstring: str) -> dict[str, str]:
    """Names and texts of the section Args of a docstring, without line breaks."""
    section = docstring.split("Args:\n")[1].split("\n\n")[0]
    entries = re.split(r"^    (?=\S)", section, flags=re.MULTILINE)[1:]
    pairs = (" ".join(entry.split()).split(": ", 1) for entry in entries)
    return {name: text for name, text in pairs if name != "**kwargs"}


@pytest.mark.parametrize("setter", SETTERS)
def test_a_setter_has_the_declared_settings_as_keywords_and_describes_them(setter):
    own = [item for item in declarations(SETTERS[setter]) if item.name not in OF_RLLIB]
    function = getattr(PrefixRFTConfig, setter)
    if not own:
        assert setter not in vars(PrefixRFTConfig)
        return
    parameters = inspect.signature(function).parameters.values()
    keywords = {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert list(keywords) == [item.name for item in own]
    described = arguments_of(inspect.getdoc(function))
    assert described == {item.name: item.description for item in own}
    annotations = inspect.get_annotations(SETTERS[setter])
    for name, parameter in keywords.items():
        given = str(parameter.annotation).replace("collections.abc.Mapping", "dict")
        given = given.replace("typing.Mapping", "dict")
        assert given == str(annotations[name]), name


def test_the_settings_of_rllib_that_are_declared_are_keywords_of_its_setters():
    for setter, group in SETTERS.items():
        keywords = inspect.signature(getattr(AlgorithmConfig, setter)).parameters
        inherited = [d.name for d in declarations(group) if d.name in OF_RLLIB]
        assert [name for name in inherited if name not in keywords] == []


def test_every_own_attribute_is_declared():
    own = set(vars(Settings())) - OF_RLLIB
    assert own == set(DECLARATIONS) - OF_RLLIB
    assert len(own) == 46


def test_defaults_are_the_declared_ones_plain_attributes_and_copies():
    first, second = PrefixRFTConfig(), PrefixRFTConfig()
    for name, declaration in DECLARATIONS.items():
        assert vars(first)[name] == declaration.default, name
    assert first.method_config is not second.method_config
    first.engine_config["max_batch_size"] = 2
    assert PrefixRFTConfig().engine_config == DECLARATIONS["engine_config"].default == {}


@pytest.mark.parametrize("name", DECLARATIONS)
def test_every_setting_is_checked_by_its_range(name):
    allowed = DECLARATIONS[name].allowed
    assert allowed.contains(DECLARATIONS[name].default)
    strange = object()
    assert not allowed.contains(strange)
    settings = config()
    settings.env_runners(num_env_runners=0)
    setattr(settings, name, strange)
    assert f"`{name}` must be {allowed.allowed}, got {strange!r}." in error_of(settings)


@pytest.mark.parametrize("key", [item.name for item in ENV_DECLARATIONS])
def test_every_key_of_env_config_is_checked_by_its_range(key):
    allowed = next(item.allowed for item in ENV_DECLARATIONS if item.name == key)
    strange = object()
    with pytest.raises(ValueError) as caught:
        EnvSettings.from_config({"data": "a", "tokenizer": "b", key: strange})
    assert f"env_config[{key!r}] must be {allowed.allowed}, got {strange!r}." in str(caught.value)


@pytest.mark.parametrize("item", ENV_DECLARATIONS, ids=lambda item: item.name)
def test_the_defaults_of_env_config_are_allowed(item):
    assert item.default is NEEDED or item.allowed.contains(item.default)


def test_every_setting_says_what_it_is_and_when_to_change_it():
    for item in (*DECLARATIONS.values(), *ENV_DECLARATIONS):
        assert item.meaning.endswith("."), item.name
        assert not item.change or item.change.endswith("."), item.name
    silent = {item.name for item in DECLARATIONS.values() if not item.change}
    assert silent == {"grad_clip_by"}


def test_the_record_of_a_run_has_all_settings_and_the_defaults_of_the_environment():
    settings = config(clip_param=0.3)
    record = settings.record()
    assert list(record)[: len(DECLARATIONS)] == list(DECLARATIONS)
    assert set(record) == set(settings.to_dict())
    assert (record["clip_param"], record["lr"]) == (0.3, 1e-2)
    assert record["env_config"]["max_response_tokens"] == 48
    assert record["env_config"]["cut_prefix_before_answer"] is True
    assert record["env_config"]["tokenizer"] == "model_directory"
    assert "cut_prefix_before_answer" not in settings.env_config


def test_the_committed_page_is_the_generated_one(capsys):
    assert settings_page() == PAGE, "run `make docs`"
    main()
    assert capsys.readouterr().out == PAGE


def test_the_page_has_a_line_for_every_setting():
    for item in (*DECLARATIONS.values(), *ENV_DECLARATIONS):
        lines = [line for line in PAGE.splitlines() if line.startswith(f"| `{item.name}` |")]
        assert len(lines) == 1
        default = "needed" if item.default is NEEDED else f"`{item.default!r}`"
        assert lines[0].startswith(f"| `{item.name}` | {default} | ")
        assert lines[0].count(" | ") == 5


def test_links_of_the_page_lead_somewhere():
    targets = re.findall(r"\]\((?!https)([^)#]*)#?([^)]*)\)", PAGE)
    assert len(targets) > 10
    for target, anchor in targets:
        text = (DOCS / target).read_text(encoding="utf-8")
        heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", head).replace(" ", "-").lower() for head in heads}
        assert not anchor or anchor in anchors, (target, anchor)
