"""Many actions at many states: one pass over each episode, and shared passes for actions that begin alike.

States that are prefixes of one another lie in one trunk, which a causal pass encodes once. The actions of a state form
a tree of tokens. Each node is computed once, however many actions pass through it; each of these actions then draws its
own next token from the node's distribution. So the actions are independent samples, as if each were computed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from actors.inline.draws import draw
from actors.inline.endings import Endings
from actors.inline.model import InlineModel, mask_of

PASS_TOKENS = 8192
"""Most tokens of the trunks of one pass; a longer trunk is alone in its pass."""
LOGITS_AT_ONCE = 1 << 23
"""Most logits in memory at once, which counts with large vocabularies."""


@dataclass(frozen=True)
class Sampled:
    """Actions in the order of the request.

    tokens: int64 [actions, longest]; lengths: int64 [actions]; logprobs: float32 [actions, longest].
    """

    tokens: np.ndarray
    lengths: np.ndarray
    logprobs: np.ndarray

    def flat(self) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens and log-probabilities of all actions in order, [total] each."""
        inside = np.arange(self.tokens.shape[1]) < self.lengths[:, None]
        return self.tokens[inside], self.logprobs[inside]


def trunks(states: Sequence[np.ndarray]) -> tuple[list[int], np.ndarray]:
    """Return the states that are no prefix of another state, and for each state the one that it is a prefix of.

    The first are indices of states; the second, int64 [states], are indices of the first.
    """
    # Big-endian numbers without a sign sort like the tokens, and a prefix comes right before what it is a prefix of.
    keys = [np.asarray(state, dtype=">u4").tobytes() for state in states]
    longest: list[int] = []
    trunk_of = np.zeros(len(states), np.int64)
    for i in sorted(range(len(keys)), key=keys.__getitem__, reverse=True):
        if not longest or not keys[longest[-1]].startswith(keys[i]):
            longest.append(i)
        trunk_of[i] = len(longest) - 1
    return longest, trunk_of


def passes(lengths: np.ndarray) -> list[np.ndarray]:
    """Return the trunks of each pass, of similar lengths, so that little is padded."""
    found: list[list[int]] = [[]]
    for i in np.argsort(-lengths, kind="stable").tolist():
        # The first trunk of a pass is its longest.
        if found[-1] and lengths[found[-1][0]] * (len(found[-1]) + 1) > PASS_TOKENS:
            found.append([])
        found[-1].append(i)
    return [np.array(part) for part in found if part]


def sample_tree(
    model: InlineModel,
    states: Sequence[np.ndarray],
    counts: np.ndarray,
    endings: Endings,
    *,
    temperature: float,
    generator: np.random.Generator,
) -> Sampled:
    """Return `counts[i]` actions at each state i; `endings` decide where they end.

    Args:
        states: int32 token ids, each of at least one token; equal states and prefixes of others are encoded once.
        counts: int64 [states], each at least 1.
    """
    longest, trunk_of = trunks(states)
    of = np.repeat(np.arange(len(states)), counts)
    result = Sampled(
        np.zeros((len(of), endings.longest), np.int64),
        np.zeros(len(of), np.int64),
        np.zeros((len(of), endings.longest), np.float32),
    )
    lengths = np.array([len(states[i]) for i in longest])
    ends = np.array([len(state) for state in states])
    for part in passes(lengths):
        row_of_trunk = np.full(len(longest), -1)
        row_of_trunk[part] = np.arange(len(part))
        rows = row_of_trunk[trunk_of[of]]
        mine = np.flatnonzero(rows >= 0)
        trunk_ids = np.zeros((len(part), int(lengths[part].max())), np.int64)
        for row, trunk in enumerate(part.tolist()):
            trunk_ids[row, : lengths[trunk]] = states[longest[trunk]]
        growing = _Growing(model, trunk_ids, rows[mine], ends[of[mine]])
        _grow(growing, mine, endings, result, temperature, generator)
    return result


def _grow(
    tree: _Growing,
    actions: np.ndarray,
    endings: Endings,
    result: Sampled,
    temperature: float,
    generator: np.random.Generator,
) -> None:
    """Sample token by token until each of `actions`, which index `result`, has ended."""
    depth = 0
    while len(actions):
        tokens, logprobs = tree.draw(temperature, generator)
        result.tokens[actions, depth] = tokens
        result.logprobs[actions, depth] = logprobs
        depth += 1
        result.lengths[actions] = depth
        going = endings.going_on(actions, result.tokens, result.lengths)
        actions = actions[going]
        if len(actions):
            tree.extend(going, tokens)


class _Growing:
    """The trees of one pass: the nodes of the present depth, and the node of each action that has not ended.

    Attributes:
        node: int64 [actions], the node at which each action stands.

    Args:
        trunk_ids: int64 [rows, longest], padded at the end.
        rows, ends: int64 [actions], the trunk of each action and the number of its tokens that are the action's state.
    """

    def __init__(self, model: InlineModel, trunk_ids: np.ndarray, rows: np.ndarray, ends: np.ndarray) -> None:
        self._model = model
        self._cache = DynamicCache()
        hidden = model.hidden(torch.from_numpy(trunk_ids), cache=self._cache)
        width = trunk_ids.shape[1]
        # Equal states are one node. Nodes are in the order of their rows, here and after each step.
        keys, self.node = np.unique(rows * (width + 1) + ends, return_inverse=True)
        self._row, self._position = keys // (width + 1), keys % (width + 1)
        self._hidden: Tensor = hidden[torch.from_numpy(self._row), torch.from_numpy(self._position - 1)]
        # The columns of its row that a node attends to: the state, then its ancestors.
        self._seen = np.arange(width) < self._position[:, None]

    def draw(self, temperature: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the next token of each action, int64 [actions], and its log-probability, float32 [actions]."""
        tokens = np.zeros(len(self.node), np.int64)
        found = np.zeros(len(self.node), np.float32)
        nodes = max(LOGITS_AT_ONCE // self._model.vocabulary, 1)
        for first in range(0, len(self._row), nodes):
            logprobs = self._model.logprobs(self._hidden[first : first + nodes], temperature)
            mine = np.flatnonzero((self.node >= first) & (self.node < first + nodes))
            of = self.node[mine] - first
            tokens[mine] = draw(logprobs, of, generator)
            found[mine] = logprobs[of, tokens[mine]]
        return tokens, found

    def extend(self, going: np.ndarray, tokens: np.ndarray) -> None:
        """Step to the children that the actions with `going` have drawn, with one pass over all children."""
        size = int(tokens.max()) + 1
        keys, self.node = np.unique(self.node[going] * size + tokens[going], return_inverse=True)
        parent, token = keys // size, keys % size
        row, position = self._row[parent], self._position[parent]
        slot = np.arange(len(row)) - np.searchsorted(row, row)
        shape = (self._cache.layers[0].keys.shape[0], int(slot.max()) + 1)
        ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        ids[row, slot], positions[row, slot] = token, position
        own = slot[:, None] == np.arange(shape[1])
        self._seen = np.concatenate([self._seen[parent], own], 1)
        # A pad attends to the first token of the trunk, because no softmax may be empty.
        seen = np.zeros((*shape, self._seen.shape[1]), bool)
        seen[:, :, 0] = True
        seen[row, slot] = self._seen
        hidden = self._model.hidden(
            torch.from_numpy(ids), positions=torch.from_numpy(positions), mask=mask_of(seen), cache=self._cache
        )
        self._row, self._position = row, position + 1
        self._hidden = hidden[torch.from_numpy(row), torch.from_numpy(slot)]
