"""`bench/gpu.py` on a CPU: without the packages that a lent machine lacks, and its steps, meters and checks."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import gpu
from bench.gpu_cases import Case, all_cases, quick_cases
from bench.gpu_checks import FLOAT32_NATS, configs
from bench.gpu_meters import planned_memory, step_flops
from bench.gpu_models import SIZES, Adapter, Settings, made_base, made_parts, random_micro_batches, shape_of
from bench.gpu_profile import Span, summary
from bench.gpu_steps import Stepper
from bench.learner_workload import Case as LearnerCase
from bench.learner_workload import build, make_row
from learner.algorithms.phases import Draws
from learner.config import LearnerConfig, LoraConfig
from learner.engine.zero import engine_bytes

ROOT = Path(__file__).resolve().parents[2]
# Run as a script on a machine without these, as a lent one is. `None` lets both `import` and `find_spec` find nothing.
WITHOUT = """
import runpy, sys
for name in ("ray", "vllm", "deepspeed", "pydantic", "prometheus_client", "rich", "gymnasium", "fastapi"):
    sys.modules[name] = None
sys.argv = ["bench/gpu.py", "--quick", "--out", sys.argv[1]]
runpy.run_path("bench/gpu.py", run_name="__main__")
"""


def test_the_program_runs_without_ray_vllm_deepspeed_and_pydantic(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(out)], cwd=ROOT, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    assert found["device"] == "cpu"
    assert found["left_out"] == []
    assert len(found["checks"]) == 22
    assert all(check["passed"] for check in found["checks"])
    assert {check["model"] for check in found["checks"]} == {"full", "windows"}
    rows = found["rows"]
    assert [row["outcome"] for row in rows] == ["measured"] * len(quick_cases())
    assert {(row["trains"], row["weights"]) for row in rows} == {
        (trains, weights) for trains in ("actor", "critic") for weights in ("whole", "LoRA, rank 16")
    }
    # The plan's activations are counted without data, and here those of the step itself are counted.
    assert all(0.9 < row["planned_over_peak"] < 1.1 for row in rows)
    assert rows[0]["profile"]["operations"]
    assert rows[0]["profile"]["device_busy"] is None


def test_settings_have_the_names_and_defaults_of_the_learner() -> None:
    learner = LearnerConfig()
    pairs = [(Settings(), learner), (Settings().critic, learner.critic), (Settings().actor, learner.actor)]
    for ours, theirs in [*pairs, (Adapter(), LoraConfig())]:
        for field in dataclasses.fields(ours):
            if field.name not in ("critic", "actor", "unit"):
                assert getattr(ours, field.name) == getattr(theirs, field.name), field.name


@pytest.mark.usefixtures("one_rank")
def test_steps_are_those_of_archer() -> None:
    case = LearnerCase([3], "short", 1, 4, 1, 1, 1, "demo", "float32", 0)
    import numpy as np

    rng = np.random.default_rng(0)
    batches = [[make_row(rng, case, 3) for _ in range(2)] for _ in range(2)]
    archer = build(case, "float32", separate=False)
    engines = archer.engines
    settings = Settings()
    modules = {"policy": engines.policy.module, "critic": engines.critic.module, "target": engines.target.module}
    modules = {name: copy.deepcopy(module) for name, module in modules.items()}
    advantages = [engines.advantage(rows, "fresh") for rows in batches]
    samples = 12
    theirs = archer.step(Draws("actor", 1, 4, "episode", fresh=1, logprobs=True), batches, samples, 1).metrics
    ours = Stepper({"policy": modules["policy"]}, "policy", settings).step(batches, advantages)
    assert float(ours["loss"]) == pytest.approx(theirs["actor/loss"], rel=1e-5)
    assert float(ours["norm"]) == pytest.approx(theirs["actor/norm"], rel=1e-5)
    critic = Stepper({"critic": modules["critic"], "target": modules["target"]}, "critic", settings, lr=1e-3)
    draws = Draws("critic", 1, 4, "episode", fresh=1)
    # Metrics are means over the two heads. The second step reads the weights and the target network of the first.
    for rel in (1e-5, 1e-3):
        found = archer.step(draws, batches, samples, 1).metrics
        step = critic.step(batches)
        assert float(step["loss"]) == pytest.approx(2 * (found["critic/q_loss"] + found["critic/v_loss"]), rel=rel)
        assert float(step["norm"]) == pytest.approx(found["critic/norm"], rel=rel)


def test_flops_of_an_episode_by_hand() -> None:
    config = shape_of("tiny")
    for adapters in (False, True):
        settings = Settings(lora=Adapter() if adapters else None)
        base = made_base(config, settings, "policy")
        stepper = Stepper(made_parts(base, settings, "policy"), "policy", settings)
        ((row,),) = random_micro_batches(512, tokens=1, turns=1, micro_tokens=1)
        state, fresh = int(row.episode.action_start[0]), len(row.fresh.tokens)  # the actor's trunk ends at its state
        width, key, feed_forward, layers = 64, 32, 160, 2
        weights = layers * (2 * width * width + 2 * width * key + 3 * width * feed_forward)
        tokens, pairs = state + fresh, (state + fresh) * (state + fresh + 1) / 2
        products = 2 * weights * tokens + 2 * width * 512 * fresh
        attention = 4 * width * layers * pairs
        found = step_flops(stepper, base, [[row]])
        assert found.as_trained == 3 * (products + attention)
        assert found.needed == (2 if adapters else 3) * products + 3 * attention


def test_the_plan_counts_what_each_step_holds() -> None:
    config, batches = shape_of("tiny"), random_micro_batches(512, tokens=800, turns=3, micro_tokens=400)
    whole = planned_memory(config, Settings(), "critic", batches)
    base = made_base(config, Settings(), "critic")
    critic = made_parts(base, Settings(), "critic")["critic"]
    size = sum(parameter.numel() for parameter in critic.parameters())
    engine = engine_bytes(size, stage=0, ranks=1, offload=False, largest=0, adapters=False)
    assert whole.device["weights"] == engine.weights + 4 * size  # and the target network
    assert whole.device["optimizer"] == engine.optimizer
    recomputed = planned_memory(config, Settings(activation_checkpointing=True), "critic", batches)
    assert recomputed.device["activations"] < whole.device["activations"]


def test_windows_are_found_if_they_are_missing() -> None:
    from learner.check.episodes import probe_rows
    from learner.check.reference import reference

    made = configs(width=64, layers=2)
    assert made["windows"].layer_types == ["full_attention", "sliding_attention"]
    rows, found = probe_rows(made["windows"], seed=0), []
    for config in made.values():
        torch.manual_seed(0)
        model = made_model(config)
        found.append(reference(model, torch.nn.Linear(64, 1), rows).logprobs)
    assert float((found[0] - found[1]).abs().max()) > 100 * FLOAT32_NATS


def made_model(config: object) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def test_a_profile_says_where_the_time_goes() -> None:
    spans = [
        Span("aten::mm", "host", 0.0, 50.0),
        Span("cudaStreamSynchronize", "host", 600.0, 1000.0),
        Span("gemm", "device", 100.0, 300.0),
        Span("gemm", "device", 250.0, 400.0),  # on another stream
        Span("softmax", "device", 404.0, 500.0),
        Span("gemm", "device", 700.0, 900.0),
    ]
    found = summary(spans)
    assert found["step_ms"] == 1.0
    assert found["device_busy"] == pytest.approx((300 + 96 + 200) / 1000)
    assert found["gaps"] == {"count": 1, "ms": 0.2, "longest_ms": 0.2}
    assert found["waits"] == [{"name": "cudaStreamSynchronize", "calls": 1, "ms": 0.4}]
    assert found["kernels"][0] == {"name": "gemm", "calls": 3, "ms": pytest.approx(0.55)}


def test_the_cases_cover_the_table_and_begin_with_what_is_worth_most() -> None:
    cases = all_cases()
    plain = {dataclasses.replace(case, profiled=False) for case in cases}
    assert len(plain) == len(cases)
    for size in SIZES.keys() - {"tiny"}:
        for trains in ("policy", "critic"):
            for adapters in (True, False):
                for tokens in (16_384, 65_536):
                    for turns in (10, 20):
                        assert Case(size, trains, adapters, tokens, turns) in plain
    assert (cases[0].size, cases[0].trains, cases[0].adapters) == ("7B", "policy", True)


def test_what_runs_out_of_memory_is_a_row_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tries: list[Case] = []

    def measured(self: gpu.Bench, case: Case, *_: object) -> dict[str, object]:
        tries.append(case)
        if len(tries) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        raise RuntimeError("no kernel for this\nmore") if len(tries) == 2 else gpu.OverBudgetError

    monkeypatch.setattr(gpu.Bench, "_measured", measured)
    monkeypatch.setattr(gpu, "all_checks", lambda device, quick: iter(()))
    monkeypatch.setattr(gpu, "quick_cases", lambda: quick_cases()[:3])
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--quick", "--out", str(tmp_path / "out.json")])
    assert gpu.main() == 1  # without a check that passed
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["outcome"] for row in rows] == [
        "out of memory",
        "failed: RuntimeError: no kernel for this",
        "over the budget",
    ]
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--quick", "--budget", "-1", "--out", str(tmp_path / "none.json")])
    gpu.main()
    found = json.loads((tmp_path / "none.json").read_text())
    assert found["rows"] == []
    assert len(found["left_out"]) == 3
    assert "out of memory" in capsys.readouterr().err
