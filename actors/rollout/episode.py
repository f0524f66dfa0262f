"""One episode, token in and token out: what the engine read and wrote is what is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from actors.config import SamplingConfig
from actors.engine.engine import Completion
from actors.errors import PromptTooLong
from actors.rollout.renderer import Renderer, as_messages
from buffer.episodes.schema import Episode
from envs import INVALID_ACTION, SUCCESS, TASK_ID

if TYPE_CHECKING:
    from typing import Protocol

    from actors.rollout.critic_choice import Chooser
    from envs import AsyncEnv

    class Engine(Protocol):
        window: int

        async def generate(
            self, prompt_token_ids: list[int], n: int, sampling: SamplingConfig, *, greedy: bool = False
        ) -> list[Completion]: ...


@dataclass
class Played:
    """An episode, and what of it has no column.

    invalid_actions: turns whose action the environment could not understand.
    window_truncated: the episode was cut because it outgrew the model's window.
    """

    episode: Episode
    invalid_actions: int
    window_truncated: bool


@dataclass
class _Turns:
    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    def add(self, start: int, action: Completion, reward: float) -> None:
        self.start.append(start)
        self.end.append(start + len(action.token_ids))
        self.reward.append(reward)
        self.logprobs += action.logprobs
        self.versions += action.versions


async def run_episode(
    env: AsyncEnv,
    engine: Engine,
    renderer: Renderer,
    sampling: SamplingConfig,
    *,
    seed: int,
    episode_id: str,
    worker: str = "",
    greedy: bool = False,
    chooser: Chooser | None = None,
) -> Played:
    """Play the episode that `seed` stands for.

    With a `chooser` each action is the one it picks of several sampled ones; the likeliest action has no rival, so
    greedy play asks nobody.

    An episode whose next state leaves no room for a whole action in the engine's window ends there as truncated, its
    last observation cut to the window. Raises EnvError where the environment fails, PromptTooLong where already the
    first state leaves no room, RenderError, EngineDied.
    """
    observation, info = await env.areset(seed=seed)
    task_id = str(info.get(TASK_ID, ""))
    messages = as_messages(observation)
    tokens = renderer.start(observation)
    if len(tokens) + sampling.max_tokens > engine.window:
        raise PromptTooLong(
            f"the first observation of {env.spec.id} (seed {seed}) is {len(tokens)} tokens long; with an action of up "
            f"to {sampling.max_tokens} tokens it exceeds the window of {engine.window} tokens. Raise "
            "rollout.engine.max_model_len if the model allows, lower rollout.sampling.max_tokens, or shorten the "
            "environment's observations"
        )
    turns = _Turns()
    terminated = truncated = window_truncated = False
    invalid = 0
    while not (terminated or truncated):
        if chooser is None or greedy:
            (action,) = await engine.generate(tokens, 1, sampling, greedy=greedy)
        else:
            action = await chooser.choose(tokens, await engine.generate(tokens, chooser.candidates, sampling))
        text = renderer.action_text(action.token_ids)
        observation, reward, terminated, truncated, info = await env.astep(text)
        turns.add(len(tokens), action, reward)
        invalid += bool(info.get(INVALID_ACTION))
        messages += [{"role": "assistant", "content": text}, *as_messages(observation)]
        tokens = renderer.extend(tokens, action.token_ids, observation)
        if not (terminated or truncated) and len(tokens) + sampling.max_tokens > engine.window:
            truncated = window_truncated = True
    success = info.get(SUCCESS)
    episode = Episode(
        episode_id=episode_id,
        env=env.spec.id,
        task_id=task_id,
        seed=seed,
        worker=worker,
        # No model can read beyond its window, also not the critic that bootstraps from the last state.
        tokens=np.array(tokens[: engine.window], np.int32),
        action_start=np.array(turns.start, np.int32),
        action_end=np.array(turns.end, np.int32),
        reward=np.array(turns.reward, np.float32),
        logprobs=np.array(turns.logprobs, np.float32),
        versions=np.array(turns.versions, np.int32),
        terminated=terminated,
        truncated=truncated,
        success=None if success is None else bool(success),
        messages=[dict(message) for message in messages],  # type: ignore[arg-type]
    )
    return Played(episode, invalid, window_truncated)
