"""Under ZeRO-3 on two ranks, the source yields the same weights as on one rank."""

import os
import socket
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from actor_cases import load_model, save_model


def _rank(rank: int, port: int, folder: str, out: str) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "DS_ACCELERATOR": "cpu",
    }
    torch.set_num_threads(1)
    import deepspeed

    from learner.broadcast.policy_source import PolicySource
    from learner.config import LearnerConfig
    from learner.engine.engines import Engine

    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    model = load_model(Path(folder))
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
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_gather_the_whole_weights(tmp_path):
    folder = save_model(tmp_path / "model", tied=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = tmp_path / "sent.pt"
    mp.spawn(_rank, args=(port, str(folder), str(out)), nprocs=2)
    sent, shapes = torch.load(out)
    expected = dict(load_model(folder).named_parameters())
    assert list(sent) == list(shapes)
    assert set(sent) == set(expected)
    for name, tensor in sent.items():
        assert tuple(tensor.shape) == shapes[name]
        assert torch.equal(tensor, expected[name])
