"""The content of a checkpoint: everything from which a resumed run continues with the same results.

`checkpoints/cycle-00012/` holds the DeepSpeed states of the algorithm, the target network, `policy/` (a Hugging Face
folder with the tokenizer and merged adapters, from which the engines start on resume), `adapter/` (the policy's adapter
in peft's format, if one is trained), `replay/`, the random streams of each rank and `state.json`. The folder is written
under a temporary name and renamed when it is complete (`checkpoint_folders`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from buffer.atomic_files import write_atomic
from learner.config import LoraConfig
from learner.errors import CheckpointError
from learner.models.adapter_files import Base, save_adapter


@dataclass
class TrainerState:
    """Counters of a run, the same on every rank.

    Attributes:
        cycle: finished cycles.
        version: the policy version of the engines, which counts the broadcasts.
        episodes, turns: collected with the policy so far, without demonstrations.
        next_seed: environment seed of the next episode to collect.
        proof_max_gap: the largest gap of all proofs of a broadcast.
        wall_seconds: time spent in the training function, over all resumes.
        processor_seconds: processor time of the first rank's process in it, over all resumes.
        evaluations: mean return by the number of cycles that were finished then, as text.
        replay_client: random stream of the learner's replay client.
        swept: ids of episodes that an on-policy method has trained on and replay may return again; on rank 0 only.
        diagnosed: ids of episodes that diagnoses of the critic have seen and replay may return again; on rank 0 only.
    """

    cycle: int = 0
    version: int = 0
    episodes: int = 0
    turns: int = 0
    next_seed: int = 0
    proof_max_gap: float = 0.0
    wall_seconds: float = 0.0
    processor_seconds: float = 0.0
    evaluations: dict[str, float] = field(default_factory=dict)
    replay_client: dict[str, Any] = field(default_factory=dict)
    swept: list[str] = field(default_factory=list)
    diagnosed: list[str] = field(default_factory=list)

    def write(self, directory: Path) -> None:
        """Write `state.json` into `directory`."""
        write_atomic(directory / "state.json", json.dumps(asdict(self), indent=2))

    @classmethod
    def read(cls, directory: Path) -> TrainerState:
        """Read the state of the checkpoint `directory`; raise CheckpointError if it is not a checkpoint."""
        path = directory / "state.json"
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError as error:
            raise CheckpointError(f"{directory} is no checkpoint: it has no state.json") from error
        except (json.JSONDecodeError, TypeError) as error:
            raise CheckpointError(f"{path} can't be read ({error}); resume from an older checkpoint") from error


def save_random_streams(directory: Path) -> None:
    """Write the states of this rank's random number generators (Python, NumPy, torch) into `directory`."""
    numpy_state: Any = np.random.get_state()
    streams = {
        "python": random.getstate(),
        "numpy": [numpy_state[0], torch.from_numpy(numpy_state[1].astype(np.int64)), *numpy_state[2:]],
        "torch": torch.get_rng_state(),
    }
    torch.save(streams, directory / f"random-{dist.get_rank()}.pt")


def load_random_streams(directory: Path) -> None:
    """Restore the states that `save_random_streams` wrote on this rank."""
    streams = torch.load(directory / f"random-{dist.get_rank()}.pt", weights_only=True)
    version, internal, gauss = streams["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = streams["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(streams["torch"])


def export_policy(
    model: PreTrainedModel,
    weights: Iterable[tuple[str, torch.Tensor]],
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
) -> None:
    """Write the policy as a Hugging Face folder. Called on every rank, because `weights` gathers; rank 0 writes."""
    state = on_rank_0(weights)
    if state is not None:
        model.save_pretrained(directory, state_dict=state)
        tokenizer.save_pretrained(directory)
    dist.barrier()


def export_adapter(
    tensors: Iterable[tuple[str, torch.Tensor]], directory: Path, config: LoraConfig, base: Base
) -> None:
    """Write the policy's adapter in peft's format. Called on every rank, like `export_policy`."""
    state = on_rank_0(tensors)
    if state is not None:
        save_adapter(state, directory, config, base)
    dist.barrier()


def on_rank_0(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor] | None:
    """Return copies in host memory on rank 0, and None on other ranks, which only take part in gathering."""
    if dist.get_rank() == 0:
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors}
    for _ in tensors:
        pass
    return None
