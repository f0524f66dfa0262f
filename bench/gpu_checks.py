"""The checks of `gpu.py`: passes that must compute the same, on small models with random weights.

One model attends to everything, the other has windows of 48 tokens in half of its layers. The rows have branches early,
in the middle and at the end, and trunks longer than a window.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from learner.check.episodes import probe_rows
from learner.check.reference import reference
from learner.models.critic import Critic
from learner.models.policy import Policy, features, value_head
from learner.models.pretrained import hidden_width, layers_of, without_dropout, without_noise
from learner.passes.attention import FLEX, TREE
from learner.passes.layout import Layout, Part
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.precision import Precision
from learner.passes.rows import Row
from learner.passes.separate_encoder import SeparateEncoder

FLOAT32_NATS = 1e-4
"""Largest gap of a log-probability or of a value's spread between two orders of the same float32 sums."""
FLOAT32_GRADIENT = 1e-3
"""Largest norm of a gradient's difference, as a share of its norm, in float32."""
BFLOAT16_NATS, BFLOAT16_MEAN_NATS = 0.15, 0.03
"""Largest and mean gap of a log-probability: bfloat16 rounds to 1 in 256, and the spread of logits is about 1."""
BFLOAT16_GRADIENT = 0.1
"""Largest norm of a gradient's difference, as a share of its norm, in bfloat16."""

_WINDOW = 48
_PARTS: tuple[Part, ...] = ("state", "action", "next_state", "fresh")


class Check(NamedTuple):
    """One comparison: it passes if the gap is at most the tolerance."""

    check: str
    model: str
    gap: float
    tolerance: float

    def row(self) -> dict[str, Any]:
        """Return the check as a row of the report. A gap that is not a number fails."""
        return {**self._asdict(), "passed": self.gap <= self.tolerance}


def all_checks(device: torch.device, *, quick: bool = False) -> Iterator[Check]:
    """Yield every check on `device`; `quick` takes smaller models."""
    torch.set_float32_matmul_precision("highest")
    for name, config in configs(width=64 if quick else 256, layers=2 if quick else 4).items():
        rows = probe_rows(config, seed=0)
        yield from _against_sequences(name, config, rows, device)
        yield from _against_explicit_mask(name, config, rows, device)
        yield from _against_separate(name, config, rows, device)
        yield from _against_float32(name, config, rows, device)


def configs(width: int, layers: int) -> dict[str, PreTrainedConfig]:
    """Return the two models, of which "windows" has them in the second half of its layers."""
    sizes = {
        "vocab_size": 512,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 1024,
        "initializer_range": 0.06,  # logits with a spread, so that a wrong mask shows
    }
    windows = {"use_sliding_window": True, "sliding_window": _WINDOW, "max_window_layers": layers // 2}
    return {
        "full": AutoConfig.for_model("qwen2", **sizes),
        "windows": AutoConfig.for_model("qwen2", **sizes, **windows),
    }


def _made(kind: Any, config: PreTrainedConfig, attention: str, device: torch.device) -> PreTrainedModel:
    torch.manual_seed(0)
    with device:
        return without_noise(kind.from_config(without_dropout(config), attn_implementation=attention))


@contextlib.contextmanager
def _as_on(device: torch.device) -> Iterator[None]:
    """Run FlexAttention uncompiled on a CPU, where it has no kernel."""
    with torch.compiler.set_stance("default" if device.type == "cuda" else "force_eager"):
        yield


def _logprobs(model: PreTrainedModel, layout: Layout, precision: Precision = "float32") -> Tensor:
    policy = Policy(model, 1.0, precision)
    return torch.cat([policy(layout, layout.predictions[part]) for part in ("action", "fresh")])


def _largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


def _against_sequences(name: str, config: PreTrainedConfig, rows: list[Row], device: torch.device) -> Iterator[Check]:
    """Yield the gaps of packed passes to each sequence alone, through the model as its family wrote it."""
    layout = PackedEncoder(0).encode(rows, _PARTS).to(device)
    for attention, words in ((TREE, "explicit mask"), (FLEX, "FlexAttention")):
        model = _made(AutoModelForCausalLM, config, attention, device)
        value = value_head(hidden_width(model), 32).to(device)
        expected = reference(model, value, rows)
        with torch.no_grad(), _as_on(device):
            logprobs = _logprobs(model, layout)
            hidden = features(layers_of(model), layout)
            values = value(hidden[layout.points["state"]]).squeeze(-1)
        yield Check(
            f"packed ({words}) against each sequence alone, nats",
            name,
            _largest(logprobs, expected.logprobs),
            FLOAT32_NATS,
        )
        states = expected.values[: len(values)]
        gap = _largest(values, states) / float(states.std())
        yield Check(f"packed ({words}) against each sequence alone, values", name, gap, FLOAT32_NATS)


def _against_explicit_mask(
    name: str, config: PreTrainedConfig, rows: list[Row], device: torch.device
) -> Iterator[Check]:
    """Yield the gaps of FlexAttention, and of blocks of an explicit mask, to a dense explicit mask."""
    layout = PackedEncoder(0).encode(rows, _PARTS).to(device)
    dense = _made(AutoModelForCausalLM, config, "sdpa", device)
    expected = _logprobs(dense, layout)
    of_dense = _gradient(dense, expected)
    for attention, words in ((FLEX, "FlexAttention"), (TREE, "blocks of a mask")):
        model = _made(AutoModelForCausalLM, config, attention, device)
        trains = device.type == "cuda" or attention == TREE  # on a CPU, FlexAttention has no backward pass
        with _as_on(device), torch.set_grad_enabled(trains):
            logprobs = _logprobs(model, layout)
            yield Check(f"{words} against a dense mask, nats", name, _largest(logprobs, expected), FLOAT32_NATS)
            if trains:
                gap = _distance(_gradient(model, logprobs), of_dense)
                yield Check(f"{words} against a dense mask, gradient", name, gap, FLOAT32_GRADIENT)


def _against_separate(name: str, config: PreTrainedConfig, rows: list[Row], device: torch.device) -> Iterator[Check]:
    """Yield the gap of the critic's values in a packed pass to those of separate sequences."""
    attention = FLEX if device.type == "cuda" else TREE
    backbone = _made(AutoModel, config, attention, device)
    critic = Critic(backbone, 32).to(device)
    with torch.no_grad(), _as_on(device):
        packed, separate = (
            critic(encoder.encode(rows, _PARTS).to(device), q=("action", "fresh"), v=("state", "next_state"))
            for encoder in (PackedEncoder(0), SeparateEncoder(0))
        )
    gap = max(_largest(packed[part], separate[part]) / float(separate[part].std()) for part in packed)
    yield Check("packed against separate sequences, values of the critic", name, gap, FLOAT32_NATS)


def _against_float32(name: str, config: PreTrainedConfig, rows: list[Row], device: torch.device) -> Iterator[Check]:
    """Yield the gaps of a pass in bfloat16 to the same pass in float32."""
    layout = PackedEncoder(0).encode(rows, _PARTS).to(device)
    model = _made(AutoModelForCausalLM, config, FLEX if device.type == "cuda" else TREE, device)
    with _as_on(device):
        exact = _logprobs(model, layout)
        of_exact = _gradient(model, exact)
        rounded = _logprobs(model, layout, "bfloat16")
        gap = (rounded - exact).detach().abs()
        yield Check("bfloat16 against float32, nats", name, float(gap.max()), BFLOAT16_NATS)
        yield Check("bfloat16 against float32, mean of nats", name, float(gap.mean()), BFLOAT16_MEAN_NATS)
        distance = _distance(_gradient(model, rounded), of_exact)
        yield Check("bfloat16 against float32, gradient", name, distance, BFLOAT16_GRADIENT)


def _gradient(model: PreTrainedModel, logprobs: Tensor) -> Tensor:
    """Return the gradient of the mean of squares of `logprobs`, which weighs each token differently, as one vector."""
    found = torch.autograd.grad(logprobs.square().mean(), list(model.parameters()))
    return torch.cat([part.flatten() for part in found])


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
