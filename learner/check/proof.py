"""The proof: the learner's passes over a model against the model's own forward pass, before anything else starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from learner.check.bounded import bounded
from learner.check.differences import first_difference
from learner.check.episodes import probe_rows
from learner.check.reference import Figures, reference
from learner.config import Passes
from learner.errors import LearnerError
from learner.models.policy import Policy, features, value_head
from learner.models.pretrained import (
    checkpoint_activations,
    hidden_width,
    is_causal,
    layers_of,
    load_causal_model,
    set_passes,
    unpackable,
)
from learner.passes.layout import Layout
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.rows import Row

TOLERANCE = 5e-4
"""Largest gap that passes: of log-probabilities in nats, and of values in units of their spread. In float32, rounding
gives up to about 1e-5 of it."""


class PassProofError(LearnerError):
    """The learner cannot compute a model's log-probabilities and values; the message names the step that differs."""


@dataclass(frozen=True)
class PassProof:
    """How the learner runs a model, and how far it is from the model's own forward pass.

    Attributes:
        architecture: the model's class.
        passes: packed, or separate sequences.
        gap: largest difference of a log-probability in nats, on the trunks and on the branches.
        value_gap: largest difference of a value, in units of the spread of the values.
        tokens: number of log-probabilities compared.
        reason: why the model is not packed; empty if it is.
        bounds: what the proof has cut short of the model.
    """

    architecture: str
    passes: Literal["packed", "separate"]
    gap: float
    value_gap: float
    tokens: int
    reason: str = ""
    bounds: tuple[str, ...] = ()

    def line(self) -> str:
        """Return the proof as a line of text."""
        how = "packed" if self.passes == "packed" else f"separate sequences, because {self.reason}"
        cut = f"; proved {', '.join(self.bounds)}" if self.bounds else ""
        return (
            f"passes of {self.architecture}: {how}; largest gap to its own forward pass {self.gap:.1e} nats over "
            f"{self.tokens} tokens{cut}"
        )


def prove(
    path: str | Path,
    *,
    passes: Passes = "auto",
    activation_checkpointing: bool = False,
    seed: int = 0,
) -> PassProof:
    """Prove the passes of the causal model at `path`, a folder or Hugging Face name, in float32 on the CPU.

    Args:
        passes: "auto" packs if packed passes agree, and else takes separate sequences.

    Raises:
        PassProofError: no allowed pass agrees with the model's own.
    """
    config = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or not is_causal(config):
        raise PassProofError(
            f"its architecture {config.model_type!r} has no causal language model in transformers, and a policy writes "
            "from left to right; choose a model with a causal language model"
        )
    small, bounds = bounded(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = load_causal_model(path, "float32", config=small)
        value = value_head(hidden_width(model), 32).requires_grad_(False)
        rows = probe_rows(small, seed)
        found = prove_model(model, value, rows, passes=passes, activation_checkpointing=activation_checkpointing)
    return PassProof(**{**vars(found), "bounds": tuple(bounds)})


def prove_model(
    model: PreTrainedModel,
    value: nn.Module,
    rows: Sequence[Row],
    *,
    passes: Passes = "auto",
    activation_checkpointing: bool = False,
) -> PassProof:
    """Prove the passes of a loaded model on `rows`, and set them. `value` gives values of hidden states.

    Raises:
        PassProofError: no allowed pass agrees with the model's own.
    """
    name = type(model).__name__
    try:
        expected = reference(model, value, rows)
    except Exception as error:
        raise PassProofError(f"the forward pass of {name} itself fails: {_first_line(error)}") from error
    if not all(torch.isfinite(part).all() for part in expected):
        raise PassProofError(f"the forward pass of {name} gives values that are not finite; check its weights")
    if activation_checkpointing:
        checkpoint_activations(model)
    layout = PackedEncoder(0).encode(rows, ("state", "action", "fresh"))
    known = unpackable(model)
    tries = ["packed", "separate"] if passes == "auto" else [passes]
    reasons = {"packed": known} if known and passes == "auto" else {}
    for kind in tries:
        if kind in reasons:
            continue
        set_passes(model, kind)  # type: ignore[arg-type]
        outcome = _outcome(model, value, layout, expected)
        if isinstance(outcome, tuple):
            return PassProof(name, kind, *outcome, len(expected.logprobs), reasons.get("packed") or "")  # type: ignore[arg-type]
        reasons[kind] = outcome
    raise PassProofError(
        f"the learner's passes over {name} differ from the model's own: "
        + "; ".join(f"{kind} passes: {reason}" for kind, reason in reasons.items())
        + ". Train another architecture, or report this one"
    )


def _outcome(model: PreTrainedModel, value: nn.Module, layout: Layout, expected: Figures) -> tuple[float, float] | str:
    """Return the gaps of log-probabilities and of values, or what is wrong."""
    try:
        got = _learners(model, value, layout)
    except Exception as error:  # noqa: BLE001  a family's code may raise anything
        return f"{type(model).__name__} cannot run them ({_first_line(error)})"
    gap = float((got.logprobs - expected.logprobs).abs().max())
    spread = max(float(expected.values.std()), 1e-6)
    value_gap = float((got.values - expected.values).abs().max()) / spread
    if gap <= TOLERANCE and value_gap <= TOLERANCE:
        return gap, value_gap
    where = first_difference(model, layout, TOLERANCE)
    return f"{where} differs (log-probabilities by up to {gap:.2g} nats, values by {value_gap:.2g} of their spread)"


@torch.no_grad()
def _learners(model: PreTrainedModel, value: nn.Module, layout: Layout) -> Figures:
    policy = Policy(model, 1.0)
    logprobs = [policy(layout, layout.predictions[part]) for part in ("action", "fresh")]
    hidden = features(layers_of(model), layout).float()
    of_states = value(hidden[layout.points["state"]]).squeeze(-1)
    # A state with fewer fresh actions than another one repeats its last one: take each action once.
    fresh = layout.predictions["fresh"]
    state, action = torch.unique_consecutive(torch.stack((fresh.sample, fresh.action), 1), dim=0).T
    of_actions = value(hidden[layout.points["fresh"]]).squeeze(-1)[state, action]
    return Figures(torch.cat(logprobs), torch.cat((of_states, of_actions)))


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"
