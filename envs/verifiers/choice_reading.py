r"""Which option a response chooses: the last place that states one, never a letter in prose."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prefix_rft_rllib.envs.verifiers.choice_options import clean, same_words
from prefix_rft_rllib.envs.verifiers.math_answers import final_box

_BOX = re.compile(r"\\(?:f?boxed|fbox)(?![a-zA-Z])")
_TAG = re.compile(r"<answer>([^<]*)</answer>")
_CJK = "\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef"
_WORD = "0-9A-Za-z_\u00c0-\u02af\u0370-\u052f"

_AFTER_ARTICLE = "because|since|but|due to|weil|parce|porque|puisque|therefore"
_AFTER_LETTER = (
    _AFTER_ARTICLE + "|as|so|and|not|non|nicht|no|rather|instead|which|where|by|with|if|when|from|"
    "according|based|in|on|for|that|this|it|we|the|car"
)
_NOUN = (
    "answers?|options?|choices?|(?:correct|right|best) (?:one|statement|response|alternative)|"
    "réponse|respuesta|opción|antwort|risposta|resposta|alternativa|ответ|"
    "答案|选项|選項|选择|選擇|答え|正解|정답"
)
_FILLER = (
    "correct|right|final|best|question|to|the|this|that|for|of|problem|option|choice|letter|here|"
    "therefore|thus|then|most|likely|probably|definitely|clearly|simply|indeed|correcta?e?|"
    "bonne|richtige|la|le|el"
)
_VERB = "is|was|would be|should be|must be|will be|has to be|seems to be|est|es|ist|è|é"
_LINK = rf"(?: ?(?:{_FILLER})(?![{_WORD}])){{0,8}}"
_CUES = re.compile(
    # The answer is ..., Answer: ..., A: ..., answer ...
    rf"(?P<noun>(?m:^)A(?=:)|(?<![{_WORD}])(?:{_NOUN})){_LINK}"
    rf"(?P<verb> ?(?:{_VERB})(?![{_WORD}])| ?[是为為は:=\-])?{_LINK}(?: ?[:=\-])?[ \n]?"
    # It's ..., I choose ...
    r"|(?P<it>\b(?:it(?:'s| is| must be| should be| has to be)"
    r"|I(?:'d|'ll| would| will| shall)? (?:choose|pick|select|go with|opt for)))"
    rf"(?: (?:the|correct|option|answer|choice|letter)){{0,4}} "
    # Therefore, ...
    r"|(?P<so>\b(?:therefore|thus|hence|so|donc|因此|所以)[,:]? ?)",
    re.IGNORECASE,
)
_NEGATION = re.compile(r"n't\b|\b(?:not|never|neither|nor|except|wrong|or|and)\b", re.I)
_NAMED = re.compile(r"^(?:(?:the|answer|option|choice|letter|is)\b:? ?)+", re.IGNORECASE)
_NAMES_A_THING = re.compile(r" (?!is (?:the )?(?:correct|right))(?:is|are|was|has|denotes?|be)\b")
_QUALIFIED = re.compile(
    r"\b(?:nor|neither|if|whether|or|and|than) (?:option |choice |answer )?$", re.I
)


@dataclass(frozen=True)
class Choice:
    """What a place in a text states.

    Attributes:
        letter: The option's letter; "" if several are named, or none that there is.
        words: The stated words, as `same_words` leaves them.
    """

    letter: str
    words: str = ""


class ChoiceReader:
    """Reads choices among some letters.

    Args:
        letters: The letters that options may have.
        options: Option texts by letter, as far as they are known; empty: they are not.
    """

    def __init__(self, letters: str, options: Mapping[str, str]):
        self._options = {letter: same_words(text) for letter, text in options.items()}
        self._patterns = _patterns(letters)

    def read(self, response: str) -> Choice | None:
        """Return what a response states last; None if it states no choice at all."""
        text = clean(response)
        if re.fullmatch("[a-z][.)]?", text):
            text = text.upper()
        stated = max(self._statements(text), key=lambda item: item[0], default=None)
        return self._first_or_last_line(text) if stated is None else stated[1]

    def read_whole(self, text: str) -> Choice:
        """Read a text that is nothing but an answer, such as the content of a box."""
        content = clean(text).strip("$ ")
        words = same_words(content)
        letters = [letter for letter, option in self._options.items() if option == words]
        if len(letters) == 1:
            return Choice(letters[0], words)
        content = _NAMED.sub("", content)
        if re.fullmatch(r"\(?[a-z]\)?", content):
            content = content.upper()
        return Choice(self._letter_at(content, 0) or "", words)

    def read_gold(self, answer: str) -> Choice:
        """Read a gold answer: a letter, maybe with its text, or the text of an option."""
        choice = self.read_whole(answer)
        if choice.letter:
            return choice
        text, found = clean(answer), set()
        for match in self._patterns.gold.finditer(text):
            several = self._patterns.further.match(text, match.end())
            found.add("" if several else match[1] or match[2])
        return Choice(found.pop() if len(found) == 1 else "", choice.words)

    def read_box(self, response: str) -> Choice | None:
        """Return what a response's last box states; None if there is no box with any content."""
        content = final_box(clean(response))
        return None if content is None else self.read_whole(content)

    def _statements(self, text: str) -> Iterator[tuple[int, Choice]]:
        """Yield the places that state an answer, with what they state."""
        if boxes := list(_BOX.finditer(text)):
            yield boxes[-1].start(), self.read_box(text) or Choice("")
        if tags := list(_TAG.finditer(text)):
            yield tags[-1].start(), self.read_whole(tags[-1][1])
        for cue in _CUES.finditer(text):
            if (letter := self._after_cue(text, cue)) is not None:
                yield cue.start(), Choice(letter)
        for match in self._patterns.subject.finditer(text):
            if not _QUALIFIED.search(text[max(0, match.start() - 30) : match.start()]):
                yield match.start(), Choice(match[1] or match[2] or match[3])
        last_line = text[text.rfind("\n") + 1 :]
        if alone := self._patterns.alone.fullmatch(last_line):
            yield len(text) - len(last_line), Choice((alone[1] or alone[2]).upper())

    def _after_cue(self, text: str, cue: re.Match[str]) -> str | None:
        """Return the letter that follows a cue, "" for several, None if no letter does."""
        patterns, noun, is_linked = self._patterns, cue["noun"], cue["verb"] is not None
        letter = self._letter_at(text, cue.end())
        if letter is None:
            # "The answer is Paris (B)."
            match = patterns.trailing.match(text, cue.end()) if is_linked else None
            return match[1] if match and not _NEGATION.search(match[0]) else None
        if cue["it"] or is_linked:
            return letter
        # "So (A) is wrong", "Option A is wrong" state nothing; "So (A).", "Answer (A)." do.
        is_option = noun is not None and not noun.lower().startswith("answer")
        return None if is_option or not patterns.ended.match(text, cue.end()) else letter

    def _first_or_last_line(self, text: str) -> Choice | None:
        """Read a response without a statement: its first or last line begins with the choice."""
        lines = text.split("\n")
        labelled = {m[1] or m[2] for line in lines if (m := self._patterns.label.match(line))}
        if len(labelled) > 1:
            return None
        found = {self._label_at_start(line) for line in (lines[0], lines[-1])} - {None}
        if len(found) != 1:
            return Choice("") if found else None
        return Choice(found.pop() or "")

    def _label_at_start(self, line: str) -> str | None:
        match = self._patterns.label.match(line)
        if match is not None and _NAMES_A_THING.match(line, match.end()):
            return None
        if match is None or match[1]:
            return self._letter_at(line, 0)
        # "D. because ..." chooses, "D. melanogaster ..." does not: known option texts decide.
        # "A: 5" is an answer, not the first option.
        option, rest = self._options.get(match[2], ""), same_words(line[match.end() :])
        is_free = not self._options and not line.startswith("A:")
        chooses = is_free or not rest or (option and rest.startswith(option))
        return self._letter_at(line, 0) if chooses else None

    def _letter_at(self, text: str, position: int) -> str | None:
        """Return the letter that stands at a position as an answer, "" if it is one of several."""
        mention = self._patterns.mention.match(text, position)
        if mention is None:
            return None
        letter = mention[1] or mention[2] or mention[3]
        if self._patterns.further.match(text, mention.end()):
            return ""
        rest = same_words(text[mention.end() : mention.end() + 400].split("\n")[0])
        option = self._options.get(letter, "")
        if mention[3] and not self._patterns.bare_end(letter).match(text, mention.end()):
            return letter if option and rest.startswith(option) else None
        others = [other for other in self._options.values() if other != option]
        return "" if rest and rest != option and rest in others else letter


@dataclass(frozen=True)
class _Patterns:
    mention: re.Pattern[str]
    further: re.Pattern[str]
    subject: re.Pattern[str]
    trailing: re.Pattern[str]
    ended: re.Pattern[str]
    label: re.Pattern[str]
    alone: re.Pattern[str]
    gold: re.Pattern[str]
    after_article: re.Pattern[str]
    after_letter: re.Pattern[str]

    def bare_end(self, letter: str) -> re.Pattern[str]:
        """What may follow a bare letter; A and I are words of their own."""
        return self.after_article if letter in "AI" else self.after_letter


@functools.lru_cache(maxsize=64)
def _patterns(letters: str) -> _Patterns:
    one = f"[{letters}]"
    listed = r",|/|&|、|\b(?:or|and|oder|und|ou|et|o|y)\b|或|和|及"
    end = rf"(?= ?(?:$|\n|[,;!?。、.:)\]}}$<{_CJK}])| (?:%s)(?![{_WORD}-]))"
    marked = rf"(?:\(({one})\)|(?<![{_WORD}])({one})(?![{_WORD}]))"
    return _Patterns(
        mention=re.compile(
            rf"\(({one})\)(?! ?[=+*/^<>])|({one})[.):。、](?= |\n|$|[{_CJK}])"
            rf"|({one})(?![{_WORD}'+*^=/<>-]| ?[=+*/^<>])"
        ),
        further=re.compile(
            rf"(?: ?(?:{listed})){{1,2}} ?(?:option |choice )?"
            rf"(?:\({one}\)|(?![AI]){one}(?![{_WORD}'])|{one}(?= ?(?:$|[\n,;.:!?)/]|or\b|and\b)))"
            rf"(?! ?(?:is|are|was|does|can)\b)| ?\({one}\)"
        ),
        subject=re.compile(
            marked + r" (?:is|must be|seems to be) (?:clearly |definitely |probably |then |thus )?"
            r"(?:the |our |my )(?:only |most )?(?:correct |right |best |final |likely )?"
            r"(?:answer|option|choice)\b"
            rf"|(?<=option )({one})\)? is (?:correct|right)\b"
        ),
        trailing=re.compile(
            rf"[^\n.()]{{1,80}}\((?:option |choice )?({one})\)(?=[.;]?(?:\n|$)|\. )"
        ),
        ended=re.compile(rf"(?:\({one}\)|{one}(?![{_WORD}'-]))[.!。]?(?:\n|$| (?=[A-Z]))"),
        label=re.compile(rf"\(({one})\)|({one})[.):。、](?= |$|[{_CJK}])"),
        alone=re.compile(rf"(?:\(({one}|{one.lower()})\)|({one}))[.):。]?"),
        gold=re.compile(rf"^\(?({one})(?:\)|[.):]|(?= |$))|^\(({one})\)", re.MULTILINE),
        after_article=re.compile(end % (_AFTER_ARTICLE + rf"|(?:not|non|no|nicht) {one}")),
        after_letter=re.compile(end % _AFTER_LETTER),
    )
