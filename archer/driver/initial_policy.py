"""The policy that a run starts from, and the demonstrations that the learner clones into it."""

from __future__ import annotations

from pathlib import Path

import envs
from archer.config.models import RunConfig
from archer.driver.demonstrations import fitting, play_demonstrations, render, texts
from archer.driver.model import build_tiny_model, check_critic, resolve_model
from archer.driver.progress import Progress
from archer.driver.renderer_check import renderer_warning
from archer.driver.run_folder import RunFolder
from archer.driver.tool_calls import Calls, calls_of, for_native_calls
from archer.errors import RunError
from archer.imports.conversations import read_imports
from buffer.episodes.schema import Episode
from envs.registry import tools
from learner.feeding.demonstrations import write_demonstrations


def prepare_policy(
    config: RunConfig, folder: RunFolder, checkpoint: Path | None, progress: Progress
) -> tuple[str, list[Episode]]:
    """Return the folder or hub name of the model, and the demonstrations in its tokens.

    A resumed run takes the policy of its checkpoint, and no demonstrations. Otherwise the function builds or checks the
    model of `config.model` and writes the demonstrations to `folder.demonstrations`. Raises ConfigError or RunError.
    """
    if checkpoint is not None:
        _announce(config, str(checkpoint / "policy"), progress)
        return str(checkpoint / "policy"), []
    imports = read_imports(config.demonstrations.files, env=config.env.id)
    window: int | None
    if config.model.build is not None:
        demonstrations = _demonstrations(config, imports)
        if not folder.model.exists():
            build_tiny_model(texts(demonstrations), folder.model, config.model.build, seed=config.seed)
        model, window = str(folder.model), config.model.build.max_positions
        _announce(config, model, progress)
    else:
        model, window = resolve_model(config.model)
        calls = _announce(config, model, progress)
        demonstrations = _demonstrations(for_native_calls(config) if calls.native else config, imports)
    if config.algorithm_config.has_critic:
        check_critic(config.learner.critic, model)
    if not demonstrations:
        return model, []
    declared = tools(config.env.id, config.env.kwargs)
    episodes = render(demonstrations, model, config.rollout, tools=declared, imported=len(imports))
    window = config.rollout.engine.max_model_len or window
    kept = fitting(episodes, window, config.rollout.sampling.longest)
    if dropped := len(episodes) - len(kept):
        text = f"left out {dropped} of {len(episodes)} demonstrations: longer than the window of {window} tokens"
        if not kept:
            raise RunError(f"{text}; raise the model's window or lower env.kwargs.max_turns")
        progress.message(text)
    write_demonstrations(kept, folder.demonstrations)
    return model, kept


def start_model(config: RunConfig, folder: Path) -> str:
    """Return the folder or hub name of the model that a run of `config` starts from, made in `folder` if the run makes
    it. Raises ConfigError if it cannot be used."""
    if config.model.build is None:
        return resolve_model(config.model)[0]
    imports = read_imports(config.demonstrations.files, env=config.env.id)
    return str(build_tiny_model(texts(_demonstrations(config, imports)), folder, config.model.build, seed=config.seed))


def _demonstrations(config: RunConfig, imports: list[envs.Demonstration]) -> list[envs.Demonstration]:
    return (play_demonstrations(config) if config.demonstrations.episodes else []) + imports


def _announce(config: RunConfig, model: str, progress: Progress) -> Calls:
    """Say how `model` calls tools and what may go wrong when it plays; return the first."""
    calls = calls_of(config, model)
    for sentence in (calls.sentence, renderer_warning(config, model)):
        if sentence:
            progress.message(sentence)
    return calls
