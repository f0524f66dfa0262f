"""The training function of a rank: behavioural cloning of the demonstrations or a resume, then the cycles."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch
import torch.distributed as dist

from learner.algorithms.base import Algorithm, build
from learner.algorithms.bc import BehaviourCloning
from learner.algorithms.setup import Setup
from learner.engine import checkpoints
from learner.engine.accelerator import deepspeed
from learner.feeding.demonstrations import DemonstrationSet
from learner.models.adapter_files import require_base
from learner.session import Session
from learner.train import Trainer
from learner.train_args import TrainArgs


def train_function(args: TrainArgs) -> None:
    """Run one rank to the end of the run, after `torch.distributed` has been initialised."""
    torch.set_num_threads(args.learner.threads)
    deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(args.seed)
    session = Session(args)
    if args.mode != "inline":
        _serve_metrics(session)
    Trainer(session, begin(session)).run()


def _serve_metrics(session: Session) -> None:
    """Serve this rank's metrics and announce their address on the board."""
    address = session.args.exposure.serve(session.records.metrics.registry)
    session.args.board.register_target("learner", f"rank-{dist.get_rank()}", address)


def begin(session: Session) -> Algorithm:
    """Return the run's algorithm before its first cycle, or before the one that follows the checkpoint."""
    if session.args.restarts:
        session.take_over()
    return start(session) if session.args.resume is None else resume(session)


def start(session: Session) -> Algorithm:
    """Clone the demonstrations, if the run does, and return its algorithm."""
    config = session.config
    algorithm = _build(session, _clone(session) if config.clone.steps else session.args.model)
    if config.lora is not None and config.lora.adapter is not None:
        # The engines have started with the base alone.
        session.broadcast()
    elif not config.clone.steps:
        session.match_engines()
    return algorithm


def resume(session: Session) -> Algorithm:
    """Return the run's algorithm in the state of the checkpoint `args.resume`."""
    args, state = session.args, session.state
    assert args.resume is not None
    algorithm = _build(session, args.model)
    algorithm.load(args.resume)
    if state.cycle:
        algorithm.finish_cycle(state.cycle - 1)
    checkpoints.load_random_streams(args.resume)
    if dist.get_rank() == 0:
        args.replay.load_state_dict(state.replay_client)
    session.match_engines()
    return algorithm


def _clone(session: Session) -> str:
    """Clone the demonstrations, broadcast and evaluate the clone, and return the folder of its model."""
    args, config = session.args, session.config
    demonstrations = DemonstrationSet(args.demonstrations, args.seed, config.clone.held_out)
    if config.clone.observation_weight:
        demonstrations.require_observations()
    if config.clone.privileged_weight:
        demonstrations.require_texts()
    session.records.publish("stage", stage="clone")
    # The clone becomes the base of adapters. It is itself a whole model, or an adapter on the starting model.
    lora = config.lora if config.lora is not None and config.lora.clone == "adapter" else None
    setup = _setup(session, args.model)
    setup = replace(setup, reference=args.model, config=config.model_copy(update={"lora": lora}))
    cloning = BehaviourCloning(setup)
    # The engines are starting at the same time: cloning does not need them.
    stage = cloning.stage
    if config.clone.held_out:
        held_out = demonstrations.held_out(stage, session.leader, config)
        cloning.measure_on(held_out.micro_batches, session.records.held_out)
    with session.records.phase("clone"):
        Trainer(session, cloning).phase(stage, demonstrations.batches(stage, session.leader, config))
    session.use(cloning)
    folder = args.run_dir / "clone"
    checkpoints.export_policy(cloning.policy_model, session.broadcaster.source, session.tokenizer, folder)
    session.broadcast()
    session.settle()
    if args.scorer is None:
        session.evaluate("clone", cloning)
    else:  # a critic that is still untrained chooses: no policy to hand over
        session.collector.evaluate("clone")
    return str(folder)


def _build(session: Session, model: str) -> Algorithm:
    """Return the run's algorithm with the policy `model`, in use. Raises AdapterError for another base on resume."""
    setup = _setup(session, model)
    if session.config.lora is not None:
        session.base = setup.base_record
        if session.args.resume is not None:
            require_base(session.args.resume / "adapter", session.base)
    algorithm = build(session.args.algorithm, setup)
    session.use(algorithm)
    return algorithm


def _setup(session: Session, model: str) -> Setup:
    args = session.args
    return Setup(
        model,
        reference=str(args.run_dir / "clone") if session.config.clone.steps else args.start_model,
        tokenizer=session.tokenizer,
        config=session.config,
        temperature=args.temperature,
        window=args.max_staleness if args.mode == "async" else 0,
        offline_cycles=args.offline_cycles,
        scorer=args.scorer,
        demonstrations_in_replay=args.demonstrations_in_replay,
    )
