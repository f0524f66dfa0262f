"""The sampler of an inline run: actions with behaviour log-probabilities and policy versions, as the vLLM engine's.

Invariants, which are those of `actors.engine.engine`: only the temperature shapes the distribution; the stop token is
part of the action; log-probabilities are those of the distribution that was sampled from; new weights drop everything
that was computed under the old ones. All calls are synchronous, and one generator makes all draws, so that a seed
determines every action.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from actors.config import EngineConfig, SamplingConfig
from actors.errors import EngineStartError, PromptTooLong
from actors.inline.cache import Slots
from actors.inline.draws import draw
from actors.inline.endings import Endings
from actors.inline.model import InlineModel
from actors.inline.tree import sample_tree
from actors.rollout.action_request import ActionRequest
from actors.rollout.coalescer import Coalescer
from buffer.rollout_records import FreshActions


@dataclass(frozen=True)
class _Turn:
    """A request for one action: the slot of its episode, the tokens that the slot lacks, the room, and the sampling."""

    slot: int
    tokens: list[int]
    room: int
    sampling: SamplingConfig
    greedy: bool


class InlineEngine:
    """Samples from a Hugging Face causal model in this process, on the CPU.

    Args:
        seats: most episodes in flight.
        thought_end: the token that ends a thought, where `SamplingConfig.thought_tokens` counts; None if there is none.
        ends: returns whether the tokens of an action end it by their text; None if no text does.

    Attributes:
        version: the policy version of the weights; window: the context window in tokens.
    """

    def __init__(
        self,
        model: str,
        config: EngineConfig,
        *,
        stop_token_ids: Sequence[int],
        seed: int,
        seats: int,
        version: int = 0,
        thought_end: int | None = None,
        ends: Callable[[Sequence[int]], bool] | None = None,
        name: str = "inline",
    ) -> None:
        self.name = name
        self.version = version
        self._model = InlineModel(model)
        longest = [length for length in (config.max_model_len, self._model.window) if length is not None]
        if not longest:
            raise EngineStartError(
                f"the configuration of {model!r} names no context window; set rollout.engine.max_model_len"
            )
        self.window = min(longest)
        self._stops = np.array(sorted(stop_token_ids))
        self._thought_end = thought_end
        self._ends = ends
        self._seed = seed
        self._generator = np.random.default_rng((seed, version))
        self._slots = Slots(seats)
        self._turns = Coalescer(self._play)
        self._proposals = Coalescer(self._propose)

    def seat(self) -> Seat:
        """Return a place for one episode, which keeps the episode's keys and values from turn to turn."""
        return Seat(self)

    def act(self, request: ActionRequest, sampling: SamplingConfig) -> FreshActions:
        """Sample the requested actions. Raises PromptTooLong if a state leaves no room for a token."""
        states = [request.tokens[a:b] for a, b in itertools.pairwise(request.offsets.tolist())]
        rooms = np.repeat(np.array([self.room(len(state)) for state in states]), request.counts)
        sampled = sample_tree(
            self._model,
            states,
            request.counts,
            self._endings(rooms, sampling),
            temperature=sampling.temperature,
            generator=self._generator,
        )
        tokens, logprobs = sampled.flat()
        return FreshActions(
            tokens=tokens.astype(np.int32),
            offsets=np.cumsum([0, *sampled.lengths], dtype=np.int64),
            logprobs=logprobs if request.logprobs else logprobs[:0],
            versions=np.full(len(tokens), self.version, np.int32),
            counts=np.array(request.counts, np.int32),
        )

    def probe(self, tokens: np.ndarray, temperature: float) -> np.ndarray:
        """Return log p(tokens[i + 1] | tokens[: i + 1]) at `temperature`, float32 [length - 1].

        The tokens are fed in two chunks, as the turns of an episode are, so that a fault of the cache shows.
        """
        ids = [int(token) for token in tokens]
        half = len(ids) // 2
        slot = self._slots.take()
        try:
            parts = [self._feed([slot], [chunk])[0, : len(chunk)] for chunk in (ids[:half], ids[half:]) if chunk]
        finally:
            self._slots.give_back(slot)
        logprobs = self._model.logprobs(torch.cat(parts)[:-1], temperature)
        return logprobs[np.arange(len(ids) - 1), ids[1:]]

    def load(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Install weights by their names as policy `version`. Raises WeightTransferError."""
        self._model.load(weights)
        self.version = version
        # A run that resumes at this version then draws what the run that was never interrupted draws.
        self._generator = np.random.default_rng((self._seed, version))

    def _endings(self, rooms: np.ndarray, sampling: SamplingConfig) -> Endings:
        return Endings(rooms, sampling, self._stops, self._thought_end, self._ends)

    def room(self, length: int) -> int:
        """Return the room for an action in tokens after a prompt of `length` tokens. Raises PromptTooLong."""
        if length >= self.window:
            raise PromptTooLong(
                f"{self.name}: a prompt of {length} tokens leaves no room for an action in the context window of "
                f"{self.window} tokens; raise rollout.engine.max_model_len if the model allows, shorten the "
                "environment's observations, or lower its max_turns"
            )
        return self.window - length

    async def _play(self, turns: list[_Turn]) -> list[FreshActions]:
        """Sample one action for each turn, token by token, all turns together. The seats have one sampling."""
        order = sorted(range(len(turns)), key=lambda i: turns[i].slot)
        turns = [turns[i] for i in order]
        endings = self._endings(np.array([turn.room for turn in turns]), turns[0].sampling)
        greedy = np.array([turn.greedy for turn in turns])
        temperature = torch.tensor([1.0 if turn.greedy else turn.sampling.temperature for turn in turns]).unsqueeze(-1)
        tokens = np.zeros((len(turns), endings.longest), np.int64)
        logprobs = np.zeros(tokens.shape, np.float32)
        lengths = np.zeros(len(turns), np.int64)
        going = np.arange(len(turns))
        chunks = [turn.tokens for turn in turns]
        while len(going):
            fed = self._feed([turns[i].slot for i in going], chunks)
            last = fed[torch.arange(len(going)), torch.tensor([len(chunk) - 1 for chunk in chunks])]
            found = (self._model.logits(last) / temperature[going]).log_softmax(-1).numpy()
            each = np.arange(len(going))
            new = np.where(greedy[going], found.argmax(-1), draw(found, each, self._generator))
            tokens[going, lengths[going]] = new
            logprobs[going, lengths[going]] = found[each, new]
            lengths[going] += 1
            on = endings.going_on(going, tokens, lengths)
            going, chunks = going[on], [[token] for token in new[on].tolist()]
        answers: list[FreshActions | None] = [None] * len(turns)
        for row, i in enumerate(order):
            answers[i] = self._action(tokens[row, : lengths[row]], logprobs[row, : lengths[row]])
        return [answer for answer in answers if answer is not None]

    async def _propose(self, asked: list[tuple[np.ndarray, int, SamplingConfig]]) -> list[FreshActions]:
        """Sample several actions at the state of each seat. The seats of one pool have one sampling."""
        prompts, counts, (sampling, *_) = zip(*asked, strict=True)
        sampled = self.act(ActionRequest.of(prompts, np.array(counts), True), sampling)
        firsts = np.cumsum([0, *counts])
        return [_of_state(sampled, a, b) for a, b in itertools.pairwise(firsts.tolist())]

    def _action(self, tokens: np.ndarray, logprobs: np.ndarray) -> FreshActions:
        return FreshActions(
            tokens=tokens.astype(np.int32),
            offsets=np.array([0, len(tokens)], np.int64),
            logprobs=logprobs,
            versions=np.full(len(tokens), self.version, np.int32),
            counts=np.ones(1, np.int32),
        )

    def _feed(self, slots: Sequence[int], chunks: Sequence[list[int]]) -> Tensor:
        """Feed tokens to slots and return the hidden states [slots, longest, width]; pads are at the end."""
        sizes = np.array([len(chunk) for chunk in chunks])
        ids = np.zeros((len(chunks), int(sizes.max())), np.int64)
        for row, chunk in enumerate(chunks):
            ids[row, : len(chunk)] = chunk
        positions, mask = self._slots.place(slots, sizes)
        # A pad may lie beyond the window, where a model with learned positions has none.
        positions = positions.clamp(max=self.window - 1)
        return self._model.hidden(torch.from_numpy(ids), positions=positions, mask=mask, cache=self._slots)


def _of_state(actions: FreshActions, first: int, end: int) -> FreshActions:
    """Return the actions from `first` up to `end`, which are those of one state."""
    offsets = actions.offsets[first : end + 1]
    span = slice(offsets[0], offsets[-1])
    return FreshActions(
        tokens=actions.tokens[span],
        offsets=offsets - offsets[0],
        logprobs=actions.logprobs[span],
        versions=actions.versions[span],
        counts=np.array([end - first], np.int32),
    )


class Seat:
    """The engine as one episode sees it. Use as a context manager; the end of the block frees the slot."""

    def __init__(self, engine: InlineEngine) -> None:
        self._engine = engine
        self._slot = -1
        self._held: list[int] = []
        self._version = engine.version

    @property
    def window(self) -> int:
        """The context window in tokens."""
        return self._engine.window

    def __enter__(self) -> Self:
        self._slot = self._engine._slots.take()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._engine._slots.give_back(self._slot)

    async def generate(
        self, prompt: Sequence[int], n: int, sampling: SamplingConfig, *, greedy: bool = False
    ) -> FreshActions:
        """Sample `n` actions after `prompt`, together with the other seats that wait for an action.

        Raises PromptTooLong if the context window leaves no room for a token.
        """
        engine, prompt = self._engine, list(prompt)
        if n != 1:
            return await engine._proposals.submit((np.array(prompt, np.int32), n, sampling))
        room = engine.room(len(prompt))
        fed = self._shared(prompt)
        engine._slots.lengths[self._slot] = fed
        turn = _Turn(self._slot, prompt[fed:], room, sampling, greedy)
        action = await engine._turns.submit(turn)
        self._held, self._version = prompt + action.tokens[:-1].tolist(), engine.version
        return action

    def _shared(self, prompt: list[int]) -> int:
        """Return how many tokens of `prompt`, at most all but one, the slot holds under the present weights."""
        if self._version != self._engine.version:
            return 0
        most = min(len(self._held), len(prompt) - 1)
        if prompt[:most] == self._held[:most]:
            return most
        return next(i for i in range(most) if prompt[i] != self._held[i])
