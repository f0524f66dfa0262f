"""The policy that a run starts from, and the demonstrations that the learner clones into it."""

from __future__ import annotations

from pathlib import Path

from archer.config.models import RunConfig
from archer.driver.demonstrations import fitting, play_demonstrations, render, texts
from archer.driver.model import build_tiny_model, check_critic, resolve_model
from archer.driver.progress import Progress
from archer.driver.run_folder import RunFolder
from archer.errors import RunError
from archer.imports.conversations import read_imports
from buffer.episodes.schema import Episode
from learner.feeding.demonstrations import write_demonstrations


def prepare_policy(
    config: RunConfig, folder: RunFolder, checkpoint: Path | None, progress: Progress
) -> tuple[str, list[Episode]]:
    """Return the folder or hub name of the model, and the demonstrations in its tokens.

    A resumed run takes the policy of its checkpoint, and no demonstrations. Otherwise the function builds or checks the
    model of `config.model` and writes the demonstrations to `folder.demonstrations`. Raises ConfigError or RunError.
    """
    if checkpoint is not None:
        return str(checkpoint / "policy"), []
    imports = read_imports(config.demonstrations.files, env=config.env.id)
    demonstrations = (play_demonstrations(config) if config.demonstrations.episodes else []) + imports
    window: int | None
    if config.model.build is not None:
        if not folder.model.exists():
            build_tiny_model(texts(demonstrations), folder.model, config.model.build, seed=config.seed)
        model, window = str(folder.model), config.model.build.max_positions
    else:
        model, window = resolve_model(config.model)
    if config.algorithm_config.has_critic:
        check_critic(config.learner.critic, model)
    if not demonstrations:
        return model, []
    episodes = render(demonstrations, model, config.rollout, imported=len(imports))
    window = config.rollout.engine.max_model_len or window
    kept = fitting(episodes, window, config.rollout.sampling.max_tokens)
    if dropped := len(episodes) - len(kept):
        text = f"left out {dropped} of {len(episodes)} demonstrations: longer than the window of {window} tokens"
        if not kept:
            raise RunError(f"{text}; raise the model's window or lower env.kwargs.max_turns")
        progress.message(text)
    write_demonstrations(kept, folder.demonstrations)
    return model, kept
