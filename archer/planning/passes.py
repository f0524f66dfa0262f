"""Activations: the bytes that the largest micro-batch of each kind of step keeps at once.

The learner's own modules and encoders run without arithmetic (`FakeTensorMode`), with one layer and with two. Each
further layer takes as much as the second one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from archer.errors import RunError
from archer.planning.counting import PeakBytes, held
from archer.planning.stage import Stage
from learner.models.pretrained import packs
from learner.passes.layout import Part as LayoutPart
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row

if TYPE_CHECKING:
    from archer.planning.parts import Shapes
    from archer.planning.workload import Workload
    from learner.config import LearnerConfig

Pass = Callable[[], Tensor | None]


def activation_bytes(
    mode: FakeTensorMode,
    stages: Callable[[int], tuple[Shapes, Stage]],
    layers: dict[str, int],
    passes: Callable[[Shapes, Stage], dict[str, Pass]],
) -> dict[str, float]:
    """Return the peak of each kind of step of a stage in bytes, by the name of the part that it trains.

    Args:
        mode: in which the modules are made.
        stages: returns the setup and the stage with models of a number of layers.
        layers: the number of layers of the backbone of each trained part.
        passes: returns the passes of a stage.
    """
    measured = []
    for depth in (1, 2):
        setup, stage = stages(depth)
        runs = passes(setup, stage)
        with mode:
            measured.append({name: peak_bytes(stage, run) for name, run in runs.items()})
    first, second = measured
    return {name: first[name] + (layers[name] - 1) * (second[name] - first[name]) for name in first}


def peak_bytes(stage: Stage, run: Pass) -> float:
    """Return the most bytes that a forward and a backward pass hold at once beside weights and gradients."""
    with PeakBytes([tensor for part in stage.parts for tensor in held(part.module)]) as counter:
        loss = run()
        if loss is not None:
            loss.backward()
    return float(counter.peak)


def stage_passes(setup: Shapes, stage: Stage, algorithm: str, loads: dict[str, Workload]) -> dict[str, Pass]:
    """Return the passes of one micro-batch of each kind of step, by the part that it trains.

    Args:
        loads: the micro-batch of each part.
    """
    policy: Any = stage.module("policy")
    if not packs(policy.model):
        raise RunError(
            "the passes of the policy run as separate sequences (learner.passes), whose activations are not counted"
        )
    config, section = setup.config, setup.config.section_of(algorithm)
    if stage.name == "cloning" or not section.has_critic:
        clones = stage.name == "cloning"
        parts: tuple[LayoutPart, ...] = ("action",)
        if clones and config.clone.observation_weight:
            parts += ("observation",)
        texts = clones and config.clone.privileged_weight > 0
        rows = loads["policy"].batch(whole=True, fresh=0)
        found = {"policy": _policy_pass(setup, stage, rows, parts, texts=texts)}
        value: Any = stage.module("value")
        if value is not None:
            layout = PackedEncoder(0).encode(rows, ("action", "next_state"))
            found["value"] = lambda: value(layout, layout.predictions["action"])[0].sum()
        return found
    return {
        **actor_pass(setup, stage, algorithm, loads["policy"]),
        "critic": critic_pass(setup, stage, loads["critic"]),
    }


def actor_pass(setup: Shapes, stage: Stage, algorithm: str, load: Workload) -> dict[str, Pass]:
    """Return the pass of the policy's step in the cycles, by the name of its part; none where the policy is frozen."""
    config = setup.config
    if algorithm == "chai":
        return {}
    if algorithm == "archer_offline":
        rows = load.batch(whole=config.offline.unit == "episode", fresh=0)
        return {"policy": _policy_pass(setup, stage, rows, ("action",))}
    rows = load.batch(whole=config.actor.unit == "episode", fresh=config.actor.fresh_per_state)
    return {"policy": _policy_pass(setup, stage, rows, ("fresh",), horizon=0)}


def _policy_pass(
    setup: Shapes,
    stage: Stage,
    rows: Sequence[Row],
    parts: Sequence[LayoutPart],
    horizon: int = 1,
    *,
    texts: bool = False,
) -> Pass:
    policy: Any = stage.module("policy")
    reference: Any = stage.module("reference")
    encoder = PackedEncoder(0, setup.text_tokens)
    layout = encoder.encode(rows, (*parts, "privileged") if texts else parts, horizon)

    def run() -> Tensor:
        found = [policy(layout, layout.predictions[part]) for part in parts]
        loss: Tensor = sum(value.sum() for part in found for value in (part if texts else (part,)))
        if reference is not None:
            with torch.no_grad():
                reference(layout, layout.predictions[parts[0]])
        return loss

    return run


def critic_pass(setup: Shapes, stage: Stage, load: Workload) -> Pass:
    """Return the passes of the critic's step: of the target network, and of the critic."""
    critic: Any = stage.module("critic")
    target: Any = stage.module("target")
    config: LearnerConfig = setup.config
    settings, encoder = config.critic, setup.critic_encoder()
    by_fresh = settings.value == "fresh"
    rows = load.batch(whole=settings.unit == "episode", fresh=settings.fresh_per_state, bootstraps=by_fresh)
    observed: tuple[LayoutPart, ...] = ("observation",) if settings.observation_weight else ()
    if settings.privileged_weight:
        observed += ("privileged",)
    following: LayoutPart = "next_state" if settings.lambda_turn is None else "next_states"
    behind: tuple[LayoutPart, ...] = ("fresh", "action") if by_fresh else (following, "fresh")
    ahead = encoder.encode(rows, behind, settings.n_step)
    now = encoder.encode(rows, ("action", *observed) if by_fresh else ("state", "action", *observed), 1)

    def run() -> Tensor:
        with torch.no_grad():
            target(ahead, q=behind) if by_fresh else target(ahead, q=("fresh",), v=(following,))
        found = critic(now, q=("action",), v=() if by_fresh else ("state",), outputs=True)
        loss: Tensor = sum(value.sum() for value in found.values())
        return loss

    return run
