"""One episode as a conversation: its messages in turns, each action with its tokens and its values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]

_PLAIN = (
    "episode_id",
    "env",
    "task_id",
    "seed",
    "stage",
    "evaluation",
    "cycle",
    "version",
    "greedy",
    "terminated",
    "truncated",
    "success",
    "window_truncated",
    "worker",
)
_VALUES = ("cycle", "version", "q", "v", "advantage", "target")


def conversation(row: Record, values: Sequence[Record] = ()) -> Record:
    """Return an episode for a page.

    Args:
        row: a row of `history/episodes`, or of demonstrations, as Python values.
        values: rows of `history/values` of the episode, and of `history/newest` with `newest` true.
    """
    turns = _turns(row)
    for turn in turns:
        of_turn = sorted((v for v in values if v["turn"] == turn["turn"]), key=lambda v: v["cycle"])
        used = [v for v in of_turn if not v.get("newest")]
        newest = [v for v in of_turn if v.get("newest")]
        turn["values"] = [{key: v[key] for key in _VALUES} for v in used]
        turn["newest"] = {key: newest[-1][key] for key in _VALUES} if newest else None
        if used and used[0].get("token_advantage") and len(used[0]["token_advantage"]) == len(turn["tokens"]):
            for token, advantage in zip(turn["tokens"], used[0]["token_advantage"], strict=True):
                token["advantage"] = advantage
    created = row.get("created_at")
    return {
        **{name: row.get(name) for name in _PLAIN},
        "created_at": created.isoformat() if created else None,
        "return": sum(row["reward"]),
        "end": ended_by(row),
        "opening": _opening(row),
        "turns": turns,
    }


def ended_by(row: Record) -> str:
    """Return why an episode ended, as a few words."""
    if row["terminated"]:
        return "the task ended"
    if row.get("window_truncated"):
        return "the context window was full"
    return "truncated: turn limit or environment" if row["truncated"] else "not at an end"


def _opening(row: Record) -> list[Record]:
    """Return the messages before the first action."""
    messages = row.get("messages") or []
    first = next((i for i, message in enumerate(messages) if message["role"] == "assistant"), len(messages))
    return messages[:first]


def _turns(row: Record) -> list[Record]:
    messages = row.get("messages") or []
    said = _answers(messages)
    found, at = [], 0
    for turn, (start, end) in enumerate(zip(row["action_start"], row["action_end"], strict=True)):
        span = slice(at, at + end - start)
        at += end - start
        action, after = said[turn] if turn < len(said) else ("", [])
        found.append(
            {
                "turn": turn,
                "reward": row["reward"][turn],
                "action": action,
                "tokens": _tokens(row, span),
                "after": after,
                **{name: _at(row.get(name), turn) for name in ("stop", "action_seconds", "env_seconds", "invalid")},
            }
        )
    return found


def _answers(messages: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """Return each action's text with the messages that followed it.

    An assistant message that an environment shows before the first action would shift the turns; none does.
    """
    found: list[tuple[str, list[Record]]] = []
    for message in messages:
        if message["role"] == "assistant":
            found.append((message["content"], []))
        elif found:
            found[-1][1].append(message)
    return found


def _tokens(row: Record, span: slice) -> list[Record]:
    texts = row.get("action_text")
    if not texts:
        return []
    parts = zip(texts[span], row["logprobs"][span], row["versions"][span], strict=True)
    return [{"text": text, "logprob": logprob, "version": version} for text, logprob, version in parts]


def _at(values: Sequence[Any] | None, turn: int) -> Any:
    return values[turn] if values is not None and turn < len(values) else None
