"""The tasks and methods of `sample_efficiency.py`: each is a list of overrides of a preset in configs/.

A cell is a preset with the overrides of its task, then those of its method. The recipe of `archer` is that of the
preset; the other methods of the family state what they change in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EVALUATIONS = 8
"""Evaluations of a run beside those of its clone and its end; the best policy is chosen among them."""
EVALUATION_EPISODES = 128
CHECKPOINTS = 4
OFFLINE_CYCLES = 4


@dataclass(frozen=True)
class Task:
    """An environment with demonstrations, a model and two returns to reach.

    Attributes:
        preset: configuration in configs/ with the model, the demonstrations and the recipe.
        settings: overrides of the preset.
        lenient, near_optimal: returns that a cycle's mean must reach.
        episodes: episodes that a run plays, by the kind of its method.
    """

    preset: str
    settings: tuple[str, ...]
    lenient: float
    near_optimal: float
    episodes: dict[str, int]


Kind = Literal["archer", "baseline", "paper"]


@dataclass(frozen=True)
class Method:
    """An algorithm with overrides.

    Attributes:
        about: the method in a few words, for the tables.
        algorithm: the run's `algorithm`.
        cycle: episodes of a cycle.
        settings: overrides of preset and task.
        kind: which of the task's numbers of episodes it plays.
        offline: whether it learns from the demonstrations alone and plays no episode.
        family: "main", "left out" for the recipe without one of its parts, or "ppo" for PPO with another cycle.
    """

    about: str
    algorithm: str
    cycle: int = 32
    settings: tuple[str, ...] = ()
    kind: Kind = "archer"
    offline: bool = False
    family: Literal["main", "left out", "ppo"] = "main"


def _episodes(archer: int, baseline: int, paper: int = 8192) -> dict[str, int]:
    return {"archer": archer, "baseline": baseline, "paper": paper}


# Rewards from 0 to 1 in place of -1 a turn: the recipe's temperature and scale are in units of reward.
_UNIT_REWARD = ("learner.critic.value_unit=0.5", "learner.actor.temperature=0.05", "learner.critic.gamma=0.9")
_GUESSING = ("demonstrations.episodes=2048", "learner.clone.steps=800", "learner.clone.patience=3")

TASKS: dict[str, Task] = {
    "key_door_1": Task("key_door", ("env.kwargs={maps: 1}",), -12.0, -4.0, _episodes(128, 768)),
    "key_door_16": Task(
        "key_door",
        (
            "env.kwargs={maps: 16}",
            "model.build.architecture=qwen3",
            "demonstrations.episodes=2048",
            "learner.clone.steps=2000",
        ),
        -12.0,
        -7.5,
        _episodes(512, 4096),
    ),
    "key_door_new": Task(
        "key_door",
        ("env.kwargs={maps: null}", "demonstrations.episodes=2048", "learner.clone.steps=2000"),
        -20.0,
        -12.0,
        _episodes(512, 2048),
    ),
    "twenty_questions_subset": Task("demo", ("env.kwargs={compat: true}",), -9.0, -7.0, _episodes(512, 2048)),
    "twenty_questions": Task(
        "demo",
        ("env={id: twenty_questions, kwargs: {compat: true}}", "demonstrations.skill=0.35", *_GUESSING),
        -17.0,
        -13.0,
        _episodes(512, 2048, 16384),
    ),
    "guess_my_city": Task(
        "demo",
        (
            "env={id: guess_my_city, kwargs: {compat: true}}",
            "demonstrations.skill=0.05",
            "rollout.sampling.max_tokens=24",
            *_GUESSING,
        ),
        -14.0,
        -8.0,
        _episodes(512, 2048),
    ),
    "support_desk": Task(
        "key_door",
        (
            "env={id: support_desk, kwargs: {level: 1, observe: brief}}",
            "demonstrations.episodes=2048",
            "demonstrations.skill=0.6",
            "rollout.sampling.max_tokens=40",
            "learner.clone.steps=2000",
            "learner.ppo.gamma=0.9",
            *_UNIT_REWARD,
        ),
        0.35,
        0.7,
        _episodes(512, 2048),
    ),
    "webshop": Task(
        "key_door",
        (
            "env={id: webshop, kwargs: {items: 40, departments: [home], results_per_page: 2, goals: 100}}",
            "demonstrations.episodes=1024",
            "demonstrations.skill=0.5",
            "model.build.vocab_size=1024",
            "rollout.sampling.max_tokens=32",
            "learner.clone.steps=1000",
            "learner.ppo.gamma=0.9",
            *_UNIT_REWARD,
        ),
        0.4,
        0.7,
        _episodes(512, 2048),
    ),
}

_NO_OBSERVATIONS = ("learner.clone.observation_weight=0", "learner.critic.observation_weight=0")
_NO_PRIVILEGED = ("learner.clone.privileged_weight=0", "learner.critic.privileged_weight=0")
_NO_RECENT = ("learner.critic.recent_share=0", "learner.actor.recent_share=0")
_GRADIENT = (
    "learner.actor.objective=policy_gradient",
    "learner.actor.fresh_per_state=4",
    "learner.actor.normalise_advantage=true",
    "learner.actor.clip=0.2",
    "learner.actor.kl_stop=0.05",
)
_ONE_STEP = ("learner.critic.retrace=null", "learner.critic.n_step=1", "learner.critic.lambda_turn=null")
# The settings of configs/paper/key_door.yaml.
_PAPER = (
    *_NO_OBSERVATIONS,
    *_NO_RECENT,
    *_ONE_STEP,
    "learner.critic.value=heads",
    "learner.critic.backup=mean",
    "learner.critic.loss=squared",
    "learner.critic.ensemble=min",
    "learner.critic.value_unit=1",
    "learner.critic.tau=0.1",
    "learner.critic.updates_per_turn=null",
    "learner.critic.unit=turn",
    "learner.critic.batch=256",
    "learner.critic.steps_per_cycle=50",
    "learner.critic.fresh_per_state=1",
    "learner.critic.warmup_steps=0",
    "learner.critic.warmup_targets=fresh",
    "learner.critic.q_at=action",
    *_NO_PRIVILEGED,
    "learner.critic.warmup_cycles=4",  # the paper has 10 to 20: more than a thousand episodes here
    "learner.actor.objective=policy_gradient",
    "learner.actor.lr=5e-4",
    "learner.actor.unit=turn",
    "learner.actor.batch=256",
    "learner.actor.steps_per_cycle=3",
    "learner.actor.epochs=1",
    "learner.actor.fresh_per_state=1",
    "learner.actor.normalise_advantage=false",
    "learner.actor.clip=null",
    "learner.actor.kl_stop=null",
)
# On-policy methods cannot learn from demonstrations in replay.
_ON_POLICY = ("demonstrations.keep_in_replay=false",)
_PPO = (
    *_ON_POLICY,
    "learner.ppo.lr=3e-4",
    "learner.ppo.value_lr=1e-3",
    "learner.ppo.batch=16",
    "learner.ppo.epochs=4",
    "learner.ppo.lambda_token=1",
    "learner.ppo.kl_stop=0.05",
)
_GRPO = (*_ON_POLICY, "learner.grpo.lr=5e-4", "learner.grpo.batch=16", "learner.grpo.epochs=2", "learner.grpo.group=8")
_FILTERED = (
    "demonstrations.keep_in_replay=true",
    "learner.filtered_bc.best=0.1",
    "learner.filtered_bc.lr=5e-4",
    "learner.filtered_bc.batch=16",
    "learner.filtered_bc.steps_per_cycle=40",
)
_CHAI = (
    "learner.critic.value=heads",
    "learner.critic.warmup_targets=fresh",
    "learner.critic.retrace=null",
    "learner.critic.n_step=5",
    "learner.critic.fresh_per_state=1",
)


def _without(about: str, *settings: str) -> Method:
    return Method(about, "archer", settings=settings, family="left out")


def _ppo(cycle: int, warmup: int) -> Method:
    settings = (*_PPO, f"learner.ppo.warmup_cycles={warmup}")
    return Method(f"PPO, {cycle} a cycle", "ppo", cycle, settings, "baseline", family="main" if cycle == 32 else "ppo")


METHODS: dict[str, Method] = {
    "archer": Method("ArCHer, our recipe", "archer"),
    "archer_offline": Method(
        "our recipe on the demonstrations alone",
        "archer",
        settings=("demonstrations.keep_in_replay=true",),
        offline=True,
    ),
    "archer_paper": Method("ArCHer, the paper's form", "archer", 128, _PAPER, "baseline"),
    "archer_no_observations": _without("without observation tokens", *_NO_OBSERVATIONS),
    "archer_no_warmup": _without("without the critic's warm-up", "learner.critic.warmup_steps=0"),
    "archer_warmup_fresh": _without(
        "with fresh actions in the critic's warm-up",
        "learner.critic.warmup_targets=fresh",
        "learner.critic.warmup_lr=null",
    ),
    "archer_no_privileged": _without("without the loss of what the environment hides", *_NO_PRIVILEGED),
    "archer_q_at_action": _without("Q read at the action alone", "learner.critic.q_at=action"),
    "archer_one_step": _without("one-step targets in place of Retrace", *_ONE_STEP),
    "archer_policy_gradient": _without("policy gradient in place of the improvement", *_GRADIENT),
    "archer_no_recent": _without("without a share of recent episodes", *_NO_RECENT),
    "archer_exponential": _without("exponential weights", "learner.actor.weights=exponential"),
    "archer_no_demonstrations": _without("without demonstrations in replay", "demonstrations.keep_in_replay=false"),
    "ppo": _ppo(32, 2),
    "ppo_16": _ppo(16, 4),
    "ppo_64": _ppo(64, 1),
    "ppo_128": _ppo(128, 1),
    "ppo_paper": Method(
        "PPO, the paper's form (1,024 episodes a step)",
        "ppo",
        1024,
        (*_PPO, "learner.ppo.batch=1024", "learner.ppo.warmup_cycles=0"),
        "paper",
    ),
    "grpo": Method("GRPO", "grpo", 32, _GRPO, "baseline"),
    "filtered_bc": Method("filtered cloning", "filtered_bc", 32, _FILTERED, "baseline"),
    "chai": Method("CHAI", "chai", 32, _CHAI),
}


def overrides(task: Task, method: Method, *, real: bool, episodes: int | None = None) -> list[str]:
    """Return all overrides of the task's preset for a run of `method`, without its name, folder and seed.

    Args:
        real: whether the run uses Ray, vLLM and the replay service in place of one process.
        episodes: of the run, rounded down to whole cycles; None takes the task's.
    """
    usual = OFFLINE_CYCLES if method.offline else max(1, task.episodes[method.kind] // method.cycle)
    cycles = usual if episodes is None or method.offline else max(1, episodes // method.cycle)
    return [
        f"mode={'sync' if real else 'inline'}",
        "learner.threads=1",  # several cells run beside each other
        "checkpoint.keep=1",
        *task.settings,
        *method.settings,
        f"algorithm={method.algorithm}",
        f"episodes_per_cycle={method.cycle}",
        f"cycles={cycles}",
        f"offline_cycles={cycles if method.offline else 0}",
        f"evaluation.episodes={EVALUATION_EPISODES}",
        # By the usual number of cycles, so that a run can be lengthened later.
        f"evaluation.every={max(1, usual // EVALUATIONS)}",
        f"checkpoint.every={max(1, usual // CHECKPOINTS)}",
    ]
