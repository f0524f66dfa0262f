"""The check at a run's start that its model's texts can be rendered, before engines start."""

from __future__ import annotations

from actors.errors import RenderError
from archer.config.models import RunConfig
from archer.errors import ConfigError
from envs.registry import tools


def renderer_warning(config: RunConfig, model: str) -> str | None:
    """Return a sentence for people if actions of `model` may not end; None if all is well.

    Raises ConfigError if the renderer refuses the model's template or tokenizer, with the reason.
    """
    from transformers import AutoTokenizer  # late: takes seconds to import

    from actors.rendering.factory import make_renderer

    declared = tools(config.env.id, config.env.kwargs)
    try:
        return make_renderer(config.rollout, AutoTokenizer.from_pretrained(model), declared).warning
    except RenderError as error:
        raise ConfigError(f"`model` cannot play: {error}") from error
