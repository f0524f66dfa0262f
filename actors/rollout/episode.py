"""One episode: the stored tokens are exactly those that the engine read and sampled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from actors.config import SamplingConfig
from actors.errors import PromptTooLong
from actors.rendering.context import EpisodeContext
from actors.rendering.renderer import Action, Renderer, Transcript
from buffer.episodes.schema import Episode
from buffer.rollout_records import FreshActions, PlayedEpisode
from envs import INVALID_ACTION, SUCCESS, TASK_ID, AsyncEnv, privileged_text

if TYPE_CHECKING:
    from actors.rollout.critic_choice import Chooser


class ActionSource(Protocol):
    """The engine of an episode: `actors.engine.engine.VllmEngine`, or a seat of the inline engine."""

    @property
    def window(self) -> int:
        """The context window in tokens."""

    async def generate(
        self, prompt: Sequence[int], n: int, sampling: SamplingConfig, *, greedy: bool = False
    ) -> FreshActions:
        """Sample `n` actions after `prompt`."""


class Played(NamedTuple):
    """An episode, and the figures of `EpisodeResult` that have no column in its schema."""

    record: PlayedEpisode
    rejected_calls: int
    endless_thoughts: int

    @property
    def episode(self) -> Episode:
        """The episode alone."""
        return self.record.episode

    @property
    def invalid_actions(self) -> int:
        """The number of turns whose action the environment could not parse."""
        return sum(self.record.invalid)

    @property
    def window_truncated(self) -> bool:
        """Whether the context window ended the episode."""
        return self.record.window_truncated


async def run_episode(
    env: AsyncEnv,
    engine: ActionSource,
    renderer: Renderer,
    sampling: SamplingConfig,
    context: EpisodeContext,
    *,
    seed: int,
    episode_id: str,
    worker: str = "",
    greedy: bool = False,
    chooser: Chooser | None = None,
) -> Played:
    """Play the episode of environment seed `seed` and return it.

    With a `chooser`, the engine samples several candidates at each state and the chooser picks the one to play; greedy
    play has one candidate only. If the next state leaves less room than `sampling.longest` in the context window,
    the episode ends as truncated, and its last observation is cut at the window's end.

    Raises EnvError, RenderError, EngineDied, ChooserLost, and PromptTooLong if the first state leaves too little room.
    """
    observation, info = await env.areset(seed=seed)
    task_id, privileged = str(info.get(TASK_ID, "")), privileged_text(info)
    transcript = Transcript(renderer, observation, context, name=env.spec.id)
    longest = engine.window - sampling.longest
    if len(transcript.state) > longest:
        raise _too_long(env.spec.id, seed, len(transcript.state), sampling.longest, engine.window)
    actions: list[FreshActions] = []
    turns: list[_Turn] = []
    terminated = truncated = window_truncated = False
    while not (terminated or truncated):
        started = time.monotonic()
        action = await _next_action(engine, transcript.state, sampling, greedy, chooser)
        written = time.monotonic()
        ids = action.tokens.tolist()
        read = renderer.read_action(ids, context)
        observation, reward, terminated, truncated, info = await env.astep(read.text)
        took = (written - started, time.monotonic() - written)
        actions.append(action)
        turns.append(_Turn(_stop(renderer, ids, read), *took, bool(info.get(INVALID_ACTION)), read))
        transcript.add(read, ids, observation, reward)
        if not (terminated or truncated) and len(transcript.state) > longest:
            truncated = window_truncated = True
    sampled = FreshActions.join(actions)
    # The critic that bootstraps from the last state has the same context window.
    episode = transcript.episode(
        window=engine.window,
        episode_id=episode_id,
        env=env.spec.id,
        task_id=task_id,
        seed=seed,
        worker=worker,
        logprobs=sampled.logprobs,
        versions=sampled.versions,
        terminated=terminated,
        truncated=truncated,
        success=info.get(SUCCESS),
        privileged=privileged,
    )
    return _played(episode, turns, window_truncated)


class _Turn(NamedTuple):
    """What a turn had beside its tokens and its reward."""

    stop: str
    action_seconds: float
    env_seconds: float
    invalid: bool
    read: Action


def _played(episode: Episode, turns: Sequence[_Turn], window_truncated: bool) -> Played:
    record = PlayedEpisode(
        episode,
        stops=[turn.stop for turn in turns],
        action_seconds=[turn.action_seconds for turn in turns],
        env_seconds=[turn.env_seconds for turn in turns],
        invalid=[turn.invalid for turn in turns],
        window_truncated=window_truncated,
    )
    return Played(record, sum(turn.read.rejected for turn in turns), sum(turn.read.endless for turn in turns))


def _stop(renderer: Renderer, ids: list[int], read: Action) -> str:
    """Return why an action ended."""
    if ids[-1] in renderer.stop_token_ids:
        return "stop token"
    if renderer.ends(ids):
        return "stop text"
    return "thought limit" if read.endless else "token limit"


async def _next_action(
    engine: ActionSource, state: Sequence[int], sampling: SamplingConfig, greedy: bool, chooser: Chooser | None
) -> FreshActions:
    """Return the action to play in `state`."""
    if chooser is None or greedy:
        return await engine.generate(state, 1, sampling, greedy=greedy)
    candidates = await engine.generate(state, chooser.candidates, sampling)
    return await chooser.choose(state, candidates)


def _too_long(env: str, seed: int, length: int, max_tokens: int, window: int) -> PromptTooLong:
    return PromptTooLong(
        f"the first observation of {env} (seed {seed}) has {length} tokens; with an action of up to {max_tokens} "
        f"tokens it exceeds the context window of {window} tokens. Raise rollout.engine.max_model_len if the model "
        "allows, lower rollout.sampling.max_tokens or thought_tokens, or shorten the environment's observations"
    )
