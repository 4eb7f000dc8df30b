"""The page of methods is written from the code, and the page of pieces names every piece."""

import dataclasses
import inspect
import re
import statistics
from pathlib import Path

import pytest
import torch

from prefix_rft_rllib import methods
from prefix_rft_rllib.core.adaptive_schedule import Adaptive
from prefix_rft_rllib.core.advantages import GroupAdvantage
from prefix_rft_rllib.core.coefficients import Coefficient
from prefix_rft_rllib.core.demonstration_rows import DemonstrationRows
from prefix_rft_rllib.core.prefix_sampling import PrefixSampler
from prefix_rft_rllib.core.prefix_schedules import Schedule
from prefix_rft_rllib.core.surrogates import Surrogate
from prefix_rft_rllib.core.token_selection import Keep
from prefix_rft_rllib.core.token_values import Value
from prefix_rft_rllib.core.token_weights import Rule, Scale, prepare_weights, token_values
from prefix_rft_rllib.core.tokens import TRAINABLE_REGIONS
from prefix_rft_rllib.methods import METHODS, PAPER_ROWS, ImitationStep, Stage, build, rft
from prefix_rft_rllib.methods.neighbours import UNFITTING
from prefix_rft_rllib.methods.page import documentation_of, main, methods_page
from tests.token_batches import make_columns

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "methods.md").read_text(encoding="utf-8")
BASES = (
    Coefficient,
    DemonstrationRows,
    GroupAdvantage,
    Keep,
    PrefixSampler,
    Scale,
    Schedule,
    Surrogate,
    Value,
)


def section_of(page: str, heading: str) -> str:
    return page.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def rows_of(text: str) -> list[tuple[str, ...]]:
    """The cells of the lines of a table, without heads."""
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    return [tuple(re.split(r"(?<!\\) \| ", line)) for line in lines][1:]


def pieces_of(base: type) -> set[str]:
    """Names of the package's classes below a base class that are no base classes themselves."""
    below = [cls for cls in base.__subclasses__() if cls.__module__.startswith("prefix_rft_rllib.")]
    names = {cls.__name__ for cls in below if not inspect.isabstract(cls)}
    return {name for name in names if name[0] != "_"}.union(*map(pieces_of, below))


def test_the_committed_page_is_the_generated_one():
    assert methods_page() == PAGE, "run `make docs`"


def test_the_command_prints_the_page(capsys):
    main()
    assert capsys.readouterr().out == PAGE


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_page_shows_each_method_and_all_its_settings(name):
    section = section_of(PAGE, f"`{name}`")
    assert f"```text\n{build(name)}\n```" in section
    assert re.search(r"^Source: .*\.$", section, re.MULTILINE)
    parameters = inspect.signature(METHODS[name]).parameters
    defaults = [(f"`{key}`", f"`{p.default!r}`") for key, p in parameters.items()]
    rows = rows_of(section)
    assert [row[:2] for row in rows] == defaults
    assert all(re.fullmatch(r"\S.{10,}\.", meaning) for *_, meaning in rows)
    assert ("No settings." in section) == (not rows)


def test_the_overview_lists_each_method_once():
    rows = rows_of(section_of(PAGE, "Overview"))
    assert [row[0] for row in rows] == [f"[`{name}`](#{name})" for name in METHODS]
    summaries = [inspect.getdoc(function).splitlines()[0] for function in METHODS.values()]
    assert [row[1] for row in rows] == summaries
    assert "https://arxiv.org/abs/2507.01679" in rows[0][2]


def test_the_ablations_of_the_paper_can_be_built():
    rows = rows_of(section_of(PAGE, "The ablations of the paper"))
    assert [row[0] for row in rows] == list(PAPER_ROWS)
    for row, (name, settings) in PAPER_ROWS.items():
        assert build(name, settings).name == name
        assert (row, f"`{name}`", f"`{settings}`" if settings else "") in rows


def test_optimizers_of_methods_with_several_are_named():
    assert "own: `stage_1`, `stage_2`." in section_of(PAGE, "`sft_rft`")
    assert "own: `default_optimizer`, `imitation`." in section_of(PAGE, "`relift`")
    assert "Objectives" not in section_of(PAGE, "`prefix_rft`")


def made(docstring: str):
    """A method's function of one setting with some docstring."""

    def steady(*, pace: float = 0.5):
        return rft()

    steady.__doc__ = docstring
    return steady


GOOD = """Go on.

    Slowly, on
    two lines.

    Source: this project.

    Args:
        pace: How fast, or
            how slow: a | b.

    Returns:
        The method.
    """


def test_a_docstring_becomes_a_section():
    text = documentation_of(made(GOOD))
    assert text.summary == "Go on."
    assert text.description == ("Slowly, on two lines.",)
    assert text.source == "this project."
    assert text.settings == {"pace": "How fast, or how slow: a | b."}
    section = section_of(methods_page({"steady": made(GOOD)}), "`steady`")
    assert rows_of(section) == [("`pace`", "`0.5`", r"How fast, or how slow: a \| b.")]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Source: this project.", "", "'steady' has 0 paragraphs 'Source: ...'"),
        ("Slowly, on", "Source: x.", "'steady' has 2 paragraphs"),
        ("pace: How fast, or", "", "'pace' of method 'steady' is not described"),
        ("pace: How fast, or", "speed: How fast, or", "'pace' of method 'steady' is not described"),
        ("Args:", "Attributes:", "'pace' of method 'steady' is not described"),
        ("how slow", "slow.\n        size: How large", "describes 'size'.* Settings: pace"),
    ],
)
def test_a_method_without_source_or_with_other_settings_is_an_error(old, new, message):
    assert GOOD.count(old) == 1
    with pytest.raises(ValueError, match=message):
        methods_page({"steady": made(GOOD.replace(old, new))})


def test_a_method_without_docstring_is_an_error():
    with pytest.raises(ValueError, match="'steady'"):
        documentation_of(made(None))


def test_the_page_of_pieces_names_every_piece():
    text = (DOCS / "pieces.md").read_text(encoding="utf-8")
    classes = [Rule, Stage, ImitationStep, Adaptive]
    names = {cls.__name__ for cls in classes}.union(*map(pieces_of, BASES))
    assert {"CosineLow", "PolicyShaped", "OneRowPerGroup", "TopEntropy", "GroupMeanStd"} < names
    missing = sorted(name for name in names if not re.search(rf"`{name}\(", text))
    assert not missing, "docs/pieces.md does not name them"
    for region in TRAINABLE_REGIONS:
        assert f"`{region}`" in text


def test_methods_give_every_piece_and_its_base_class():
    names = {base.__name__ for base in BASES}.union(*map(pieces_of, BASES)) | {"Rule", "Adaptive"}
    assert names <= set(methods.__all__)
    for name in methods.__all__:
        assert hasattr(methods, name), name
    for base in BASES:
        assert getattr(methods, base.__name__) is base


@pytest.mark.parametrize("name", ["methods.md", "pieces.md"])
def test_links_between_pages_lead_somewhere(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]*)(#[^)]*)?\)", text)
    assert len(targets) > 3
    for target, anchor in targets:
        if target.startswith("https://"):
            continue
        page = DOCS / target if target else DOCS / name
        assert page.exists(), target
        heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", head).replace(" ", "-").lower() for head in heads}
        assert not anchor or anchor[1:] in anchors, (target, anchor)


NEIGHBOURS = section_of(PAGE, "Neighbouring methods")


def made_neighbours() -> dict:
    """What the page's example makes, with the names that it uses."""
    code = re.search(r"^```python\n(.*?)^```$", NEIGHBOURS, re.MULTILINE | re.DOTALL).group(1)
    names = {"dataclasses": dataclasses, "statistics": statistics, "methods": methods}
    pieces = {name: getattr(methods, name) for name in methods.__all__}
    namespace = {"__name__": "example", **names, **pieces}
    exec(code, namespace)
    return namespace


def test_the_neighbours_made_of_pieces_are_methods():
    made = made_neighbours()
    for name in ("gspo", "cispo", "maxrl", "rl_plus"):
        made[name].check(8)
        assert made[name].name == name
    # (1 - 1/4) / (1/4) = 3, and -1 for failures; nobody solved: zeros.
    maxrl = made["maxrl"].advantage
    assert maxrl([1.0, 0.0, 0.0, 0.0], [False] * 4) == [3.0, -1.0, -1.0, -1.0]
    assert maxrl([0.0, 0.0], [False] * 2) == [0.0, 0.0]


def test_rl_plus_has_its_weight_at_the_old_policy():
    # A * 4 p / (1 + 3 p) * sqrt(1 - p), over 2 members * 10 tokens.
    method = made_neighbours()["rl_plus"]
    columns = make_columns(["xr", "xDD"], [-0.5, 0.5])
    prepared = prepare_weights(method.rules, columns, max_response_tokens=10)
    weights = prepared.weights(columns.old_logp).imitation
    p = columns.old_logp[1, 1:].double().exp()
    expected = 0.5 * 4 * p / (1 + 3 * p) * (1 - p).sqrt() / 20
    torch.testing.assert_close(weights[1, 1:].double(), expected, rtol=1e-5, atol=0)


def test_neighbours_that_do_not_fit_are_named_with_the_reason():
    rows = rows_of(NEIGHBOURS)
    assert len(rows) == len(UNFITTING)
    for names, missing in rows:
        assert "https://arxiv.org/abs/" in names
        assert "arXiv" not in re.sub(r"\[arXiv [^]]*\]", "", names), "a number without link"
        assert len(missing) > 30
    named = " ".join(names for names, _ in rows)
    for name in ("OTR", "CurioSFT", "GIFT", "HPT", "TRAPO", "ExGRPO", "QuestA", "SDFT", "iw-SFT"):
        assert name in named


def test_the_page_of_pieces_shows_a_value_that_works():
    text = (DOCS / "pieces.md").read_text(encoding="utf-8")
    code = re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL).group(1)
    namespace = {"__name__": "example", "dataclasses": dataclasses, "Value": Value}
    exec(code, namespace)
    rule = Rule(region="response", stream="imitation", value=namespace["Solved"]())
    columns = make_columns(["xr", "xrr"], [0.0, 0.0], rewards=[1.0, 0.0])
    assert token_values(rule, columns, 0).tolist() == [[1.0], [-1.0]]
