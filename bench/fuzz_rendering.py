"""Chat templates, and the rendering of conversations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from bench.fuzz_core import Probe, Target, must

WORDS = [
    "Is it alive?",
    "Yes.",
    "No.",
    "<|im_end|>",
    "<|im_start|>assistant\n",
    "</think>",
    "<think>",
    "<tool_call>",
    "</s>",
    "[INST]",
    "{{ 7 * 7 }}",
    "{% for x in y %}",
    "\n\n",
    "",
    " ",
    "\u202e",
    "ﬁ",
    "🛒",
    "\r\n",
    "<pad>",
    "<bos>",
    "<eos>",
]
"""Text that looks like control tokens, templates and tools."""
_PIECES = [
    "{% for message in messages %}",
    "{% endfor %}",
    "{{ message.content }}",
    "{{ message['role'] }}",
    "<|im_start|>",
    "<|im_end|>\n",
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "{% if message.role == 'user' %}",
    "{% else %}",
    "{% endif %}",
    "{{ raise_exception('no') }}",
    "{{ messages[99].content }}",
    "{{ strftime_now('%Y') }}",
    "{{ tools | tojson }}",
    "{{ message.content | trim }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ 1 / 0 }}",
    "{% set messages = messages[1:] %}",
    "{{ messages | length }}",
    "{{ None }}",
    "{{ undefined.x }}",
    "{{",
    "{{ messages.append(1) }}",
    "{{ (1, 2) }}",
    "{{ message.content.split('</think>')[-1] }}",
    "{% generation %}",
    "{{ message.content[:3] }}",
    "{% if loop.index0 % 2 %}",
    "{{ bos_token }}",
    "{{ eos_token }}",
    "{# x #}",
    "{{ lipsum() }}",
]


def targets() -> list[Target]:
    """Return the targets of this module."""
    return [Target("templates", 0.6, _templates), Target("rendering", 0.8, _rendering)]


def _tokenizer() -> Any:
    from archer.config.sections import TinyModelConfig
    from archer.driver.model import make_tokenizer

    tokenizer = make_tokenizer([*WORDS * 3, "the quick brown fox"], TinyModelConfig(vocab_size=320))
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    return tokenizer


@contextmanager
def _templates(folder: Path) -> Iterator[Probe]:
    """Templates of random pieces: refused with RenderError, or states of tokens that only grow."""
    del folder
    from actors.config import RolloutConfig
    from actors.errors import RenderError
    from actors.rendering.context import EpisodeContext
    from actors.rendering.factory import make_renderer

    tokenizer = _tokenizer()
    context = EpisodeContext(datetime(2026, 1, 2))

    def check(pieces: list[str]) -> None:
        tokenizer.chat_template = "".join(pieces)
        try:
            renderer = make_renderer(RolloutConfig(renderer="chat"), tokenizer)
            tokens = renderer.start("Guess.", context)
        except RenderError as error:
            must(bool(str(error)), "an empty sentence")
            return
        assert all(isinstance(token, int) for token in tokens)

    whole = [
        "{% for message in messages %}",
        "<|im_start|>{{ message.role }}\n",
        "{{ message.content }}",
        "<|im_end|>\n",
    ]
    sound = [*whole, "{% endfor %}", "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"]
    near = st.tuples(st.integers(0, len(sound)), st.lists(st.sampled_from(_PIECES), max_size=2), st.integers(0, 1)).map(
        lambda change: [*sound[: change[0]], *change[1], *sound[change[0] + change[2] :]]
    )
    yield Probe(st.lists(st.sampled_from(_PIECES), max_size=6) | near, check)


@contextmanager
def _rendering(folder: Path) -> Iterator[Probe]:
    """Conversations of hostile words: observations never become control tokens, and any tokens are an action."""
    del folder
    from actors.config import RolloutConfig
    from actors.rendering.context import EpisodeContext
    from actors.rendering.factory import make_renderer
    from actors.rendering.renderer import Transcript

    tokenizer = _tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    renderer = make_renderer(RolloutConfig(), tokenizer)
    context = EpisodeContext(datetime(2026, 1, 2))
    opening = tokenizer.convert_tokens_to_ids("<|im_start|>")
    text = st.lists(st.sampled_from(WORDS) | st.text(st.characters(codec="utf-8"), max_size=9), max_size=4).map("".join)
    message = st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "tool", "assistant"]), "content": text})
    observation = text | st.lists(message, min_size=1, max_size=3)
    tokens = st.lists(st.integers(0, len(tokenizer) - 1), max_size=6)

    def check(turns: list[tuple[Any, list[int]]]) -> None:
        first, *rest = turns
        transcript = Transcript(renderer, first[0], context, name="fuzz")
        marks = 1 + (1 if isinstance(first[0], str) else len(first[0]))
        assert list(transcript.state).count(opening) <= marks, "an observation became a control token"
        for seen, written in rest:
            action = [*written, renderer.stop_token_ids[0]]
            before = len(transcript.state)
            read = renderer.read_action(action, context)
            assert isinstance(read.text, str)
            transcript.add(read, action, seen, 0.0)
            added = list(transcript.state)[before + len(action) :]
            assert added.count(opening) <= 1 + (1 if isinstance(seen, str) else len(seen)), "a control token was forged"

    yield Probe(st.lists(st.tuples(observation, tokens), min_size=1, max_size=3), check)
