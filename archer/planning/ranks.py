"""The memory of a learner rank: weights, gradients, optimizer and activations of each stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch._subclasses.fake_tensor import FakeTensorMode

import envs
from archer.config.models import RunConfig
from archer.driver.value_support import with_support
from archer.errors import RunError
from archer.planning.models import Shape
from archer.planning.parts import Shapes, clone_stage, cycle_stage
from archer.planning.passes import activation_bytes, stage_passes
from archer.planning.stage import Memory, Stage, stage_memory
from archer.planning.workload import Workload
from learner.algorithm_config import AlgorithmConfig
from learner.config import LearnerConfig
from learner.errors import LearnerError

CONTEXT = 1.0 * 2**30
"""CUDA's context, its libraries and the buffers of NCCL in one process: an estimate, which was never measured."""
TRANSFER = 2.0 * 2**30
"""vLLM's two packed buffers of 1 GiB, through which `nccl` and `ipc` send weights."""


def rank_memory(
    mode: FakeTensorMode, config: RunConfig, policy: Shape, backbone: Shape | None, tokens: int
) -> dict[str, Memory]:
    """Return the memory of a learner rank in each stage of the run, by the stage's name.

    Args:
        backbone: the critic's own backbone; None if it starts from the policy or is built.
        tokens: tokens of an episode.
    """
    learner = with_support(config)
    turns = _turns(config, tokens)
    names = (["cloning"] if learner.clone.steps else []) + (["cycles"] if config.algorithm != "bc" else [])
    found = {}
    for name in names or ["cycles"]:
        setup = _setup(config, learner, policy, backbone, cloning=name == "cloning")
        found[name] = _stage_memory(mode, config, setup, name, _loads(config, learner, tokens, turns, name))
    return found


def _setup(
    config: RunConfig, learner: LearnerConfig, policy: Shape, backbone: Shape | None, *, cloning: bool
) -> Shapes:
    lora = learner.lora
    if cloning:  # as `learner.stages` does: the clone is made whole, or by an adapter
        lora = lora if lora is not None and lora.clone == "adapter" else None
    return Shapes(
        model="",
        reference="",
        tokenizer=None,
        config=learner.model_copy(update={"lora": lora}),
        temperature=config.rollout.sampling.temperature,
        offline_cycles=config.offline_cycles,
        demonstrations_in_replay=config.demonstrations.keep_in_replay,
        policy_config=policy.config,
        backbone_config=None if backbone is None else backbone.config,
    )


def _stage_memory(
    mode: FakeTensorMode, config: RunConfig, setup: Shapes, name: str, loads: dict[str, Workload]
) -> Memory:
    def stage_of(sized: Shapes) -> Stage:
        with mode:
            return clone_stage(sized) if name == "cloning" else cycle_stage(sized, config.algorithm)

    def with_depth(depth: int) -> tuple[Shapes, Stage]:
        sized = _sized(setup, depth)
        return sized, stage_of(sized)

    stage = stage_of(setup)
    notes = []
    try:
        activations = activation_bytes(
            mode, with_depth, _layers(setup), lambda sized, made: stage_passes(sized, made, config.algorithm, loads)
        )
    except (
        RunError,
        LearnerError,
        RuntimeError,
        ValueError,
    ) as error:  # of an architecture's pass without data
        activations = {}
        notes.append(f"activations of {name} are not counted: {str(error).strip().splitlines()[0]}")
    learner = setup.config
    memory = stage_memory(stage, activations, learner)
    memory.notes = notes
    if learner.use_gpu:
        if config.broadcast_backend in ("nccl", "ipc"):
            memory.device["broadcast buffers"] = TRANSFER
        memory.device["CUDA context"] = CONTEXT
    return memory


def _sized(setup: Shapes, depth: int) -> Shapes:
    return replace(setup, layers=depth)


def _layers(setup: Shapes) -> dict[str, int]:
    policy = setup.policy_config.get_text_config().num_hidden_layers
    build, other = setup.config.critic.build, setup.backbone_config
    critic = build.layers if build is not None else (other or setup.policy_config).get_text_config().num_hidden_layers
    return {"policy": policy, "value": policy, "critic": critic}


def _turns(config: RunConfig, tokens: int) -> int:
    """Return the turns of an episode of this many tokens: those of the environment, if they fit."""
    env = envs.make(config.env.id, **config.env.kwargs)
    try:
        most = env.spec.max_turns
    finally:
        env.close()
    return max(1, min(most, tokens // (config.rollout.sampling.longest + 1)))


def _loads(config: RunConfig, learner: LearnerConfig, tokens: int, turns: int, stage: str) -> dict[str, Workload]:
    """Return the largest micro-batch of the steps of each part."""

    def load(batches: Iterable[int]) -> Workload:
        rows = min(learner.micro_batch, max(-(-batch // learner.ranks) for batch in batches))
        return Workload(tokens, turns, config.rollout.sampling.longest, rows)

    section: AlgorithmConfig = learner.section_of(config.algorithm)
    if stage == "cloning":
        return {"policy": load([learner.clone.batch])}
    own = getattr(section, "batch", learner.actor.batch)
    return {"policy": load([own]), "critic": load([learner.critic.batch])}


def most(stages: dict[str, Memory]) -> Memory:
    """Return the memory of the stage that needs most on the device. Raises RunError without any stage."""
    if not stages:
        raise RunError("the run has no stage in which a rank trains")
    return max(stages.values(), key=lambda memory: memory.total)
