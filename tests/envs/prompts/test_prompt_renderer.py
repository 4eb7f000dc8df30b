"""Chat templates as models have them: their variables, default system messages, refusals."""

import pytest

from prefix_rft_rllib.envs.prompts.prompt_renderer import PromptRenderer, _variables
from prefix_rft_rllib.envs.prompts.prompting import load_tokenizer
from prefix_rft_rllib.envs.prompts.template_overlap import overlap_length
from prefix_rft_rllib.envs.settings import EnvSettings
from tests.envs.problem_data import error_of, load
from tests.envs.row_makers import SYSTEM, USER

TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
GENERATION = "{% if add_generation_prompt %}<assistant>{% endif %}"
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<system>You are Qwen .</system>{% endif %}"
    + TURNS
    + GENERATION
)
DATED = DEFAULT_SYSTEM.replace("You are Qwen .", "Today .").replace(
    "<{{ m.role }}>{{", "<{{ m.role }}>{% if m.role == 'system' %}Today .{% endif %}{{"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + TURNS + GENERATION
)
DROPS_SYSTEM = TURNS.replace("<{{", "{% if m.role != 'system' %}<{{").replace(
    "{% endfor", "{% endif %}{% endfor"
)
THINKING = TURNS + (
    "{% if add_generation_prompt %}<assistant>\n{% if enable_thinking is defined and not "
    "enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}"
)
ASKED = "<user>What is 2 + 3 ?</user>"


@pytest.fixture
def rendered(chat_bpe):
    def render(template, prompt="What is 2 + 3 ?", **settings):
        tokenizer = load_tokenizer(chat_bpe)
        tokenizer.chat_template = template
        plain = {"data": "x.jsonl", "tokenizer": chat_bpe, **settings}
        return PromptRenderer(tokenizer, EnvSettings.from_config(plain)).text(prompt)

    return render


@pytest.mark.parametrize(
    ("template", "settings", "expected"),
    [
        (DEFAULT_SYSTEM, {}, "<system>You are Qwen .</system>"),
        (DEFAULT_SYSTEM, {"system_prompt": ""}, "<system></system>"),
        (DEFAULT_SYSTEM, {"system_prompt": "Hm"}, "<system>Hm</system>"),
        (TURNS + GENERATION, {"system_prompt": ""}, ""),
        (DATED, {"system_prompt": ""}, "<system>Today .</system>"),
        (NO_SYSTEM, {"system_prompt": ""}, ""),
        (NO_SYSTEM, {}, ""),
    ],
)
def test_an_empty_system_prompt_leaves_the_template_s_own_out(
    rendered, template, settings, expected
):
    assert rendered(template, **settings) == f"{expected}{ASKED}<assistant>"
    own = rendered(template, [SYSTEM, USER], **settings) if template != NO_SYSTEM else "Be brief ."
    assert "Be brief ." in own
    assert "Qwen" not in own


def test_a_template_that_refuses_or_drops_a_system_message_is_an_error(rendered):
    for prompt, settings in ((("2 ?"), {"system_prompt": "Hm"}), ([SYSTEM, USER], {})):
        with pytest.raises(ValueError, match=r"refused the messages.*System role not supported"):
            rendered(NO_SYSTEM, prompt, **settings)
        with pytest.raises(ValueError, match=r"leaves out or changes the message.*'system'"):
            rendered(DROPS_SYSTEM, prompt, **settings)


def test_variables_of_the_template_are_passed_on(rendered):
    assert rendered(THINKING).endswith("<assistant>\n<think>\n")
    text = rendered(THINKING, chat_template_kwargs={"enable_thinking": False})
    assert text.endswith("<think>\n\n</think>\n\n")
    with pytest.raises(ValueError, match="'enable_thinkng', which the tokenizer's chat template"):
        rendered(THINKING, chat_template_kwargs={"enable_thinkng": False})
    with pytest.raises(ValueError, match="no meaning without a chat template"):
        rendered(THINKING, chat_template=False, chat_template_kwargs={"enable_thinking": True})


@pytest.mark.parametrize(
    ("template", "variables"),
    [
        ("{% if not day is defined %}{% set day = 'Monday' %}{% endif %}{{ day }}", {"day"}),
        ("{% set think = think | default(true) %}{{ think }}{# a mood #} a style", {"think"}),
        (
            "{% for m in mail %}{{ m.text }}{% generation %}x{% endgeneration %}{% endfor %}",
            {"mail"},
        ),
        ("{% macro f(a) %}{{ a }}{{ deep }}{% endmacro %}{{ f('word') }}", {"deep"}),
        ("{% new_tag %}{{ think }}", {"new_tag", "think"}),
    ],
)
def test_variables_of_a_template_are_those_it_reads_from_outside(template, variables):
    assert _variables(template) == variables


@pytest.mark.parametrize("name", ["content", "role", "m", "for"])
def test_a_word_of_the_template_is_no_variable(rendered, name):
    with pytest.raises(ValueError, match=f"'{name}', which the tokenizer's chat template does not"):
        rendered(THINKING, chat_template_kwargs={name: True})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"tokenize": True}, "has 'tokenize', which the environment sets itself"),
        ({"add_generation_prompt": False}, "has 'add_generation_prompt'"),
        ({"continue_final_message": True}, "has 'continue_final_message'"),
        ([1], "must be a dict of names to values"),
        ({1: 2}, "must be a dict of names to values"),
        ({"tools": [object()]}, "must be plain data"),
    ],
)
def test_wrong_variables_of_the_template_are_refused(config, value, expected):
    assert expected in error_of(config, chat_template_kwargs=value)


@pytest.mark.parametrize(
    ("prompt", "demonstration", "repeated"),
    [
        ("<a>x<assistant>\n<think>\n", "<think>\nWell", "<think>\n"),
        ("<a>x<assistant>\n<think>\n", "<think>Well", "<think>"),
        ("<a>x<assistant>\n<think>\n", "<think>\n\nWell", "<think>\n"),
        ("<a>x<assistant>\n<think>", "<think>\nWell", "<think>"),
        ("<a>x<assistant>\n<think>\n", "\n <think> Well", "\n <think>"),
        ("<think>\n\n</think>\n\n", "<think>\n\n</think>\n\nWell", "<think>\n\n</think>\n\n"),
        ("<think>\n\n</think>\n\n", "</think>\nWell", "</think>\n"),
        ("<think>\n", "<think>", "<think>"),
        ("<a><a>", "<a><a>Well", "<a><a>"),
        ("<think>\n", "Well <think>", ""),
        ("<think>\n", "<thinking> Well", ""),
        ("<think> so", "<think> so", ""),
        ("<|assistant|>\n", "<|assistant|>\nWell", "<|assistant|>\n"),
        ("Assistant:", "Assistant: Well", ""),
        ("1 < 2 and 3 > ", "2", ""),
    ],
)
def test_what_a_demonstration_repeats_of_the_prompt_s_last_tags(prompt, demonstration, repeated):
    assert demonstration[: overlap_length(prompt, demonstration)] == repeated


def test_repeated_tags_are_warned_of_or_dropped(config, write_rows, tmp_path, chat_bpe, caplog):
    tokenizer = load_tokenizer(chat_bpe)
    tokenizer.chat_template = THINKING
    tokenizer.save_pretrained(tmp_path / "thinking")
    rows = [
        {"prompt": "2 ?", "answer": "2", "demonstrations": ["<think>\nx</think>\\boxed{2}", "2"]},
        {"prompt": "3 ?", "answer": "3", "demonstration": "<think>\n"},
    ]
    changes = {
        "data": write_rows(rows, "think.jsonl"),
        "tokenizer": str(tmp_path / "thinking"),
        "max_prompt_tokens": 99,
        "max_response_tokens": 99,
    }
    problems = load(config, **changes)
    assert f"{changes['data']}:1: field 'demonstration' begins with '<think>\\n'" in caplog.text
    assert "(2 demonstrations do so)" in caplog.text
    assert "env_config['drop_template_overlap']=True" in caplog.text
    assert problems.counts["demonstrations_repeating_the_prompt"] == 2
    assert problems.train[0].demonstration_texts[0].startswith("<think>")
    caplog.clear()
    dropped = load(config, **changes, drop_template_overlap=True)
    assert dropped.train[0].demonstration_texts == ("x</think>\\boxed{2}", "2")
    assert dropped.train[1].demonstration_texts == ()
    assert dropped.counts["template_overlaps_dropped"] == 2
    assert dropped.counts["demonstrations_blank"] == 1
    assert "drop_template_overlap" not in caplog.text
