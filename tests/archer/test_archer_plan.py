"""`archer plan`: sizes against published ones, bytes against real tensors, refusals with their arithmetic."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from actors.config import EngineConfig
from archer.cli import main
from archer.config.loading import load_config
from archer.config.models import RunConfig
from archer.errors import ConfigError, RunError
from archer.planning.counting import PeakBytes, held, without_data
from archer.planning.engines import cache_bytes_per_token, engine_memory
from archer.planning.models import Shape, count, find_shape, scaled
from archer.planning.parts import Shapes, clone_stage, cycle_stage
from archer.planning.passes import activation_bytes, peak_bytes, stage_passes
from archer.planning.placement import Node, placement, read_nodes
from archer.planning.plan import GIB, make_plan
from archer.planning.published import SHAPES
from archer.planning.report import print_plan
from archer.planning.stage import Part, Stage
from archer.planning.workload import Workload
from learner.config import LearnerConfig
from learner.models.policy import Policy
from learner.models.pretrained import checkpoint_activations
from learner.passes.attention import TREE
from learner.passes.packed_encoder import PackedEncoder

NODE = Node(cpu=96, gpu=8)


@pytest.fixture
def mode() -> Iterator[FakeTensorMode]:
    with without_data() as found:
        yield found


def _llama(layers: int = 2) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=200,
        hidden_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=160,
        max_position_embeddings=256,
        pad_token_id=0,
    )


def _setup(learner: dict[str, Any], layers: int | None = None) -> Shapes:
    config = LearnerConfig.model_validate(learner)
    return Shapes("", "", None, config, 1.0, policy_config=_llama(), layers=layers)  # type: ignore[arg-type]


def _config(*overrides: str) -> RunConfig:
    return load_config("twenty_questions_7b", overrides)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("meta-llama/Llama-3.1-70B", 70_553_706_496),
        ("meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400),
        ("gpt2", 124_439_808),
    ],
)
def test_shapes_of_the_table_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    assert count(find_shape(name, "`model.path`").config) == parameters


def test_a_stated_size_is_met_by_the_layers_of_the_nearest_model() -> None:
    shape = scaled(7e9)
    assert count(shape.config) == pytest.approx(7e9, rel=0.02)
    assert "Qwen2.5-7B with 25 layers" in shape.source
    assert len(SHAPES) > 10


@pytest.mark.parametrize(
    ("stage", "learner"),
    [
        ("cycles", {}),
        (
            "cycles",
            {"critic": {"backbones": "apart", "heads": 3}, "actor": {"kl_to_clone": 0.1, "token_baseline": True}},
        ),
        ("cycles", {"lora": {"rank": 4}, "actor": {"kl_to_clone": 0.1}, "dtype": "bfloat16"}),
        ("cloning", {"clone": {"steps": 1}, "dtype": "bfloat16"}),
    ],
)
def test_weights_are_those_of_the_real_modules(mode: FakeTensorMode, stage: str, learner: dict[str, Any]) -> None:
    """The same functions on real tensors: each parameter of all modules once, with its dtype and whether it trains."""

    def sizes(of: Stage) -> list[tuple[int, int, bool]]:
        each = {id(p): p for part in of.parts for p in part.module.parameters()}
        return sorted((p.numel(), p.element_size(), p.requires_grad) for p in each.values())

    def made() -> Stage:
        return cycle_stage(_setup(learner), "archer") if stage == "cycles" else clone_stage(_setup(learner))

    with mode:
        planned = sizes(made())
    assert planned == sizes(made())


@pytest.mark.parametrize("learner", [{}, {"dtype": "bfloat16"}, {"activation_checkpointing": True}])
def test_activations_are_those_of_the_real_pass(mode: FakeTensorMode, learner: dict[str, Any]) -> None:
    """A pass over a trunk with the learner's attention, forward and backward, and the bytes that autograd keeps."""
    load = Workload(tokens=96, turns=4, action=8, rows=3)

    def stages(depth: int) -> tuple[Shapes, Stage]:
        setup = _setup(learner, depth)
        with mode:
            return setup, clone_stage(setup)

    planned = activation_bytes(
        mode, stages, {"policy": 5}, lambda setup, stage: stage_passes(setup, stage, "reinforce", {"policy": load})
    )["policy"]
    model = AutoModelForCausalLM.from_config(_llama(5), attn_implementation=TREE)
    if learner.get("activation_checkpointing"):
        checkpoint_activations(model)
    policy = Policy(model, 1.0, learner.get("dtype", "float32"))
    layout = PackedEncoder(0).encode(load.batch(whole=True, fresh=0), ("action",))
    kept: dict[int, int] = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: _note(kept, t), lambda t: t):
        loss = policy(layout, layout.predictions["action"]).sum()
    for tensor in held(policy):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    with PeakBytes(held(policy)) as counter:
        del loss
        policy(layout, layout.predictions["action"]).sum().backward()
    assert planned == pytest.approx(counter.peak, rel=0.05)
    assert sum(kept.values()) < counter.peak


def _note(kept: dict[int, int], tensor: torch.Tensor) -> torch.Tensor:
    kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return tensor


def test_fresh_actions_are_part_of_the_pass(mode: FakeTensorMode) -> None:
    """On a CPU the attention of branches copies keys and values, which FlexAttention does not, so the plan is lower."""
    load = Workload(tokens=64, turns=4, action=6, rows=2)
    setup = _setup({"actor": {"fresh_per_state": 4, "unit": "episode"}, "critic": {"unit": "episode"}})
    with mode:
        stage = cycle_stage(setup, "archer")
    run = stage_passes(setup, stage, "archer", {"policy": load, "critic": load})["policy"]
    with mode:
        planned = peak_bytes(stage, run)
    policy = Policy(AutoModelForCausalLM.from_config(_llama(), attn_implementation=TREE), 1.0)
    layout = PackedEncoder(0).encode(load.batch(whole=True, fresh=4), ("fresh",), 0)
    real = peak_bytes(
        Stage("cycles", [Part("policy", policy, trained=True)]),
        lambda: policy(layout, layout.predictions["fresh"]).sum(),
    )
    assert 0.6 * real < planned <= real


def test_the_cache_of_a_token_is_that_of_its_architecture() -> None:
    """Qwen2.5-7B: 2 x 28 layers x 4 heads x 128 x 2 bytes = 56 KiB."""
    shape = find_shape("Qwen/Qwen2.5-7B", "`model.path`")
    assert cache_bytes_per_token(shape.config) * 2 == 56 * 1024


def test_an_engine_without_room_for_one_sequence_is_refused(mode: FakeTensorMode) -> None:
    engine = EngineConfig(dtype="float32", kv_cache_gib=0.001)
    shape = Qwen2Config(
        vocab_size=300, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=96,
    )  # fmt: skip
    with pytest.raises(RunError, match=r"one sequence of 9000 tokens takes 0\.0 GiB \(0 KiB a token\)|KiB a token"):
        engine_memory(mode, engine, shape, window=9000, backend="shm", gpu_gib=0.0)


def test_the_preset_of_7b_fits_its_node() -> None:
    plan = make_plan(_config())
    assert plan.parameters == 7_615_616_512
    assert len(plan.nodes) == 1
    gpus = plan.on_gpus(0)
    assert (
        sorted(place.kind for processes, _ in gpus for place in processes)
        == ["learner rank"] * 4 + ["rollout worker"] * 4
    )
    assert all(0 < held <= 80 * GIB for _, held in gpus)
    # ZeRO-3 on four ranks: master copy and moments of policy (7.6B) and critic (0.36B), and a buffer of gradients.
    weights = plan.ranks["cycles"].device["optimizer"]
    assert weights == pytest.approx(4 * 4 * (7.616e9 + 0.355e9) / 4, rel=0.01)
    console = Console(record=True, width=200)
    print_plan(plan, console)
    text = console.export_text()
    for part in ("7.62B parameters", "GPU 0", "learner rank", "key-value cache", "not counted"):
        assert part in text


@pytest.mark.parametrize(
    ("overrides", "nodes", "message"),
    [
        ([], ["1:cpu=96,gpu=4"], r"have no room for 4 x rollout worker \(4 CPU, 1 GPU\).* 8 of 4 GPU"),
        (
            [],
            ["1:cpu=96,gpu=8,gpu_gib=24"],
            r"GPU \d of node 0 has 24 GiB, and .* needs [\d.]+ GiB: weights [\d.]+ \+ ",
        ),
        (["learner.zero_stage=1"], ["1:cpu=96,gpu=8"], r"learner rank \d needs .*zero_stage=3"),
        (["rollout.engine.tensor_parallel=2"], [], r"set rollout\.gpus_per_worker=2"),
        (["learner.broadcast.backend=shm"], ["2:cpu=96,gpu=4"], r"shm sends weights through the memory of one machine"),
    ],
)
def test_a_cluster_that_cannot_hold_the_run_is_refused(overrides: list[str], nodes: list[str], message: str) -> None:
    with pytest.raises(RunError, match=message):
        make_plan(_config(*overrides), read_nodes(nodes), tokens=512)


def test_engines_and_ranks_without_gpus_may_be_on_different_hosts() -> None:
    apart = ["rollout.resources={engines: 1}", "learner.resources={ranks: 1}", "learner.ranks=1", "rollout.workers=1"]
    nodes = read_nodes(["1:cpu=4,ranks=1", "1:cpu=4,engines=1"])
    plan = make_plan(load_config("demo", apart), nodes)
    kinds = [{place.kind for place in places} & {"rollout worker", "learner rank"} for places in plan.places]
    assert kinds == [{"learner rank"}, {"rollout worker"}]
    with pytest.raises(RunError, match="shm sends weights through the memory of one machine"):
        make_plan(load_config("demo", [*apart, "learner.broadcast.backend=shm"]), nodes)


def test_the_backend_is_nccl_only_where_ranks_and_engines_have_whole_gpus() -> None:
    def backend(*overrides: str) -> str:
        return _config("learner.broadcast.backend=auto", *overrides).broadcast_backend

    assert backend() == "nccl"
    assert backend("rollout.gpus_per_worker=0.5") == "auto"
    assert backend("learner.use_gpu=false") == "auto"
    assert _config("learner.broadcast.backend=ipc").broadcast_backend == "ipc"


def test_processes_share_gpus_and_fill_nodes() -> None:
    config = _config("rollout.gpus_per_worker=0.5", "rollout.cpus_per_worker=1")
    found = placement(config, [Node(cpu=20, gpu=4), Node(cpu=8, gpu=2)])
    assert {(p.kind, tuple(p.gpus)) for p in found[0] if p.gpus} >= {("learner rank", (0,))}
    halves = [tuple(p.gpus) for processes in found for p in processes if p.kind == "rollout worker"]
    assert sorted(halves.count(gpu) for gpu in set(halves)) == [2, 2]


@pytest.mark.parametrize("given", ["two", "0:cpu=4", "1:gpu=4", "1:cpu=-4"])
def test_nodes_that_cannot_be_read_are_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"--nodes .*COUNT:cpu=N"):
        read_nodes([given])


def test_a_model_that_does_not_exist_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it retries for 20 s
    monkeypatch.setattr("sys.argv", ["archer", "plan", "twenty_questions_7b", "model.path=nobody/nothing"])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert re.fullmatch(r"archer: `model\.path` 'nobody/nothing' has no configuration .*--parameters 7e9.*\n", error)
    with pytest.raises(ConfigError, match=r"no Hugging Face model"):
        find_shape(str(tmp_path), "`model.path`")


def test_a_run_on_cpus_is_planned_in_the_memory_of_its_processes() -> None:
    plan = make_plan(load_config("demo"))
    assert not plan.on_gpus(0)
    assert 1.0 < plan.on_host(0) / GIB < 3.0  # a rank of 0.5M parameters, and an engine with a cache of 1 GiB
    with pytest.raises(RunError, match=r"node 0 has 0\.5 GiB of memory"):
        make_plan(load_config("demo"), [Node(cpu=4, host_gib=0.5)])
    with pytest.raises(ConfigError, match="one process"):
        make_plan(load_config("demo", ["mode=inline"]))


def test_shapes_say_where_they_are_from() -> None:
    assert isinstance(find_shape("gpt2", "`model.path`"), Shape)
