"""The check of a run's renderer before its engines start."""

from __future__ import annotations

from pathlib import Path

import pytest
from actor_cases import byte_tokenizer
from chat_templates import QWEN3
from tokenizers import normalizers

from archer.config.models import RunConfig
from archer.driver.renderer_check import renderer_warning
from archer.errors import ConfigError


def _warning(folder: Path, template: str | None, **rollout: object) -> str | None:
    tokenizer = byte_tokenizer(chat_template=template)
    if template is None:
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\n", "\\n")
    tokenizer.save_pretrained(folder)
    config = RunConfig.model_validate({"model": {"path": "m"}, "env": {"id": "key_door"}, "rollout": rollout})
    return renderer_warning(config, str(folder))


def test_a_template_that_cannot_play_is_refused_in_one_sentence(tmp_path: Path) -> None:
    assert _warning(tmp_path, QWEN3) is None
    with pytest.raises(ConfigError, match=r"^`model` cannot play: the chat template rejects .* I refuse"):
        _warning(tmp_path, "{{ raise_exception('I refuse') }}")
    with pytest.raises(ConfigError, match=r"changes earlier text.*set rollout\.thoughts=drop"):
        _warning(tmp_path, QWEN3.replace("message.content +", "message.content + (loop.length | string) +"))


def test_a_tokenizer_without_a_newline_is_named(tmp_path: Path) -> None:
    assert "rollout.stop_text=';'" in (_warning(tmp_path, None) or "")
    assert _warning(tmp_path, None, stop_text=";") is None
