"""Multiple choice: what states an option, what does not, and what it takes to read it."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.envs.verifiers import (
    ChoiceVerifier,
    Graded,
    Verdict,
    load_verifier,
)
from prefix_rft_rllib.envs.verifiers.choice_options import read_options

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
PROMPT = "Which is a capital?\n(A) Paris Hilton\n(B) London\n(C) A train station\n(D) 3\nAnswer:"
LETTERS = "ABCD"


def letter(response: str, prompt: str = "", **config) -> str:
    """The letter that a response chooses, "" for none."""
    return ChoiceVerifier(**config).verify(response, "A", prompt).letter


STATED = [
    "X",
    "(X)",
    "X.",
    "X)",
    "**X**",
    "**(X)**",
    "*X*",
    "`X`",
    "[X]",
    "x",
    "(X) Lisbon",
    "X. Lisbon",
    "X) Lisbon",
    "**X. Lisbon**",
    "- **X**",
    "Answer: X",
    "Answer: (X) Lisbon",
    "**Answer:** X",
    "**Answer: X**",
    "### Answer\nX",
    "Final answer:\n\n(X)",
    "A: X",
    "Q: Which one?\nA: (X) Lisbon",
    "ANSWER - X",
    "answer = X",
    "Answer (X).",
    "The answer is X",
    "The answer is X.",
    "The answer is **X**.",
    'The answer is "X".',
    "The answer is \u201cX\u201d, I think.",
    "The answer is $X$.",
    "The answer is \\(X\\).",
    "The answer is $\\text{X}$.",
    "The answer is: **(X) Lisbon**, which lies by the sea.",
    "The answer is X because of the sea.",
    "The answer is therefore option X.",
    "The answer to the question is (X).",
    "The most likely answer is X, since it fits.",
    "The correct option is X",
    "The best choice would be (X).",
    "The correct one is (X).",
    "The answer is Lisbon (X).",
    "X is the correct answer.",
    "Option X is the right choice.",
    "Hence, option X is correct.",
    "I choose X.",
    "I would go with option (X).",
    "It must be X.",
    "It's not (C), so it's X.",
    "Therefore, (X).",
    "So X.",
    "<think>It may be C.</think>\nX",
    "<think>\nThe answer is C.\n</think>\n<answer>X</answer>",
    "<answer>(X) Lisbon</answer>",
    r"\boxed{X}",
    r"$\boxed{\text{X}}$",
    r"\boxed{(X)}",
    r"\boxed{\textbf{(X)}\ 5}",
    r"\boxed{\text{X) Lisbon}}",
    r"\boxed{\text{Option X}}",
    r"\boxed{x}",
    r"\boxed X",
    "The answer is C. No, wait: the answer is X.",
    r"x = \boxed{42}, so the answer is (X).",
    "The length is \\boxed{42}.\n\n(X)",
    "The final answer is $\\boxed{X}$. I hope it is correct.",
    "答案是X",
    "答案\uff1aX。",
    "答案是\uff08X\uff09。",
    "X。 不是 C",
    "X不是 C",
    "La réponse est X non C",
    "La respuesta es X.",
    "Die Antwort ist (X).",
]


@pytest.mark.parametrize("form", STATED)
def test_an_option_is_read_in_each_of_the_usual_forms(form):
    for name in LETTERS:
        written = form.replace("X", name).replace("x}", f"{name.lower()}}}")
        written = name.lower() if form == "x" else written
        if name == "C" and "C" in form:
            continue
        assert letter(written) == name, written


PROSE = [
    "X train leaves the station at five.",
    "Answer: X train leaves the station at five.",
    "The answer is X train that leaves.",
    "X man walks in.",
    "Vitamin X is needed, and hepatitis X is a disease.",
    "Option X is wrong, because it lies inland.",
    "Option (X) is wrong.",
    "Answer X is wrong.",
    "So (X) is wrong.",
    "The answer is not X.",
    "The answer isn't (X).",
    "The answer is not Lisbon (X).",
    "If X is the answer, then C is not.",
    "Neither C nor X is the correct answer.",
    "Let X = 5.",
    "So X = 5",
    "The answer is X = 5 cm.",
    "Consider the triangle with the corners C, D and X.",
    "He got an X for it.",
    "It is X-shaped. The answer is X-level.",
    "The answer is the ratio of (X) to the rest",
    "The answer is X+",
    "Plan X was good",
    "$X$ is an infinite sequence with the first term 2.",
]


@pytest.mark.parametrize("form", PROSE)
def test_a_letter_in_prose_is_no_choice(form):
    for name in ("A", "B", "I"):
        assert letter(form.replace("X", name)) == "", form.replace("X", name)


@pytest.mark.parametrize(
    "response",
    [
        "",
        " \n ",
        "I think so.",
        "A and B",
        "A, B and C",
        "The answer is A or B.",
        "The answer is (A) and (B).",
        "Answer: A, B, C, D",
        "Answer: (A) (B) (C) (D)",
        r"\boxed{A, B}",
        r"\boxed{A \text{ or } B}",
        r"\boxed{AB}",
        r"\boxed{42}",
        r"\boxed{A train}",
        r"The answer is (B), which is \boxed{42}",
        r"The answer is (B): \boxed{}",
        "A. Paris is large.\nB. London is old.\nC. Rome is far.",
        "The answer is K.",
        "It is 5 * 82 = 410.\nA: 410",
    ],
)
def test_none_or_several_options_earn_nothing(response):
    for gold in LETTERS:
        result = ChoiceVerifier().verify(response, gold)
        assert (result.verdict, result.letter) == (Verdict.UNPARSEABLE, "")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("B London", "B"),
        ("Answer: A Paris Hilton", "A"),
        ("C. A train station", "C"),
        ("Answer: C A train station, of course", "C"),
        (r"\boxed{London}", "B"),
        (r"\boxed{\text{a train  station}}", "C"),
        (r"\boxed{3}", "D"),
        ("<answer>Paris Hilton</answer>", "A"),
        (r"\boxed{B London}", "B"),
        # The letter of one option with the text of another states neither.
        (r"\boxed{A London}", ""),
        ("The answer is (A) London.", ""),
        # Letters that the problem does not have.
        ("The answer is (E).", ""),
        # Initials of names are no labels of options.
        ("C. elegans is a worm that biologists like", ""),
        ("A. Lincoln was a president", ""),
        (r"\boxed{Rome}", ""),
        ("A train station is no capital", ""),
    ],
)
def test_options_of_the_prompt_bound_the_letters_and_stand_for_them(response, expected):
    assert letter(response, PROMPT) == expected


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        (PROMPT, {"A": "Paris Hilton", "B": "London", "C": "A train station", "D": "3"}),
        ("1+1? (A) 1 (B) 2 (C) 3", {"A": "1", "B": "2", "C": "3"}),
        ("Q\nA. x y\nB. z\n\nQ: two\nA) p\nB) q\nC) r", {"A": "p", "B": "q", "C": "r"}),
        ("Q\n**A:** x\n**B:** y", {"A": "x", "B": "y"}),
        (r"$\textbf{(A)}\ 2 \qquad \textbf{(B)}\ 3$", {"A": "2", "B": "3$"}),
        (
            "A. Lincoln was a president. Who was B. Franklin?",
            {"A": "Lincoln was a president. Who was", "B": "Franklin?"},
        ),
        ("No options here. (A) one only", {}),
        ("", {}),
    ],
)
def test_options_are_read_from_the_prompt(prompt, options):
    assert read_options(prompt) == options


@pytest.mark.parametrize(
    "gold",
    [
        "B",
        "(B)",
        "B.",
        "(B) London",
        "B London",
        "b",
        r"\text{(B)}",
        "London",
        "the answer is\nB x",
    ],
)
def test_gold_answers_are_letters_with_or_without_text_and_option_texts(gold):
    verifier = ChoiceVerifier()
    assert verifier.verify("The answer is B.", gold, PROMPT).verdict is Verdict.CORRECT
    assert verifier.verify("The answer is D.", gold, PROMPT).verdict is Verdict.WRONG
    assert verifier.verify("Who knows", gold, PROMPT).verdict is Verdict.UNPARSEABLE
    assert verifier.verify(rf"\boxed{{{gold}}}", gold, PROMPT).verdict is Verdict.CORRECT


@pytest.mark.parametrize("gold", ["", "7", "Rome", "E", "A or B", "?"])
def test_a_gold_answer_that_names_no_option_is_an_error_and_no_wrong(gold):
    verifier = ChoiceVerifier()
    assert verifier.verify("The answer is B.", gold, PROMPT).verdict is Verdict.ERROR
    # Alone in a box it is refused, as the check of the data does it.
    assert verifier.verify(rf"\boxed{{{gold}}}", gold, PROMPT).verdict is Verdict.UNPARSEABLE


def test_boxed_extraction_reads_the_last_box_only():
    assert letter(r"The answer is (B). \boxed{C} Answer: D", extract="boxed") == "C"
    assert letter("The answer is (B).", extract="boxed") == ""
    assert letter("The answer is (K).", letters="JKL") == "K"


@pytest.mark.parametrize("name", ["choice", "domain"])
def test_choice_is_known_by_name_and_says_which_letter_it_read(name):
    problem = SimpleNamespace(answer="B", prompt=PROMPT, domain="choice")
    verify = load_verifier(name)
    assert verify("I choose B.", problem) == Graded(Verdict.CORRECT, {"choice": "B"})
    assert verify("Answer: D) 3", problem) == Graded(Verdict.WRONG, {"choice": "D"})
    assert verify("no idea", problem) == Graded(Verdict.UNPARSEABLE, {})
    assert ChoiceVerifier.shared(letters="AB") is ChoiceVerifier.shared(letters="AB")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"letters": "ABBA"}, "`letters` must be two or more distinct capital letters.*got 'ABBA'"),
        ({"letters": "abc"}, "got 'abc'"),
        ({"letters": 4}, "got 4"),
        ({"extract": "last"}, r"`extract` must be one of 'stated', 'boxed', got 'last'"),
        ({"timeout_s": 1}, r"unknown setting\(s\) \['timeout_s'\] of ChoiceVerifier"),
    ],
)
def test_a_wrong_setting_is_a_clear_error(config, message):
    with pytest.raises(ValueError, match=message):
        load_verifier("choice", config)


def test_a_text_is_needed():
    with pytest.raises(ValueError, match="`response` must be a string, got NoneType"):
        ChoiceVerifier().verify(None, "A")


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("AaBI (){}[]*_`$\\.,:;'\"=-\n<>/答案是é"), max_size=80))
@example("A\\")
@example("A\\\\")
def test_any_text_gets_a_verdict_and_blanks_around_it_change_nothing(text):
    verifier = ChoiceVerifier()
    result = verifier.verify(text, "A")
    assert verifier.verify(f"\n {text} \n", "A") == result
    assert (result.letter == "") == (result.verdict is Verdict.UNPARSEABLE)
    assert (result.letter == "A") == (result.verdict is Verdict.CORRECT)


@pytest.mark.parametrize(
    "piece",
    ["answer ", "the answer is ", "(", "*", "_", "`", "$ ", "\\text{", "A, ", "it's ", "\n", " ",
     "<answer>", "\\boxed{", "So ", "(A) ", "A.\n", "option A is ", "most likely ", "> ", '"', "{"],
)  # fmt: skip
def test_the_time_grows_with_the_length_and_no_faster(piece):
    def seconds(length: int) -> float:
        text = "answer is " + piece * (length // len(piece)) + "A"
        times = []
        for _ in range(3):  # the least: other work on the machine only adds
            begin = time.process_time()
            ChoiceVerifier().verify(text, "A", text)
            times.append(time.process_time() - begin)
        return min(times)

    # Sixteen times the length: sixteen times the time if linear, 256 times if quadratic.
    assert seconds(64_000) < 64 * max(seconds(4_000), 0.005)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the shared data in {DATA}")
def test_every_labelled_choice_is_met():
    lines = (DATA / "verifier_cases.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    rows = [row for row in rows if row["kind"] == "choice"]
    verifier = ChoiceVerifier()
    verdicts = [verifier.verify(row["response"], row["gold"]).verdict for row in rows]
    assert len(rows) == 11
    assert [v is Verdict.CORRECT for v in verdicts] == [row["expected"] for row in rows]
    # Against another letter none of them is right.
    others = [verifier.verify(row["response"], "J").verdict for row in rows]
    assert set(others) == {Verdict.WRONG}
