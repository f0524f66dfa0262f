"""The memory of a learner rank: weights, gradients, optimizer and activations of each stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import envs
from archer.config.models import RunConfig
from archer.driver.value_support import with_support
from archer.errors import RunError
from archer.planning.models import Shape
from archer.planning.parts import Part, Shapes, Stage, clone_stage, cycle_stage
from archer.planning.passes import activation_bytes, stage_passes
from archer.planning.workload import Workload
from learner.algorithm_config import AlgorithmConfig
from learner.config import LearnerConfig
from learner.engine.zero import EngineBytes, engine_bytes, gathered_bytes
from learner.errors import LearnerError

CONTEXT = 1.0 * 2**30
"""CUDA's context, its libraries and the buffers of NCCL in one process: an estimate, which was never measured."""
TRANSFER = 2.0 * 2**30
"""vLLM's two packed buffers of 1 GiB, through which `nccl` and `ipc` send weights."""


@dataclass
class Memory:
    """Named amounts of memory in bytes, on the device of a process, and what its host holds beside them."""

    device: dict[str, float] = field(default_factory=dict)
    host: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> float:
        return sum(self.device.values())


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
    memory = Memory()
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
        memory.notes.append(f"activations of {name} are not counted: {str(error).strip().splitlines()[0]}")
    learner = setup.config
    engines = {part.name: _engine(part, learner) for part in stage.parts if part.trained}
    memory.device["weights"] = sum(engine.weights for engine in engines.values()) + _frozen(stage, learner)
    memory.device["optimizer"] = sum(engine.optimizer for engine in engines.values())
    memory.host = sum(engine.host for engine in engines.values())
    # The engines step in turn: what a step holds beside weights and optimizer counts once, for the one that needs most.
    most = max(engines, key=lambda part: _step(engines[part], activations.get(part, 0.0)))
    engine, active = engines[most], activations.get(most, 0.0)
    in_passes = engine.gradients + engine.gathered + active >= engine.step
    memory.device["gradients"] = engine.gradients if in_passes else engine.step
    memory.device["activations"] = active if in_passes else 0.0
    if learner.zero_stage == 3:
        frozen = [_gathered(part.module, learner) for part in stage.parts if not part.trained]
        memory.device["gathered layers"] = (engine.gathered if in_passes else 0.0) + max(frozen, default=0.0)
    if learner.zero_stage:
        held = len(engines) if learner.zero_stage == 3 else 1
        memory.device["reduction buffers"] = held * engine.bucket
    if learner.use_gpu:
        if config.broadcast_backend in ("nccl", "ipc"):
            memory.device["broadcast buffers"] = TRANSFER
        memory.device["CUDA context"] = CONTEXT
    return memory


def _step(engine: EngineBytes, activations: float) -> float:
    return max(engine.gradients + engine.gathered + activations, engine.step)


def _engine(part: Part, learner: LearnerConfig) -> EngineBytes:
    trained = [parameter.numel() for parameter in part.module.parameters() if parameter.requires_grad]
    return engine_bytes(
        sum(trained),
        stage=learner.zero_stage,
        ranks=learner.ranks,
        offload=learner.optimizer_offload,
        largest=max(trained, default=0),
        adapters=learner.lora is not None,
    )


def _gathered(module: nn.Module, learner: LearnerConfig) -> float:
    sizes = [parameter.numel() for parameter in module.parameters()]
    return gathered_bytes(sum(sizes), ranks=learner.ranks, largest=max(sizes), adapters=learner.lora is not None)


def _frozen(stage: Stage, learner: LearnerConfig) -> float:
    """Return the bytes of parameters that are not trained, each once: several parts may share them."""
    engines = [part.module.parameters() for part in stage.parts]
    each = {id(p): p for parameters in engines for p in parameters if not p.requires_grad}
    whole = sum(parameter.numel() * parameter.element_size() for parameter in each.values())
    return whole / (learner.ranks if learner.zero_stage == 3 else 1)


def _sized(setup: Shapes, depth: int) -> Shapes:
    from dataclasses import replace

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
