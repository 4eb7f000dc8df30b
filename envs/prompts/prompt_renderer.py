"""How a problem becomes the text that a model reads."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.meta
import numpy as np

from prefix_rft_rllib.envs.problems.problem import Problem
from prefix_rft_rllib.envs.prompts.prompting import encode_compactly, encode_plain
from prefix_rft_rllib.envs.prompts.token_ids import TokenIds
from prefix_rft_rllib.envs.rows.messages import Message
from prefix_rft_rllib.envs.rows.row_fields import RawProblem
from prefix_rft_rllib.envs.settings import EnvSettings

_MARK = "prefix-rft-system-mark"


class PromptRenderer:
    """Turn problems into prompts for one tokenizer.

    A bare text goes into `prompt_template` and becomes the user message of the chat template, after
    the system prompt. A conversation goes through the chat template as it is; `prompt_template`, if
    there is one, is put around its last user message, and `system_prompt` in front unless it has a
    system message of its own. Without a chat template the system message, an empty line and the
    user message are the text.

    A chat template writes its own special tokens. Without one, the tokens that the tokenizer puts
    in front (a begin-of-text token) are kept as `leading_ids`; those it would append are not, since
    the model has to continue the text.

    Args:
        tokenizer: A transformers tokenizer.
        settings: System prompt, prompt template, whether to use the chat template, its variables.

    Raises:
        ValueError: If `chat_template=True` and the tokenizer has none, or `chat_template_kwargs`
            has a name that the template does not know.
    """

    def __init__(self, tokenizer: Any, settings: EnvSettings):
        self._tokenizer = tokenizer
        self._template = settings.prompt_template
        self._kwargs = dict(settings.chat_template_kwargs)
        chat_template = getattr(tokenizer, "chat_template", None)
        if settings.chat_template and not chat_template:
            raise ValueError(
                f"env_config['chat_template'] is True, but the tokenizer in "
                f"{settings.tokenizer!r} has no chat template. Use None or False and a "
                "prompt_template."
            )
        self.uses_chat_template = bool(chat_template) and settings.chat_template is not False
        self._check_kwargs(chat_template)
        self.leading_ids = () if self.uses_chat_template else _leading_ids(tokenizer)
        self._leading_text = "".join(tokenizer.convert_ids_to_tokens(list(self.leading_ids)))
        self._system: Message | None = None
        content = settings.system_prompt
        if content or (content == "" and self.uses_chat_template and self._has_own_system()):
            self._system = {"role": "system", "content": content}

    def text(self, prompt: str | Sequence[Message]) -> str:
        """Render a problem as the text that the model reads.

        Args:
            prompt: The bare problem, or the messages of a conversation.

        Raises:
            ValueError: If the chat template refuses the messages or leaves one out, or if there is
                none and the conversation needs one.
        """
        messages = self._asked(prompt)
        if self.uses_chat_template:
            is_begun = messages[-1]["role"] == "assistant"
            return self.conversation(
                messages, add_generation_prompt=not is_begun, continue_final_message=is_begun
            )
        messages = self._with_system(messages)
        roles = [message["role"] for message in messages]
        if roles not in (["user"], ["system", "user"]):
            raise ValueError(
                f"the conversation has messages of the roles {roles!r}, and there is no chat "
                "template to write them with: the tokenizer has none, or chat_template is False. "
                "Without one a prompt is one user message, maybe after a system message. Use a "
                "tokenizer with a chat template."
            )
        return "\n\n".join(message["content"] for message in messages)

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        """Encode rendered prompts: `leading_ids`, unless a text has them itself, then the text."""
        leading = np.array(self.leading_ids, np.int32)
        return [
            TokenIds(np.concatenate([leading[: self.num_leading(text)], ids]))
            for text, ids in zip(texts, encode_compactly(self._tokenizer, texts), strict=True)
        ]

    def num_leading(self, text: str) -> int:
        """How many ids `encode` puts in front of those of a text."""
        has_own = text.startswith(self._leading_text)
        return 0 if has_own else len(self.leading_ids)

    def conversation(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """Render messages, the system prompt in front, with the chat template.

        Args:
            messages: Roles and contents; `system_prompt` is not added to a system message.
            add_generation_prompt: Whether a new text of the assistant is to follow.
            continue_final_message: Whether the last message is to go on.

        Raises:
            ValueError: If the template refuses them, or leaves one out.
        """
        messages = self._with_system(messages)
        try:
            text = self._applied(
                messages,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
            )
        except Exception as error:  # jinja2's TemplateError, and whatever the template calls
            raise ValueError(
                f"the tokenizer's chat template refused the messages of the roles "
                f"{[message['role'] for message in messages]!r} ({type(error).__name__}: {error}). "
                "Some templates know no system message: put a system_prompt into prompt_template "
                "instead; of rows that bring their own, take the user's text alone with "
                'fields={"prompt": "prompt.1.content"}. Or set chat_template=False.'
            ) from error
        for message in messages:
            if message["role"] != "assistant" and message["content"].strip() not in text:
                raise ValueError(
                    f"the tokenizer's chat template leaves out or changes the message of the role "
                    f"{message['role']!r}, {message['content']!r:.80}: the model would not read "
                    "it. Put its text into prompt_template, or set chat_template=False."
                )
        return text

    def _asked(self, prompt: str | Sequence[Message]) -> list[Message]:
        """The messages of a problem, with the prompt template around the last question."""
        messages: list[Message]
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [*prompt]
        if self._template is not None:
            last = max(i for i, message in enumerate(messages) if message["role"] == "user")
            # str.format would trip over the braces of LaTeX.
            content = self._template.replace("{prompt}", messages[last]["content"])
            messages[last] = {**messages[last], "content": content}
        return messages

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        has_own = messages[0]["role"] in ("system", "developer")
        return [*([] if has_own or not self._system else [self._system]), *messages]

    def _applied(self, messages: Sequence[Message], **how: bool) -> str:
        return self._tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, **how, **self._kwargs
        )

    def _has_own_system(self) -> bool:
        """Whether the template writes a system message of its own where it is given none."""
        user = {"role": "user", "content": "?"}
        try:
            marked = self._applied(
                [{"role": "system", "content": _MARK}, user], add_generation_prompt=True
            )
            plain = self._applied([user], add_generation_prompt=True)
        except Exception:  # it knows no system message
            return False
        before, mark, after = marked.partition(_MARK)
        is_framed = bool(mark) and plain.startswith(before) and plain.endswith(after)
        return is_framed and len(plain) > len(before) + len(after)

    def _check_kwargs(self, chat_template: str | Mapping[str, str] | None) -> None:
        if not self._kwargs:
            return
        if not self.uses_chat_template:
            raise ValueError(
                f"env_config['chat_template_kwargs'] ({self._kwargs!r}) has no meaning without a "
                "chat template: the tokenizer has none, or chat_template is False. Remove it."
            )
        source = (
            chat_template
            if isinstance(chat_template, str)
            else "\n".join((chat_template or {}).values())
        )
        known = _variables(source)
        for name in self._kwargs:
            if name not in known:
                raise ValueError(
                    f"env_config['chat_template_kwargs'] has {name!r}, which the tokenizer's chat "
                    "template does not use: it would change nothing. Check the spelling, or "
                    "remove it."
                )


class PromptRenderers:
    """One renderer for each data source.

    Args:
        tokenizer: A transformers tokenizer.
        settings: Of the environment.
    """

    def __init__(self, tokenizer: Any, settings: EnvSettings):
        shared = PromptRenderer(tokenizer, settings)
        self._renderers = [
            PromptRenderer(tokenizer, settings.of_source(source)) if source.own else shared
            for source in settings.sources
        ]

    @property
    def each(self) -> list[PromptRenderer]:
        """All renderers, each once, in the order of the sources."""
        return list(dict.fromkeys(self._renderers))

    def of(self, problem: RawProblem | Problem) -> PromptRenderer:
        """The renderer of a problem's source."""
        return self._renderers[problem.source_number]

    def text(self, problem: RawProblem | Problem) -> str:
        """Render a problem as the text that the model reads.

        Raises:
            ValueError: If it cannot be rendered; names file and line.
        """
        try:
            return self.of(problem).text(problem.messages or problem.prompt)
        except ValueError as error:
            raise ValueError(f"{problem.source}: field 'prompt': {error}") from error

    def encode(self, problems: Sequence[RawProblem], texts: Sequence[str]) -> list[TokenIds]:
        """Encode the rendered prompts of problems."""
        encoded: list[TokenIds] = []
        pairs = zip(problems, texts, strict=True)
        for _, group in itertools.groupby(pairs, key=lambda pair: pair[0].source_number):
            members = list(group)
            encoded += self.of(members[0][0]).encode([text for _, text in members])
        return encoded


def _variables(source: str) -> set[str]:
    """What a chat template reads from outside; of one that cannot be parsed every word."""
    # transformers has a tag of its own around what the assistant writes.
    parsed = re.sub(r"\{%[-+]?\s*(end)?generation\s*[-+]?%\}", "", source)
    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        return jinja2.meta.find_undeclared_variables(environment.parse(parsed))
    except jinja2.TemplateError:
        return set(re.findall(r"\w+", source))


def _leading_ids(tokenizer: Any) -> tuple[int, ...]:
    """Return the tokens that the tokenizer puts in front of every text by itself."""
    plain, with_added = encode_plain(tokenizer, ["a"])[0], tokenizer("a")["input_ids"]
    for start in range(len(with_added)):
        if with_added[start : start + len(plain)] == plain:
            return tuple(with_added[:start])
    return ()
