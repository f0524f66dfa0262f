"""Compare the duration of a broadcast with that of copying the same bytes once in memory.

For each size the program makes a model from scratch, starts one engine on it through the pool, and lets the learner's
`Broadcaster` send changed weights several times, each time with its proof. The weights are in this process, as in a
learner of one rank, and travel through shared memory, as between processes of one host without GPUs; with `--stream`
they travel as to an engine on another host, over this machine's loopback.

Each size has two rows: first all weights are changed and sent; then, on the same engine, an adapter of rank 16 on these
weights. In the second case only the adapter is sent, and the engine merges it into its base.

`write` fills the shared memory, and with `--stream` the copy, while the engine generates; in `stage` the engine loads
the weights beside the old ones, and the learner computes its side of the proof (`expect`, a part of it); `stopped` is
the time from the pause to the end of the update, in which the engine answers no request. Then the learner goes on, and
the engine answers the proof, `proof`, beside its requests. `whole` ends with the proof.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import local_cluster, medians, parser, print_table, report, say  # isort: skip - sets the threads first

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from actors.pool.client import PoolClient
from actors.pool.pool import start_pool
from actors.rollout.player import WorkerArgs
from archer.config.loading import load_config
from archer.config.models import RunConfig
from archer.config.sections import TinyModelConfig
from archer.driver.demonstrations import play_demonstrations, texts
from archer.driver.model import build_tiny_model
from learner.broadcast.broadcaster import Broadcaster
from learner.broadcast.policy_source import PolicySource
from learner.broadcast.proof import probe_positions
from learner.config import Backend, LoraConfig
from learner.models.adapters import weights, with_adapter
from learner.models.policy import Policy, sequence_logprobs
from learner.models.pretrained import load_causal_model

# Width, layers and heads for a nominal number of parameters in millions; feed-forward layers are 2.75 times as wide.
SIZES = {1: (128, 5, 4), 10: (320, 8, 5), 60: (640, 12, 10), 150: (896, 15, 14), 500: (1280, 25, 20)}
QUICK = (1, 10)
PROBE_TOKENS = 48
# Each change of the weights by 1 per cent moves log-probabilities by more than this, so a stale engine fails the proof.
TOLERANCE = 1e-4
TIMEOUT_S = 600.0

LORA = LoraConfig(rank=16)

# From this many millions of parameters on, in copies of all weights.
AIMED_FROM, STOPPED_AIM, WHOLE_AIM = 10.0, 3.0, 8.0

AIMS = {"from millions of parameters": AIMED_FROM, "stopped / copy": STOPPED_AIM, "whole / copy": WHOLE_AIM}

COLUMNS = {
    "parameters_millions": "parameters, M",
    "sends": "sends",
    "megabytes": "MB",
    "copy_ms": "copy, ms",
    "write_ms": "write, ms",
    "stage_ms": "stage, ms",
    "expect_ms": "expect, ms",
    "stopped_ms": "stopped, ms",
    "proof_ms": "proof, ms",
    "whole_ms": "whole, ms",
    "stopped_ratio": "stopped / copy",
    "stopped_aim": "aim",
    "whole_ratio": "whole / copy",
    "whole_aim": "aim",
    "max_gap": "largest gap",
}


class TimedClient:
    """The pool's client to the engines, which records when staging and update begin and end."""

    def __init__(self, inner: Any, marks: dict[str, float]) -> None:
        object.__setattr__(self, "_inner", inner)
        object.__setattr__(self, "_marks", marks)

    def stage_weights(self, updates: list[dict[str, Any]]) -> Callable[[], None]:
        self._marks["staging"] = time.perf_counter()
        return self._inner.stage_weights(updates)

    def install_weights(self, updates: list[dict[str, Any]]) -> None:
        self._marks["paused"] = time.perf_counter()
        self._inner.install_weights(updates)
        self._marks["resumed"] = time.perf_counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)


class TimedPool:
    """The pool as the broadcaster uses it, which records when the client is ready."""

    def __init__(self, pool: PoolClient) -> None:
        self._pool = pool
        self.marks: dict[str, float] = {}

    def sync_client(self) -> TimedClient:
        client = TimedClient(self._pool.sync_client(), self.marks)
        self.marks["ready"] = time.perf_counter()
        return client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def measure(preset: RunConfig, millions: int, repeats: int, folder: Path, backend: Backend) -> list[dict[str, Any]]:
    """Return the two rows of a size."""
    width, layers, heads = SIZES[millions]
    shape = TinyModelConfig(
        hidden_size=width,
        layers=layers,
        heads=heads,
        intermediate_size=width * 11 // 4,
        tie_embeddings=preset.model.build is not None and preset.model.build.tie_embeddings,
    )
    demonstrations = play_demonstrations(preset)
    path = build_tiny_model(texts(demonstrations), folder / f"model-{millions}", shape, seed=preset.seed)
    model = load_causal_model(path, "float32")
    say(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}M parameters: starting an engine")
    pool = start_pool(
        WorkerArgs(config=preset.rollout, model=str(path), env_id=preset.env.id, run="bench", seed=preset.seed)
    )
    try:
        whole = measure_broadcasts(preset, model, pool, repeats, backend, version=1)
        adapted = measure_broadcasts(preset, with_adapter(model, LORA), pool, repeats, backend, version=2 + repeats)
    finally:
        pool.shutdown()
    say(f"  an adapter takes {adapted['whole_ms'] / whole['whole_ms']:.2f} of the time of all weights")
    return [whole, adapted]


def measure_broadcasts(
    preset: RunConfig, model: PreTrainedModel, pool: PoolClient, repeats: int, backend: Backend, *, version: int
) -> dict[str, Any]:
    """Return one row: medians of `repeats` broadcasts after a first one, which also maps memory and sends the base."""
    source = PolicySource(model)
    sent = [tensor for _, tensor in (source.only("adapter") if source.adapted else source)]
    size = sum(tensor.numel() * tensor.element_size() for tensor in sent)
    watched = TimedPool(pool)
    probe = np.random.default_rng(preset.seed).integers(3, model.config.vocab_size, PROBE_TOKENS).astype(np.int32)
    broadcaster = Broadcaster(
        source=source,
        rollouts=watched,
        backend=backend,
        rank=0,
        timeout_s=TIMEOUT_S,
        logprobs_fn=partial(sequence_logprobs, Policy(model, preset.rollout.sampling.temperature)),
        probe_tokens=probe,
        positions=probe_positions(PROBE_TOKENS, sum(w.parameter.numel() for w in weights(model))),
        tolerance=TOLERANCE,
    )
    begin = time.perf_counter()
    broadcaster.broadcast(version)
    first = time.perf_counter() - begin
    copy, copy_all = copier(sent), copier([tensor for _, tensor in source])
    runs = [once(broadcaster, watched, model, (copy, copy_all), version=version + 1 + i) for i in range(repeats)]
    broadcaster.close()
    millions = sum(w.parameter.numel() for w in weights(model)) / 1e6
    row = {
        "parameters_millions": millions,
        "sends": f"adapter of rank {LORA.rank}" if source.adapted else "all weights",
        "megabytes": size / 1e6,
        **medians(runs),
        "stopped_aim": STOPPED_AIM if millions >= AIMED_FROM else None,
        "whole_aim": WHOLE_AIM if millions >= AIMED_FROM else None,
        "positions": len(broadcaster.positions),
        "first_broadcast_ms": first * 1e3,
        "runs": runs,
    }
    say(f"  stopped for {row['stopped_ratio']:.1f} copies, {row['whole_ratio']:.1f} in all")
    return row


def once(
    broadcaster: Broadcaster,
    pool: TimedPool,
    model: torch.nn.Module,
    copies: tuple[Callable[[], float], Callable[[], float]],
    *,
    version: int,
) -> dict[str, float]:
    """Change all trained weights, copy them in memory and broadcast them; return milliseconds of each part.

    Args:
        copies: copy what is sent, and all weights, and return the seconds.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                # The sum changes an adapter's B, which starts at zero.
                parameter.mul_(1.01).add_(1e-3)
    copied, copied_all = (copy() for copy in copies)
    begin = time.perf_counter()
    broadcaster.send(version)
    sent = time.perf_counter() - begin
    gap = broadcaster.settle()
    assert gap is not None
    whole = time.perf_counter() - begin
    marks, parts = pool.marks, broadcaster.parts
    stopped = marks["resumed"] - marks["paused"]
    return {
        "copy_ms": copied * 1e3,
        "copy_all_ms": copied_all * 1e3,
        "expect_ms": parts["expect"] * 1e3,
        "connect_ms": parts["connect"] * 1e3,
        "write_ms": (marks["staging"] - marks["ready"]) * 1e3,
        "stage_ms": (marks["paused"] - marks["staging"]) * 1e3,
        "stopped_ms": stopped * 1e3,
        "send_ms": sent * 1e3,
        "proof_ms": parts["prove"] * 1e3,
        "whole_ms": whole * 1e3,
        "stopped_ratio": stopped / copied_all,
        "whole_ratio": whole / copied_all,
        "max_gap": gap,
    }


def copier(sources: list[torch.Tensor]) -> Callable[[], float]:
    """Return a function that copies `sources` into allocated memory and returns the seconds that it took."""
    copies = [torch.empty_like(tensor).zero_() for tensor in sources]

    def copy() -> float:
        begin = time.perf_counter()
        for target, tensor in zip(copies, sources, strict=True):
            target.copy_(tensor)
        return time.perf_counter() - begin

    return copy


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--sizes", type=int, nargs="+", choices=list(SIZES), help="millions of parameters")
    options.add_argument("--tied", action="store_true", help="share the weights of embedding and output head")
    options.add_argument("--stream", action="store_true", help="send the weights as to an engine on another host")
    options.add_argument("--repeats", type=int, help="broadcasts per size; the medians are shown")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    sizes = arguments.sizes or (QUICK if arguments.quick else tuple(SIZES))
    repeats = arguments.repeats or (3 if arguments.quick else 7)
    preset = load_config(
        "demo", [f"seed={arguments.seed}", f"model.build.tie_embeddings={str(arguments.tied).lower()}"]
    )
    with tempfile.TemporaryDirectory() as scratch, local_cluster(num_cpus=2):
        backend: Backend = "stream" if arguments.stream else "shm"
        rows = [row for millions in sizes for row in measure(preset, millions, repeats, Path(scratch), backend)]
    way = "as a stream" if arguments.stream else "through shared memory"
    print_table(f"Broadcast to one engine {way}", COLUMNS, rows)
    options_used = {"repeats": repeats, "tied": arguments.tied, "stream": arguments.stream, "aims": AIMS}
    say(f"written to {report('broadcast', arguments, rows, **options_used)}")


if __name__ == "__main__":
    main()
