"""The summary of a run: the numbers of summary.json, and a table of them for the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from archer.driver.progress import duration
from archer.results.notes import notes
from archer.results.statistics import EvalResult

Row = dict[str, Any]

_CRITIC = (
    "explained_variance",
    "correlation",
    "bias",
    "value_start",
    "return_start",
    "exact_correlation",
    "exact_best",
    "exact_regret",
)
"""The figures of the critic that a cycle has (docs/algorithms.md)."""


def summarise(
    rows: list[Row],
    *,
    name: str,
    env: str,
    wall_seconds: float,
    state: Row | None = None,
    best: Row | None = None,
    algorithm: str = "archer",
    observations: bool = False,
) -> Row:
    """Return the content of summary.json.

    `bc_return` and `final_return` come from the evaluations named clone and final; they are null if there was none.
    `clone_held_out` is the last loss of cloning on held-out demonstrations, null if none were held out.
    `critic` has the figures of the last cycle that measured them.
    `dropped` counts the episodes of cycles and evaluations that could not be played, and has the first reason; it is
    null if there are none.
    `restarts` counts the times that the ranks restarted after the death of one, and has the first reason, likewise.

    Args:
        rows: the rows of metrics.jsonl.
        wall_seconds: of the whole run, resumed parts included.
        state: the last checkpoint's counters.
        best: the evaluation of the policy in `best/`.
        observations: whether the clone has learnt observation tokens.
    """
    state = state or {}
    metrics = [row["metrics"] for row in rows if row["kind"] == "cycle"]
    last = metrics[-1] if metrics else {}
    evaluations = {row["name"]: row for row in rows if row["kind"] == "evaluation"}
    clone, final = evaluations.get("clone"), evaluations.get("final")
    gaps = [m["proof_gap"] for m in metrics if m.get("proof_gap") is not None]
    gaps += [state["proof_max_gap"]] if state.get("proof_max_gap") is not None else []
    summary = {
        "name": name,
        "env": env,
        "clone_held_out": _held_out(rows),
        "dropped": _dropped(rows),
        "restarts": _restarts(rows),
        **_evaluated("bc", clone),
        **_evaluated("final", final),
        **_best(best, env),
        "improvement": final["return_mean"] - clone["return_mean"] if clone and final else None,
        "episodes": int(state.get("episodes", last.get("episodes", 0))),
        "cycles": int(state.get("cycle", len(metrics))),
        "turns": int(state.get("turns", last.get("turns", 0))),
        "policy_version": int(state.get("version", last.get("policy_version", 0))),
        "proof_max_gap": max(gaps) if gaps else None,
        "passes": _passes(rows),
        "last_sampled_return": last.get("return"),
        "wall_seconds": round(wall_seconds, 1),
        "phase_seconds": _phase_seconds(metrics),
        "critic": _critic(metrics),
    }
    return summary | {"notes": notes(summary, rows, algorithm=algorithm, observations=observations)}


def _phase_seconds(metrics: list[Row]) -> dict[str, float]:
    """Return the seconds of each phase in all cycles; a run without a warm-up on data has none of it."""
    phases = ("rollout", "warmup", "critic", "actor", "broadcast")
    found = {phase: round(sum(m.get(f"seconds/{phase}") or 0.0 for m in metrics), 1) for phase in phases}
    return {phase: seconds for phase, seconds in found.items() if seconds or phase != "warmup"}


def _best(evaluation: Row | None, env: str) -> Row:
    row = None if evaluation is None else vars(EvalResult.from_event(evaluation, env=env))
    named = evaluation or {}
    return _evaluated("best", row) | {"best_evaluation": named.get("name"), "best_cycle": named.get("cycle")}


def _critic(metrics: list[Row]) -> Row | None:
    measured = [m for m in metrics if m.get("critic/bias") is not None]
    if not measured:
        return None
    return {key: value for key in _CRITIC if (value := measured[-1].get(f"critic/{key}")) is not None}


def _dropped(rows: list[Row]) -> Row | None:
    """Return how many episodes could not be played, and the first reason; None if all could."""
    found = [row for row in rows if row["kind"] == "dropped"]
    if not found:
        return None
    return {"episodes": sum(row["episodes"] for row in found), "reason": found[0]["reason"]}


def _restarts(rows: list[Row]) -> Row | None:
    """Return how often the ranks restarted, and the first reason; None if they never did."""
    found = [row for row in rows if row["kind"] == "restart"]
    return {"times": len(found), "reason": found[0]["reason"]} if found else None


def _held_out(rows: list[Row]) -> Row | None:
    """Return the last held-out loss in nats per action token and per observation token, and the steps before it."""
    measured = [row for row in rows if row["kind"] == "held_out"]
    if not measured:
        return None
    metrics = measured[-1]["metrics"]
    return {
        "action_loss": metrics["clone/held_out_action_loss"],
        "observation_loss": metrics.get("clone/held_out_observation_loss"),
        "steps": measured[-1]["step"],
    }


def _passes(rows: list[Row]) -> Row | None:
    """Return how the learner ran each model, and the largest gap of its passes; None in rows of an earlier version."""
    proofs = [row for row in rows if row["kind"] == "passes"]
    if not proofs:
        return None
    models = {role: proof["passes"] for role, proof in proofs[-1]["models"].items()}
    return {"gap": max(row["gap"] for row in proofs), **models}


def _evaluated(prefix: str, row: Row | None) -> Row:
    row = row or {}
    return {
        f"{prefix}_return": row.get("return_mean"),
        f"{prefix}_interval": [row["return_low"], row["return_high"]] if row else None,
        f"{prefix}_success_rate": row.get("success_rate"),
        f"{prefix}_evaluation_episodes": row.get("episodes"),
    }


def print_summary(summary: dict[str, Any], console: Console | None = None) -> None:
    """Print the summary as a table."""
    columns = Column(style="dim"), Column(justify="right"), Column(style="dim")
    title = f"{summary['name']} on {summary['env']}"
    table = Table(*columns, title=title, title_justify="left", box=None, show_header=False)
    held_out = summary["clone_held_out"]
    if held_out is not None:
        observation = held_out["observation_loss"]
        beside = "" if observation is None else f"; observations {observation:.3f}"
        note = f"nats a token{beside}; {held_out['steps']} steps"
        table.add_row("held-out loss, clone", f"{held_out['action_loss']:.3f}", note)
    for label, key in (("cloned policy", "bc"), ("best policy", "best"), ("final policy", "final")):
        mean, interval, success = summary[f"{key}_return"], summary[f"{key}_interval"], summary[f"{key}_success_rate"]
        if mean is not None:
            rate = "" if success is None else f", success {success:.0%}"
            rate += f", cycle {summary['best_cycle']}" if key == "best" else ""
            table.add_row(f"return, {label}", f"{mean:.2f}", f"95% {interval[0]:.2f} to {interval[1]:.2f}{rate}")
    if summary["improvement"] is not None:
        table.add_row("improvement", f"{summary['improvement']:+.2f}", "")
    table.add_row("episodes", f"{summary['episodes']:,}", f"in {summary['cycles']} cycles")
    table.add_row("policy version", str(summary["policy_version"]), "")
    for line in _critic_lines(summary["critic"] or {}):
        table.add_row(*line)
    if summary["proof_max_gap"] is not None:
        table.add_row("broadcast proof", f"{summary['proof_max_gap']:.1e}", "largest gap in log-probability")
    if summary["passes"] is not None:
        kinds = ", ".join(f"{role} {kind}" for role, kind in summary["passes"].items() if role != "gap")
        table.add_row("proof of passes", f"{summary['passes']['gap']:.1e}", f"to the model's own; {kinds}")
    phases = ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in summary["phase_seconds"].items())
    table.add_row("time", duration(summary["wall_seconds"]), phases)
    out = console or Console()
    out.print(table)
    for note in summary["notes"]:
        out.print(Text(note, style="yellow"), soft_wrap=True)


def _critic_lines(critic: Row) -> list[tuple[str, str, str]]:
    """Return the figures of the critic as lines of the table."""
    if not critic:
        return []
    explained = critic.get("explained_variance")
    start = f"V(s_0) {critic['value_start']:.2f}, return {critic['return_start']:.2f}, bias {critic['bias']:+.2f}"
    lines = [("explained variance", "none" if explained is None else f"{explained:z.2f}", start)]
    if (best := critic.get("exact_best")) is not None:
        correlation = critic.get("exact_correlation")
        shown = "none" if correlation is None else f"{correlation:.2f}"
        rest = f"best action in {best:.0%}, regret {critic['exact_regret']:.2f} a turn"
        lines.append(("correlation with Q*", shown, rest))
    return lines
