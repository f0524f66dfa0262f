"""The check that a chat template's conversation is the sum of its turns, on a conversation of several turns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from actors.errors import RenderError
from actors.rendering.context import EpisodeContext
from actors.rendering.control_tokens import ControlTokens
from actors.rendering.renderer import Renderer, as_messages
from actors.rendering.template import ChatTemplate

# Contents that known templates treat specially: surrounding space, an empty line, braces.
_SAMPLES = ("Is it alive?", "Is it\n\na dog?", "a 'quoted' {word}")


def check_conversation(
    renderer: Renderer, template: ChatTemplate, control: ControlTokens, end: int, context: EpisodeContext
) -> None:
    """Check the texts of a conversation turn by turn, and the tokens. Raises RenderError.

    The generation prompt may end with an opening that earlier assistant messages lack, such as that of a thought, and
    earlier assistant messages may begin with what the model writes itself (`ChatTemplate.opening`).

    Args:
        end: the token that ends an action.
    """
    messages = as_messages("Begin.")
    text = turns = template.text(messages, context)
    tokens = renderer.start("Begin.", context)
    opening, inserted = "", template.opening(context)
    for i, answer in enumerate(_SAMPLES):
        action = f"zqAnswer{i}"
        tokens = renderer.extend(tokens, [*control.encode(action), end], answer, context)
        messages += [{"role": "assistant", "content": action}, *as_messages(answer)]
        whole = template.text(messages, context)
        head = whole.partition(action)[0]
        if not i and turns.startswith(head):
            opening = turns[len(head) :]
        suffix = template.suffix(as_messages(answer), context)
        text += action + suffix
        turns = turns.removesuffix(opening) + inserted + action + suffix
        if turns != whole:
            _refuse(turns, whole, i + 2, control)
    encoded = control.encode(text)
    if tokens != encoded:
        at = _common_prefix(tokens, encoded)
        around = slice(max(0, at - 8), at + 8)
        raise RenderError(
            f"the tokens of a conversation are not those of its turns: at token {at} the whole has "
            f"{encoded[around]}, the turns have {tokens[around]}; use rollout.renderer=plain"
        )


def _refuse(turns: str, whole: str, length: int, control: ControlTokens) -> None:
    at = _common_prefix(turns, whole)
    raise RenderError(
        f"the chat template changes earlier text when a turn is added: at token {len(control.encode(whole[:at]))}, "
        f"after {whole[max(0, at - 40) : at]!r}, a conversation of {length} turns has {whole[at : at + 40]!r} and "
        f"the turns one by one have {turns[at : at + 40]!r}; set rollout.thoughts=drop, with which every turn renders "
        "the whole conversation, change the template, or use rollout.renderer=plain"
    )


def _common_prefix(one: Sequence[object], other: Sequence[object]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
