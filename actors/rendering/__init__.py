"""Rendering: observations to tokens, action tokens to text.

`Renderer` is the protocol, `make_renderer` builds the renderer that the configuration selects, and
`render_demonstration` turns a scripted episode into a tokenized one. `plain.py` renders lines of text for base models,
and `chat.py` applies the tokenizer's chat template. This package knows no engine and no Ray. Start with `renderer.py`,
which also collects the turns of an episode.
"""

from actors.rendering.factory import make_renderer, render_demonstration
from actors.rendering.renderer import Renderer

__all__ = ["Renderer", "make_renderer", "render_demonstration"]
