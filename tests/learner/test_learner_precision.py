"""Mixed precision, recomputed activations and the optimizer on the host: what each changes and what it must not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from algorithm_cases import episodes, make_algorithm, run_cycle
from learner_cases import llama, make_row, run_ranks
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

from learner.config import LearnerConfig
from learner.engine.engines import FrozenEngine, deepspeed_config
from learner.models.critic import Critic
from learner.models.policy import Policy
from learner.passes.attention import FLEX, TREE
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.precision import computing

pytestmark = pytest.mark.usefixtures("one_rank")
SMALL_LR = 1e-5
STEPS = 40


class Weight(nn.Module):
    """One weight of ones. The neighbours of 1 in bfloat16 are 0.004 away."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with computing("bfloat16", x.device):
            return nn.functional.linear(x, self.weight).float().sum()


def _small_steps(rank: int, out: Path) -> None:
    from learner.engine.accelerator import deepspeed
    from learner.engine.engines import Engine

    found = {}
    for stage in range(4):
        config = LearnerConfig(zero_stage=stage, dtype="bfloat16", optimizer_offload=stage > 0)  # type: ignore[arg-type]
        engine = Engine(Weight(), config, lr=SMALL_LR, max_grad_norm=1e9)
        for _ in range(STEPS):
            engine.step([[]], lambda rows, engine=engine: engine(torch.ones(1, 8)), global_size=1.0)
        weight = engine.module.weight
        with deepspeed.zero.GatheredParameters([weight], enabled=stage == 3):
            found[stage] = (str(weight.dtype), (1.0 - weight.double()).mean().item())
    if rank == 0:
        (out / "found.json").write_text(json.dumps(found))


def test_steps_below_a_bfloat16_rounding_accumulate_at_every_stage(tmp_path: Path) -> None:
    assert torch.ones(1).sub(STEPS * SMALL_LR).bfloat16() == 1.0, "else the test shows nothing"
    run_ranks(2, _small_steps, tmp_path)
    for dtype, moved in json.loads((tmp_path / "found.json").read_text()).values():
        assert dtype == "torch.float32"
        assert moved == pytest.approx(STEPS * SMALL_LR, rel=0.01)


def test_the_average_of_a_target_moves_by_less_than_a_bfloat16_rounding() -> None:
    """A target in bfloat16 would stay at 1, because tau times the distance is less than half a rounding."""
    online = Weight()
    with torch.no_grad():
        online.weight.add_(0.01)
    target = FrozenEngine(Weight().bfloat16(), LearnerConfig(dtype="bfloat16"), torch.device("cpu"))
    engine: Any = type("Online", (), {"module": online})
    for _ in range(10):
        target.average_towards(engine, 0.1)
    torch.testing.assert_close(target.module.weight, torch.full((8, 8), 1 + 0.01 * (1 - 0.9**10)))


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_passes_are_in_bfloat16_and_heads_and_trained_weights_in_float32(lora: dict[str, Any] | None) -> None:
    algorithm: Any = make_algorithm("archer", dtype="bfloat16", lora=lora)
    seen: dict[str, set[torch.dtype]] = {"projection": set(), "value head": set()}

    def watch(kind: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda module, given, output: seen[kind].add(output.dtype))

    for module in algorithm.engines.critic.module.backbone.modules():
        if isinstance(module, nn.Linear) and module.out_features > 4:
            watch("projection", module)
    watch("value head", algorithm.engines.critic.module.q[0])
    run_cycle(algorithm, 0)
    assert seen == {"projection": {torch.bfloat16}, "value head": {torch.float32}}
    for engine in (algorithm.policy, algorithm.engines.critic):
        assert {p.dtype for p in engine.module.parameters() if p.requires_grad} == {torch.float32}
    base = {p.dtype for p in algorithm.policy_model.parameters() if not p.requires_grad}
    assert base == ({torch.bfloat16} if lora else set()), "a base that is not trained is held in bfloat16"


@pytest.mark.parametrize("attends", [TREE, FLEX])
def test_bfloat16_reads_the_same_branches(attends: str) -> None:
    """A rounded mask must hide pads and masked keys, and must not make a softmax undefined."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(llama(attn_implementation=attends, head_dim=16)).eval()
    layout = PackedEncoder(0).encode([make_row(0, turns=3), make_row(1, all_turns=True)], ("state", "fresh"))
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        exact = Policy(model, 0.9)(layout, layout.predictions["fresh"])
        rounded = Policy(model, 0.9, "bfloat16")(layout, layout.predictions["fresh"])
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.03, rtol=0)


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
@pytest.mark.parametrize("name", ["archer", "ppo"])
def test_recomputing_activations_changes_no_loss(name: Any, lora: dict[str, Any] | None) -> None:
    losses, calls = [], []
    for recompute in (False, True):
        algorithm: Any = make_algorithm(name, activation_checkpointing=recompute, lora=lora, actor={"kl_to_clone": 0.1})
        trained = algorithm.value if name == "ppo" else algorithm.engines.critic
        for engine in (algorithm.policy, trained):
            backbone = engine.module.model.base_model if hasattr(engine.module, "model") else engine.module.backbone
            counted = [0]
            calls.append(counted)
            backbone.layers[0].mlp.register_forward_pre_hook(
                lambda module, given, counted=counted: counted.__setitem__(0, counted[0] + torch.is_grad_enabled())
            )
        losses.append(run_cycle(algorithm, 0))
    for plain, again in zip(*losses, strict=True):
        np.testing.assert_allclose(again, plain, rtol=1e-4, atol=1e-5)
    policy, value, policy_again, value_again = (count for (count,) in calls)
    assert policy > 0
    assert (policy_again, value_again) == (2 * policy, 2 * value), "each block's pass twice: forward, and in backward"


def test_separate_backbones_serve_q_and_v() -> None:
    torch.manual_seed(0)
    q, v = (AutoModel.from_config(llama()).eval() for _ in range(2))
    layout = PackedEncoder(0).encode(episodes(0, 2), ("state", "action"))
    apart, of_q, of_v = Critic(q, 16, v_backbone=v), Critic(q, 16), Critic(v, 16)
    for other in (of_q, of_v):
        other.q.load_state_dict(apart.q.state_dict())
        other.v.load_state_dict(apart.v.state_dict())
    values = apart(layout, q=("action",), v=("state",))
    torch.testing.assert_close(values["q_action"], of_q(layout, q=("action",))["q_action"])
    torch.testing.assert_close(values["v_state"], of_v(layout, v=("state",))["v_state"])
    values["v_state"].sum().backward()
    assert all(p.grad is None for p in q.parameters())
    assert all(p.grad is not None for p in v.parameters())


@pytest.mark.parametrize("use_gpu", [False, True])
def test_offload_is_configured_in_deepspeed_and_needs_zero_1_or_more(use_gpu: bool) -> None:
    config = LearnerConfig(zero_stage=2, optimizer_offload=True, use_gpu=use_gpu)
    said = deepspeed_config(config, 1.0)
    assert said["zero_optimization"]["offload_optimizer"] == {"device": "cpu", "pin_memory": use_gpu}
    assert "bf16" not in said, "DeepSpeed would round the weights that are trained"
    with pytest.raises(ValueError, match=r"optimizer_offload.*zero_stage.* 0.*set zero_stage to 1, 2 or 3"):
        LearnerConfig(optimizer_offload=True)
