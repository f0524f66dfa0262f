"""The configuration: accepted and refused input, and the error messages."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archer.config.fields import fields
from archer.config.loading import dump_config, load_config
from archer.config.models import RunConfig
from archer.config.overrides import parse_override
from archer.config.presets import presets
from archer.driver.value_support import with_support
from archer.errors import ConfigError

BASE = """
seed: 7
model:
  build: {hidden_size: 64, heads: 2}
env:
  id: twenty_questions_subset
demonstrations:
  episodes: 10
learner:
  actor:
    lr: 1e-5
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    file = tmp_path / "base.yaml"
    file.write_text(BASE)
    return file


def test_file_and_overrides_become_one_config(base: Path) -> None:
    config = load_config(
        base, ["learner.critic.lr=3e-4", "env.kwargs={noise: 0.1}", "mode=async", "model.build.heads=1"]
    )
    assert config.learner.critic.lr == 3e-4
    assert config.learner.actor.lr == 1e-5  # YAML 1.1 reads 1e-5 as text
    assert config.env.kwargs == {"noise": 0.1}
    assert config.mode == "async"
    assert config.model.build is not None
    assert (config.model.build.hidden_size, config.model.build.heads) == (64, 1)
    assert config.seed == 7
    assert config.name == "base"


def test_dump_reads_back_to_the_same_config(base: Path, tmp_path: Path) -> None:
    config = load_config(base, ["name=other"])
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_config(config))
    assert load_config(copy) == config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("learner.critic.lrate=1", ["`learner.critic.lrate`", "did you mean `learner.critic.lr`?"]),
        ("lerner.critic.lr=1", ["`lerner`", "did you mean `learner`?"]),
        ("gamma=0.9", ["`gamma`", "`learner.critic.gamma`"]),
        ("learner.critic.lr=-1", ["`learner.critic.lr` is -1", "> 0"]),
        ("learner.critic.gamma=1.5", ["`learner.critic.gamma` is 1.5", "> 0 and <= 1"]),
        ("model.build.vocab_size=10", ["`model.build.vocab_size` is 10", ">= 300 and <= 65536"]),
        ("model.build.heads=4", ["`model.build` hidden_size 64 over heads 4 gives heads of 16", "vLLM", "32, 64"]),
        ("model.build.heads=3", ["heads of 21.3"]),
        ("mode=synk", ["`mode` is 'synk'", "sync, async"]),
        ("seed=abc", ["`seed` is 'abc'", "a whole number >= 0"]),
        ("cycles=null", ["`cycles` is null", "a whole number"]),
        ("replay.shards=0", ["`replay.shards` is 0", ">= 1"]),
        ("learner=3", ["`learner` is 3", "a mapping"]),
        ("learner.critic.lr", ["not of the form key=value"]),
        ("=3", ["names joined by dots"]),
        ("seed=[1", ["is not YAML", "line 1"]),
        ("seed=" + "[" * 500, ["is not YAML"]),
        ("seed=2024-13-45", ["reads 2024-13-45 as a date"]),
        ("seed.low=1", ["`seed` is 7", "no keys below it"]),
        ("name=../escape", ["`name`", "matching"]),
        ("env.id=twenty_question", ["`env.id`", "twenty_questions"]),
        ("env.id=no_such_module_here:Env", ["`env.id`", "no_such_module_here"]),
        ("env.kwargs={nois: 1}", ["`env.kwargs`", "noise"]),
        ("demonstrations.skill=2", ["`demonstrations.skill` is 2", ">= 0 and <= 1"]),
        ("demonstrations.episodes=0", ["demonstrations.episodes", "tokenizer"]),
        ("learner.broadcast.backend=nccl", ["`learner.broadcast.backend` is 'nccl'", "learner.broadcast.backend=auto"]),
        ("rollout.engine.max_model_len=4096", ["`rollout.engine.max_model_len` is 4096", "512"]),
        ("rollout.sampling.top_p=0.9", ["`rollout.sampling.top_p` is not offered", "whole distribution"]),
        ("rollout.sampling.top_k=50", ["`rollout.sampling.top_k` is not offered", "temperature"]),
        ("rollout.sampling.temperature=0", ["`rollout.sampling.temperature` is 0", "> 0"]),
        ("learner.ppo.gamma=0", ["`learner.ppo.gamma` is 0", "> 0 and <= 1"]),
        ("learner.reinforce.gamma=1.01", ["`learner.reinforce.gamma` is 1.01", "> 0 and <= 1"]),
        ("ppo.lr=1e-4", ["`ppo`", "`learner.ppo`"]),
        ("learner.ppo.beta=1", ["`learner.ppo.beta`", "learner.offline.beta"]),
        ("learner.filtered_bc.best=0", ["`learner.filtered_bc.best` is 0", "> 0 and <= 1"]),
        ("rollout.sampling.max_tokens=512", ["`rollout.sampling.max_tokens` is 512", "prompt"]),
        ("algorithm=pppo", ["`algorithm` is 'pppo'", "ppo"]),
        ("algorithm=bc", ["`algorithm` bc", "learner.clone.steps"]),
        ("learner.critic.retrace=0.9", ["learner.critic", "retrace=0.9 needs V from fresh", "value=fresh"]),
        ("learner.critic.value=fresh", ["learner.critic", "every state of an episode", "unit=episode"]),
        ("learner.critic={value: fresh, unit: episode, retrace: 0.9, n_step: 3}", ["retrace replaces n_step"]),
        ("learner.actor.weight_range=[2, 3]", ["weight_range [2.0, 3.0] must contain 1"]),
        ("learner.actor={objective: improvement, clip: 0.2}", ["clip belongs to the policy gradient"]),
        ("learner.actor.objective=improvement", ["compares the fresh actions", "fresh_per_state=16"]),
        ("offline_cycles=11", ["`offline_cycles` is 11", "10 of `cycles`"]),
        ("offline_cycles=1", ["replay is empty", "demonstrations.keep_in_replay"]),
        ("seed=0123", ["'seed=0123'", "reads 0123 as 83", "quotes make it text: '0123'"]),
        ("cycles=1:30", ["reads 1:30 as 90"]),
        ("cycles=1_000", ["reads 1_000 as 1000"]),
        ("seed=0b11", ["reads 0b11 as 3"]),
        ("learner.critic.lr=1_0.5", ["reads 1_0.5 as 10.5"]),
        ("learner.critic.lr=1:30.5", ["reads 1:30.5 as 90.5"]),
        ("learner.use_gpu=no", ["reads no as false", "write false"]),
        ("env.kwargs.country=NO", ["reads NO as false", "'NO'"]),
        ("env.kwargs.words=[on, off]", ["reads on as true"]),
        ("env.kwargs.day=2024-01-31", ["reads 2024-01-31 as a date", "'2024-01-31'"]),
        ("env.kwargs={yes: 1}", ["reads yes as true"]),
        ("cycles=true", ["`cycles` is true", "a whole number >= 0"]),
        ("learner.critic.lr=true", ["`learner.critic.lr` is true", "a number > 0"]),
        ("learner.critic={support: [false, 2]}", ["`learner.critic.support` is a list of 2"]),
        ("learner.critic.lr=.nan", ["`learner.critic.lr` is nan", "a number > 0"]),
        ("learner.critic.lr=.inf", ["`learner.critic.lr` is inf"]),
        ("rollout.sampling.temperature=.inf", ["`rollout.sampling.temperature` is inf"]),
        ("learner.timeout_s=.inf", ["`learner.timeout_s` is inf"]),
        ("cluster.start_timeout_s='inf'", ["`cluster.start_timeout_s` is 'inf'"]),
        ("learner.actor.weight_range=[0, .inf]", ["`learner.actor.weight_range", "is inf"]),
        ("replay.critic.samples_per_insert=.inf", ["`replay.critic.samples_per_insert` is inf"]),
        ("model.path=gpt2", ["exactly one", "both are set"]),
        ("model.build=null", ["exactly one", "neither is set"]),
    ],
)
def test_mistake_is_answered_with_a_sentence(base: Path, override: str, said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(base, [override])
    for words in said:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["algorithm=ppo", "offline_cycles=2", "demonstrations.keep_in_replay=true"], "own episodes"),
        (["algorithm=grpo", "episodes_per_cycle=20"], "not a multiple of `learner.grpo.group`"),
    ],
)
def test_algorithm_and_schedule_must_fit(base: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(base, overrides)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["learner.lora.rank=4"], r"an untrained model.*learner.clone.steps above 0"),
        (["learner.lora.clone=adapter", "learner.clone.steps=5"], "learner.lora.clone=full"),
        (["learner.lora.adapter=somewhere"], "no adapter fits the new model"),
        (["learner.optimizer_offload=true"], "set zero_stage to 1, 2 or 3"),
        (["learner.lora.dropout=0.1"], "learner.lora.dropout"),
    ],
)
def test_what_saves_memory_must_fit_the_run(base: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(base, overrides)
    assert load_config(base, ["learner.lora.rank=4", "learner.clone.steps=5"]).learner.lora is not None


def test_folder_that_holds_no_adapter_is_named(base: Path, tmp_path: Path) -> None:
    settings = [f"model={{path: {tmp_path}}}", f"learner.lora.adapter={tmp_path}"]
    with pytest.raises(ConfigError, match=r"`learner.lora.adapter`.*no adapter_config.json"):
        load_config(base, settings)
    (tmp_path / "adapter_config.json").touch()
    assert load_config(base, settings).learner.lora is not None


def test_every_mistake_is_named_at_once_with_its_origin(base: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(base, ["cyles=3", "learner.critic.lrate=1"])
    text = str(caught.value)
    assert "`cycles`" in text
    assert "override 'cyles=3'" in text
    assert "`learner.critic.lr`" in text
    assert len(text.splitlines()) == 2


def test_unknown_keys_and_wrong_values_are_named_together(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("learner.critic: 3\n1: 2\nmodel: {pth: gpt2}\nlearner: {lora: {targets: 3}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file, ["cycles=-1", "seed=abc"])
    lines = str(caught.value).splitlines()
    for words in (
        "`seed` is 'abc': it must be a whole number >= 0",
        "`cycles` is -1: it must be a whole number >= 0",
        "unknown key `model.pth`; did you mean `model.path`?",
        "`env` is missing: it must be a mapping",
        "unknown key `learner.critic`; dots join keys only on the command line",
        "`learner.lora.targets` is 3: it must be one of all-linear, or a list",
        "unknown key `1`; valid keys here: name, runs_dir",
    ):
        assert sum(words in line for line in lines) == 1, words
    assert len(lines) == 7


def test_v_from_fresh_actions_is_refused_to_methods_that_train_its_heads(base: Path) -> None:
    fresh = "learner.critic={value: fresh, unit: episode}"
    assert load_config(base, [fresh]).learner.critic.value == "fresh"
    for algorithm in ("archer_offline", "chai"):
        with pytest.raises(ConfigError, match=rf"`algorithm` {algorithm} trains heads of V.*critic.value=heads"):
            load_config(base, [fresh, f"algorithm={algorithm}"])


def test_a_histogram_takes_its_support_from_the_environment(base: Path) -> None:
    histogram = "learner.critic={value: fresh, unit: episode, loss: hl_gauss}"
    config = load_config(base, [histogram])
    support = with_support(config).critic.support
    assert support is not None
    assert support[0] <= -20
    assert support[1] == 0
    assert config.learner.critic.support is None
    given = load_config(base, [histogram, "learner.critic.support=[-3, 1]"])
    assert with_support(given).critic.support == (-3, 1)


def test_mistake_in_the_file_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(BASE + "cycels: 3\n")
    with pytest.raises(ConfigError, match=r"`cycles`.*mine\.yaml"):
        load_config(file)


def test_cloning_without_demonstrations_is_refused(base: Path) -> None:
    with pytest.raises(ConfigError, match="cloning needs demonstrations"):
        load_config(
            base,
            ["learner.clone.steps=5", "demonstrations.episodes=0", "model={path: gpt2}"],
        )


def test_missing_model_folder_is_named(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "no_model"
    with pytest.raises(ConfigError, match=r"`model\.path`.*no_model.*no such folder"):
        load_config(base, [f"model={{path: {folder}}}"])
    folder.mkdir()
    assert load_config(base, [f"model={{path: {folder}}}"]).model.path == str(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\n  bad: [\n", "line 2"),
        ("- 1\n- 2\n", "a list of 2"),
        ("seed: 1\nseed: 2\n", "'seed' is given twice"),
    ],
)
def test_file_without_a_mapping_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_config(file)


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "binary.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.yaml"):
        load_config(file)


def test_yaml_merge_keys_work(tmp_path: Path) -> None:
    file = tmp_path / "merge.yaml"
    file.write_text(BASE + "replay: &r {shards: 3}\nevaluation: {episodes: 4}\ncheckpoint: {every: 2}\n")
    assert load_config(file).replay.shards == 3
    file.write_text("x: &x {a: 1}\ny: {<<: *x, b: 2}\n")
    with pytest.raises(ConfigError, match="unknown key `x`"):
        load_config(file)


KEYS = st.sampled_from(["seed", "learner", "learner.critic.lr", "env.kwargs", "model.build", "mode", "nothing", ""])


@given(key=KEYS, value=st.one_of(st.text(), st.sampled_from(["2024-13-45", "&a [*a]", "!!python/x y"])))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_override_is_accepted_or_refused_with_a_sentence(base: Path, key: str, value: str) -> None:
    try:
        config = load_config(base, [f"{key}={value}"], check=False)
    except ConfigError:
        return
    assert RunConfig.model_validate(yaml.safe_load(dump_config(config))) == config


def test_missing_file_names_the_presets() -> None:
    with pytest.raises(ConfigError, match=r"does not exist.*demo.*paper/twenty_questions"):
        load_config("configs/no_such_preset.yaml")


def test_texts_that_look_like_numbers_keep_their_quotes(base: Path, tmp_path: Path) -> None:
    given = ["1e-4", "0123", "no", "2024-01-31", "1:30", "true", "0x1f", "null", "~"]
    config = load_config(base, [f"env.kwargs.words={given}"], check=False)
    assert config.env.kwargs["words"] == given
    again = tmp_path / "again.yaml"
    again.write_text(dump_config(config))
    assert load_config(again, check=False) == config


def test_home_is_expanded_in_every_path(base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = {
        "runs_dir": "~/runs",
        "learner.critic.backbone": "~/critic",
        "demonstrations.files": "[~/a.arrow, b.arrow]",
        "learner.lora": "{adapter: ~/adapter}",
        "learner.clone.steps": "0",
        "model": "{path: ~/model}",
    }
    config = load_config(base, [f"{key}={value}" for key, value in asked.items()], check=False)
    assert config.runs_dir == f"{tmp_path}/runs"
    assert config.learner.critic.backbone == f"{tmp_path}/critic"
    assert config.demonstrations.files == [f"{tmp_path}/a.arrow", "b.arrow"]
    assert config.learner.lora is not None
    assert config.learner.lora.adapter == f"{tmp_path}/adapter"
    assert config.model.path == f"{tmp_path}/model"


def test_a_home_folder_that_does_not_exist_is_named(base: Path) -> None:
    with pytest.raises(
        ConfigError, match="`runs_dir` is '~nobody-here/x', and there is no home folder for ~nobody-here"
    ):
        load_config(base, ["runs_dir=~nobody-here/x"], check=False)


def test_override_values_are_yaml() -> None:
    assert parse_override("a.b=1e-4") == ("a.b", 1e-4)
    assert parse_override("a=") == ("a", None)
    assert parse_override("a=x=y") == ("a", "x=y")
    assert parse_override("a=[1, 2]") == ("a", [1, 2])
    assert parse_override("a=1e3x") == ("a", "1e3x")


@pytest.mark.parametrize("name", sorted(presets()))
def test_preset_is_valid_by_name_and_by_path(name: str) -> None:
    config = load_config(name)
    assert config == load_config(presets()[name]) == load_config(f"configs/{name}.yaml")
    assert config.name == name.replace("/", "_")


def test_paper_preset_holds_the_papers_settings() -> None:
    config = load_config("paper/twenty_questions")
    critic, actor = config.learner.critic, config.learner.actor
    assert (config.model.path, critic.backbone) == ("gpt2", "roberta-base")
    assert (critic.gamma, critic.tau, config.episodes_per_cycle) == (0.95, 0.1, 128)
    assert (critic.steps_per_cycle, actor.steps_per_cycle, critic.batch, actor.batch) == (50, 3, 256, 256)
    assert (critic.warmup_cycles, actor.lr, critic.lr) == (10, 1e-5, 2e-5)


def test_every_field_has_a_sentence() -> None:
    assert [path for path, field in fields().items() if not field.description.strip().endswith(".")] == []
    assert {"learner.critic.lr", "rollout.workers", "replay.shards", "model.build.layers"} <= set(fields())


def test_unknown_key_is_refused_in_every_section(base: Path) -> None:
    sections = [path for path, field in fields().items() if field.section]
    assert len(sections) > 10
    for section in sections:
        with pytest.raises(ConfigError, match=f"unknown key `{section}.zzz`"):
            load_config(base, [f"{section}.zzz=1"] if section != "model.build" else ["model.build={zzz: 1}"])


def test_setting_a_field_later_is_still_checked(base: Path) -> None:
    config = load_config(base)
    with pytest.raises(ValueError, match="greater than or equal"):
        config.cycles = -1


def test_reading_a_config_loads_nothing_heavy() -> None:
    code = (
        "import sys; from archer.config.loading import load_config; load_config('demo'); "
        "print(sorted({'torch', 'ray', 'vllm', 'transformers', 'deepspeed', 'pyarrow'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.strip() == "[]"


def test_dump_is_plain_yaml(base: Path) -> None:
    tree = yaml.safe_load(dump_config(load_config(base)))
    assert tree["model"]["build"]["hidden_size"] == 64
    assert tree["learner"]["critic"]["lr"] == 2e-5
