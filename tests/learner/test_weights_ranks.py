"""Under ZeRO-3 on two ranks, the source yields the same weights as on one rank."""

from pathlib import Path

import torch
from actor_cases import load_model, save_model
from learner_cases import run_ranks


def _gather(rank: int, folder: Path, out: Path) -> None:
    from learner.broadcast.policy_source import PolicySource
    from learner.config import LearnerConfig
    from learner.engine.engines import Engine

    model = load_model(folder)
    config = LearnerConfig(zero_stage=3, ranks=2)
    Engine(model, config, lr=1e-3, max_grad_norm=1.0)
    source = PolicySource(model)
    if rank == 0:
        first = iter(source)
        next(first)
        # This pass was interrupted while the other rank gathers; `drain` completes its gathers.
        source.drain()
    else:
        for _ in source:
            pass
    sent = {name: tensor.clone() for name, tensor in source}
    shapes = {meta.name: meta.shape for meta in source.metadata()}
    if rank == 0:
        torch.save((sent, shapes), out)
    torch.distributed.barrier()


def test_two_ranks_gather_the_whole_weights(tmp_path):
    folder = save_model(tmp_path / "model", tied=True)
    out = tmp_path / "sent.pt"
    run_ranks(2, _gather, folder, out)
    sent, shapes = torch.load(out)
    expected = dict(load_model(folder).named_parameters())
    assert list(sent) == list(shapes)
    assert set(sent) == set(expected)
    for name, tensor in sent.items():
        assert tuple(tensor.shape) == shapes[name]
        assert torch.equal(tensor, expected[name])
