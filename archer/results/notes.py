"""What the summary of a run says in sentences: a critic that knows nothing, a best policy before the end, a fall."""

from __future__ import annotations

from typing import Any

from archer.driver.clone_watch import CloneWatch

Row = dict[str, Any]

_EXPLAINS_NOTHING = 0.05
"""Explained variance up to which a critic counts as no better than the mean; the figure itself is noisy."""
_REMEDIES = {
    "ppo": "train the value function longer before the policy follows it (learner.ppo.warmup_cycles), or faster "
    "(learner.ppo.value_lr)",
    "chai": "give it more steps (learner.critic.steps_per_cycle)",
}
_REMEDY = (
    "give it more steps before the policy follows it (learner.critic.warmup_steps) and in each cycle "
    "(learner.critic.steps_per_cycle or updates_per_turn)"
)


def notes(summary: Row, rows: list[Row], *, algorithm: str, observations: bool) -> list[str]:
    """Return the sentences about a run, from its summary and the rows of its metrics.jsonl.

    `observations` is whether the clone has learnt observation tokens.
    """
    figures = (_critic(summary, algorithm, observations), _best(summary), _fall(summary, rows))
    found = (*figures, _dropped(summary), _restarts(summary))
    return [note for note in found if note is not None]


def _critic(summary: Row, algorithm: str, observations: bool) -> str | None:
    explained = (summary["critic"] or {}).get("explained_variance")
    if explained is None or explained > _EXPLAINS_NOTHING:
        return None
    features = "clone observation tokens too (learner.clone.observation_weight=1), so that its features carry the state"
    clone = "" if observations else f", and {features}"
    return (
        "The critic is no better than predicting the mean return: on the last new episodes its explained variance is "
        f"{explained:z.2f}. Its advantages are noise; {_REMEDIES.get(algorithm, _REMEDY)}{clone}."
    )


def _best(summary: Row) -> str | None:
    best, final = summary["best_return"], summary["final_return"]
    if best is None or final is None or summary["best_evaluation"] == "final":
        return None
    of = "clone" if summary["best_evaluation"] == "clone" else f"policy of cycle {summary['best_cycle']}"
    low, high = summary["best_interval"]
    within = "within the interval of" if low <= final <= high else "outside the interval of"
    return (
        f"The best evaluated policy is the {of}, which `archer eval` plays; the final return is {within} its "
        "evaluation. `archer eval --last` plays the final policy."
    )


def _dropped(summary: Row) -> str | None:
    dropped = summary["dropped"]
    if dropped is None:
        return None
    return (
        f"{dropped['episodes']} episodes could not be played and are in no figure, which may bias the figures. The "
        f"first reason: {dropped['reason']}"
    )


def _restarts(summary: Row) -> str | None:
    restarts = summary["restarts"]
    if restarts is None:
        return None
    return (
        f"The learner's ranks restarted {restarts['times']} times from a checkpoint and repeated what followed it. The "
        f"first reason: {restarts['reason']}."
    )


def _fall(summary: Row, rows: list[Row]) -> str | None:
    watch = CloneWatch()
    for row in rows:
        watch.note(row)
    if not watch.below:
        return None
    shown = ", ".join(watch.below[:5]) + (f" and {len(watch.below) - 5} more" if len(watch.below) > 5 else "")
    return f"The return fell below that of the clone, {summary['bc_return']:.2f}, by more than the interval: {shown}."
