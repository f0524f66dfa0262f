"""Layouts of separate passes: one token sequence for each state and each action."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from learner.passes.layout import Layout, Part, Points
from learner.passes.rows import Row


@dataclass
class SeparateEncoder:
    """Lays out each state, and each state with an action, as one sequence, for encoders.

    Attributes:
        pad_token_id: fills the end of short sequences.
        translate: int64 [policy vocabulary], the backbone's id of each token of the policy; or a function from the
            policy's ids [length] to the backbone's; None keeps the ids.
        prefix, suffix: ids before and after each sequence (an encoder's start and end tokens).
        read_first: read at the first token (an encoder's start token) instead of the last.
        max_tokens: the longest sequence; of a longer one the last tokens are kept.
        with_states: whether the states of actions are sequences too, for the points "action_state" and "fresh_state".
    """

    pad_token_id: int
    translate: np.ndarray | Callable[[np.ndarray], np.ndarray] | None = None
    prefix: Sequence[int] = ()
    suffix: Sequence[int] = ()
    read_first: bool = False
    max_tokens: int | None = None
    with_states: bool = False

    def _sequence(self, tokens: np.ndarray) -> np.ndarray:
        if self.translate is not None:
            tokens = self.translate(tokens) if callable(self.translate) else self.translate[tokens]
        if self.max_tokens is not None:
            tokens = tokens[-(self.max_tokens - len(self.prefix) - len(self.suffix)) :]
        return np.concatenate((self.prefix, tokens, self.suffix), dtype=np.int64, casting="unsafe")

    def encode(self, rows: Sequence[Row], parts: Sequence[Part], horizon: int = 1) -> Layout:
        """Return the layout of `rows`, see `Encoder.encode`."""
        sequences: list[np.ndarray] = []
        found: dict[str, list[int]] = {part: [] for part in parts}
        if self.with_states:
            found |= {f"{part}_state": [] for part in parts if part in ("action", "fresh")}

        def add(part: str, tokens: np.ndarray) -> None:
            if part in found:
                found[part].append(len(sequences))
                sequences.append(self._sequence(tokens))

        for row in rows:
            episode = row.episode
            for turn in map(int, row.turns):
                add("state", episode.state(turn))
                add("action_state", episode.state(turn))
                add("action", episode.tokens[episode.state_starts[turn] : int(episode.action_end[turn])])
                add("next_state", episode.state(min(turn + horizon, episode.turns)))
                for ahead in range(1, horizon + 1):
                    add("next_states", episode.state(min(turn + ahead, episode.turns)))
            if "fresh" in found:
                for number, turn in enumerate(map(int, row.states)):
                    state = episode.state(turn)
                    add("fresh_state", state)
                    for tokens in row.fresh_at(number):
                        add("fresh", np.concatenate((state, tokens)))
        lengths = np.array([len(sequence) for sequence in sequences])
        shape = (len(sequences), int(lengths.max()))
        ids = np.full(shape, self.pad_token_id, dtype=np.int64)
        for index, sequence in enumerate(sequences):
            ids[index, : len(sequence)] = sequence
        column = torch.from_numpy(np.zeros_like(lengths) if self.read_first else lengths - 1)
        points = {}
        for part, indices in found.items():
            at = torch.tensor(indices, dtype=torch.long)
            if part == "next_states":
                at = at.view(sum(len(row.turns) for row in rows), -1)
            elif part == "fresh":
                at = at[torch.from_numpy(_table(rows))]
            elif part == "fresh_state":
                at = at.unsqueeze(1).expand(-1, _table(rows).shape[1])
            points[part] = Points(at, column[at])
        position = torch.arange(shape[1]).expand(shape)
        mask = torch.arange(shape[1]) < torch.from_numpy(lengths).unsqueeze(1)
        return Layout(torch.from_numpy(ids), position, mask, points)


def _table(rows: Sequence[Row]) -> np.ndarray:
    """Return the number of each fresh action, int64 [states, most actions]; a state repeats its last one."""
    counts = np.concatenate([row.fresh.counts for row in rows if row.fresh is not None])
    first = np.cumsum(counts) - counts
    return first[:, None] + np.minimum(np.arange(counts.max()), counts[:, None] - 1)
