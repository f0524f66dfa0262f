"""Made-up runs in the form of real run folders, for the viewer's benchmark, its tests and its pictures.

The files are those that a run writes, through the same code; only what the episodes say is made up: a player asks
yes-no questions to find a word, and finds it sooner in later cycles.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from buffer.episodes.schema import Episode, episodes_to_batch
from learner.history.episodes import EPISODE_TABLE
from learner.history.folder import EPISODES, NEWEST, VALUES, HistoryFolder
from learner.history.values import VALUE_TABLE

WORDS = ("apple", "violin", "glacier", "lantern", "otter", "compass", "teapot", "meadow", "rocket", "pillow")
_ASKED = (
    "Is it alive?",
    "Can you hold it in one hand?",
    "Is it found in a house?",
    "Is it made of metal?",
    "Would you find it outdoors?",
    "Is it larger than a car?",
    "Does it make a sound?",
    "Can you eat it?",
)
_START = datetime(2026, 3, 1, 9, tzinfo=UTC)
_UNLIMITED = 1 << 40
_AGAIN = 6


@dataclass(frozen=True)
class MadeRun:
    """The size of a made-up run: `cycles` of `episodes` training episodes, and evaluations every `every` cycles."""

    name: str
    cycles: int = 12
    episodes: int = 16
    every: int = 3
    evaluated: int = 8
    algorithm: str = "archer"
    seed: int = 0


def write_run(root: Path, made: MadeRun, *, finished: bool = True) -> Path:
    """Write the folder of a made-up run into `root` and return its path."""
    path, rng = root / made.name, np.random.default_rng(made.seed)
    path.mkdir(parents=True)
    env = {"id": "twenty_questions", "kwargs": {}}
    config = {"name": made.name, "algorithm": made.algorithm, "seed": made.seed, "cycles": made.cycles, "env": env}
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    folder = HistoryFolder(path, _UNLIMITED)
    rows = [_evaluate(folder, made, rng, 0, "clone")]
    earlier: list[dict[str, Any]] = []
    for cycle in range(1, made.cycles + 1):
        seeds = range((cycle - 1) * made.episodes, cycle * made.episodes)
        played = [_episode(rng, made, seed, cycle - 1, f"{made.name}-sampled-{seed}") for seed in seeds]
        folder.write(EPISODES, cycle, "training", _table(played, "training", cycle))
        # Replay returns earlier episodes too, so that a turn has values of several cycles.
        folder.write(VALUES, cycle, "rank-0", _values(rng, [*played, *earlier], cycle))
        earlier = played[:_AGAIN]
        rows.append(_cycle(rng, made, played, cycle))
        if cycle % made.every == 0 and cycle < made.cycles:
            rows.append(_evaluate(folder, made, rng, cycle, f"cycle-{cycle}"))
    if finished:
        rows.append(_evaluate(folder, made, rng, made.cycles, "final"))
        if made.algorithm == "archer":  # the others have no utterance critic
            seen = _values(rng, played, made.cycles)
            no_target = pa.nulls(len(seen), pa.float32())
            at = seen.schema.get_field_index("target")
            folder.write(NEWEST, made.cycles, "rank-0", seen.set_column(at, seen.schema.field(at), no_target))
        summary = {"name": made.name, "env": "twenty_questions", "cycles": made.cycles, "notes": []}
        (path / "summary.json").write_text(json.dumps(summary))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _skill(made: MadeRun, cycle: int) -> float:
    return 0.2 + 0.7 / (1 + math.exp(-8 * (cycle / max(made.cycles, 1) - 0.4)))


def _episode(rng: np.random.Generator, made: MadeRun, seed: int, version: int, name: str) -> dict[str, Any]:
    """Return an episode with what its row has beside it."""
    word = WORDS[seed % len(WORDS)]
    questions = int(np.clip(rng.normal(8 - 6 * _skill(made, version), 1.2), 1, 8))
    asked = [_ASKED[i] for i in rng.permutation(len(_ASKED))[:questions]]
    success = bool(rng.random() < _skill(made, version))
    actions = [*asked, f"Is it {'an' if word[0] in 'aeiou' else 'a'} {word if success else rng.choice(WORDS)}?"]
    messages = [{"role": "user", "content": "I am thinking of a word. Ask yes-no questions to find it."}]
    texts: list[list[str]] = []
    for turn, action in enumerate(actions):
        words = action.split(" ")
        texts.append([words[0], *(f" {part}" for part in words[1:]), "\n"])
        said = "Yes." if turn < questions and rng.random() < 0.5 else "No."
        if turn == questions:
            said = "Yes, that is the word." if success else f"No. The word was {word}."
        messages += [{"role": "assistant", "content": action}, {"role": "user", "content": said}]
    lengths = np.array([len(part) for part in texts])
    start = 14 + np.cumsum([0, *(lengths[:-1] + 3)])
    written = int(lengths.sum())
    versions = np.full(written, version, np.int32)
    if seed % 7 == 3 and version > 0:
        versions[: written // 2] -= 1  # the policy changed while the episode was played
    episode = Episode(
        episode_id=name,
        env="twenty_questions",
        task_id=word,
        seed=seed,
        worker="worker-0",
        tokens=rng.integers(0, 4000, int(start[-1] + lengths[-1] + 3)).astype(np.int32),
        action_start=start.astype(np.int32),
        action_end=(start + lengths).astype(np.int32),
        reward=np.array([-1.0] * questions + [0.0 if success else -1.0], np.float32),
        logprobs=np.minimum(-rng.exponential(1.1 - _skill(made, version), written), 0).astype(np.float32),
        versions=versions,
        terminated=True,
        truncated=False,
        success=success,
        messages=messages,
        created_at=_START + timedelta(seconds=60 * version + seed % 50),
    )
    seconds = rng.gamma(2, 0.05, (2, len(actions)))
    return {"episode": episode, "text": [piece for part in texts for piece in part], "seconds": seconds}


def _table(played: list[dict[str, Any]], stage: str, cycle: int, evaluation: str | None = None) -> pa.Table:
    episodes = [one["episode"] for one in played]
    batch = episodes_to_batch(episodes)
    count = len(episodes)
    added = {
        "stage": [stage] * count,
        "evaluation": [evaluation] * count,
        "cycle": [cycle] * count,
        "version": [int(episode.versions.max()) for episode in episodes],
        "greedy": [False] * count,
        "stop": [["stop token"] * episode.turns for episode in episodes],
        "action_seconds": [one["seconds"][0] for one in played],
        "env_seconds": [one["seconds"][1] / 50 for one in played],
        "invalid": [[False] * episode.turns for episode in episodes],
        "window_truncated": [False] * count,
        "action_text": [one["text"] for one in played],
    }
    columns = [pa.array(values, EPISODE_TABLE.field(name).type) for name, values in added.items()]
    return pa.Table.from_arrays([*batch.columns, *columns], schema=EPISODE_TABLE)


def _values(rng: np.random.Generator, played: list[dict[str, Any]], cycle: int) -> pa.Table:
    rows = [(one["episode"].episode_id, turn, one["episode"]) for one in played for turn in range(one["episode"].turns)]
    to_go = np.array([float(episode.reward[turn:].sum()) for _, turn, episode in rows])
    v = to_go * 0.7 + rng.normal(0, 0.4, len(rows)) - 0.8
    q = v + rng.normal(0, 0.5, len(rows))
    numbers = [q, v, q - v, to_go]
    constants = [pa.array(np.full(len(rows), value, np.int32)) for value in (cycle, cycle - 1)]
    columns = [pa.array([row[0] for row in rows]), pa.array([row[1] for row in rows], pa.int32()), *constants]
    columns += [pa.array(column.astype(np.float32)) for column in numbers]
    return pa.Table.from_arrays([*columns, pa.nulls(len(rows), pa.list_(pa.float32()))], schema=VALUE_TABLE)


def _evaluate(folder: HistoryFolder, made: MadeRun, rng: np.random.Generator, cycle: int, name: str) -> dict[str, Any]:
    ids = ((2**30 + i, f"{made.name}-eval-{name}-{i}") for i in range(made.evaluated))
    played = [_episode(rng, made, seed, cycle, one) for seed, one in ids]
    folder.write(EPISODES, cycle, f"eval-{name}", _table(played, "evaluation", cycle, name))
    returns = np.array([one["episode"].ret for one in played])
    half = 1.96 * float(returns.std()) / len(returns) ** 0.5
    mean, time = float(returns.mean()), _START.timestamp() + 60.0 * cycle + 55
    return {
        "kind": "evaluation",
        "name": name,
        "collected_episodes": cycle * made.episodes,
        "cycle": cycle,
        "time": time,
        "return_mean": mean,
        "return_low": mean - half,
        "return_high": mean + half,
        "success_rate": float(np.mean([one["episode"].success for one in played])),
        "episodes": len(returns),
    }


def _cycle(rng: np.random.Generator, made: MadeRun, played: list[dict[str, Any]], cycle: int) -> dict[str, Any]:
    episodes = [one["episode"] for one in played]
    learnt = _skill(made, cycle)
    metrics = {
        "return": float(np.mean([episode.ret for episode in episodes])),
        "success_rate": float(np.mean([episode.success for episode in episodes])),
        "mean_turns": float(np.mean([episode.turns for episode in episodes])),
        "staleness": 0.1,
        "tokens_per_second": float(rng.normal(900, 40)),
        "episodes": cycle * made.episodes,
        "policy_version": cycle,
        "critic/explained_variance": float(np.clip(learnt - 0.1 + rng.normal(0, 0.04), -1, 1)),
        "critic/bias": 0.1,
        "critic/value_start": -6.0 + 4 * learnt,
        "critic/return_start": -5.6 + 4 * learnt,
        "critic/q_loss": float(2 * (1.1 - learnt) + rng.exponential(0.05)),
        "actor/loss": float(1.1 - learnt + rng.exponential(0.02)),
        "seconds/rollout": float(rng.normal(20, 1)),
        "seconds/critic": float(rng.normal(25, 1)),
        "seconds/actor": float(rng.normal(9, 0.5)),
        "seconds/broadcast": 0.8,
        "wall_seconds": 60.0 * cycle,
    }
    return {"kind": "cycle", "cycle": cycle, "metrics": metrics, "time": _START.timestamp() + 60.0 * cycle}


def made_runs(root: Path) -> Iterator[Path]:
    """Yield three made-up runs: two methods that ended, and one under way."""
    yield write_run(root, MadeRun("questions-archer", seed=1))
    yield write_run(root, MadeRun("questions-ppo", algorithm="ppo", seed=2))
    yield write_run(root, MadeRun("questions-long", cycles=30, seed=3), finished=False)
