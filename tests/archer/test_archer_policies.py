"""The policies of `archer eval`: runs, checkpoints and models by name, on one task; refusals name the reason."""

import json
from pathlib import Path

import pytest

from archer.config.loading import dump_config, load_config
from archer.config.sections import TinyModelConfig
from archer.driver.model import build_tiny_model
from archer.errors import ConfigError
from archer.results.policies import check_models, choose_policies


def make_run(root: Path, name: str, *overrides: str, checkpoints: tuple[str, ...] = ("cycle-00002",)) -> str:
    """Write the parts of a run folder that an evaluation reads."""
    run = root / name
    for checkpoint in checkpoints:
        make_model(run / "checkpoints" / checkpoint / "policy")
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(dump_config(load_config("demo", overrides, check=False)))
    return str(run)


def make_model(folder: Path) -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return str(folder)


def test_run_is_its_newest_checkpoint_with_its_own_settings(tmp_path: Path) -> None:
    settings = ("rollout.sampling.temperature=0.7", "seed=5", "learner.timeout_s=77")
    run = make_run(tmp_path, "mine", *settings, checkpoints=("cycle-00002", "cycle-00010"))
    (policy,) = choose_policies([run], overrides=["rollout.workers=2"])
    assert policy.model == str(Path(run).resolve() / "checkpoints" / "cycle-00010" / "policy")
    assert (policy.name, policy.source) == ("mine", run)
    config = policy.config
    assert (config.rollout.sampling.temperature, config.rollout.workers, config.seed) == (0.7, 2, 5)
    assert (config.env, config.learner.timeout_s) == (load_config("demo").env, 77)
    assert config.learner.cpus_per_rank == 0  # an evaluation has no learner to reserve for


def test_earlier_checkpoint_is_played_with_the_settings_of_its_run(tmp_path: Path) -> None:
    settings = ["rollout.sampling.temperature=0.7"]
    run = make_run(tmp_path, "mine", *settings, checkpoints=("cycle-00002", "cycle-00010"))
    folder = f"{run}/checkpoints/cycle-00002"
    policies = choose_policies([run, folder])
    assert [policy.name for policy in policies] == ["mine", "mine/cycle-00002"]
    assert policies[1].config.rollout.sampling.temperature == 0.7
    assert choose_policies([f"{folder}/policy"])[0].model == policies[1].model


def keep_best(run: str, cycle: str, *returns: float) -> Path:
    """Write a policy that was kept as the best evaluated one."""
    folder = Path(run) / "best" / cycle
    make_model(folder / "policy")
    (folder / "evaluation.json").write_text(json.dumps({"returns": returns}))
    return folder.resolve()


def test_run_is_its_best_evaluated_policy_unless_the_last_is_asked_for(tmp_path: Path) -> None:
    run = make_run(tmp_path, "mine", checkpoints=("cycle-00010",))
    best = keep_best(run, "cycle-00004", -5.0, -7.0)
    # A run that was killed between two writes has two of them.
    keep_best(run, "cycle-00006", -6.0, -7.0)
    assert choose_policies([run])[0].model == str(best / "policy")
    last = Path(run).resolve() / "checkpoints" / "cycle-00010" / "policy"
    assert choose_policies([run], last=True)[0].model == str(last)
    both = choose_policies([str(last.parent), str(best)])
    assert [policy.name for policy in both] == ["mine/cycle-00010", "mine/best/cycle-00004"]
    assert both[1].config.env == both[0].config.env


def test_another_environment_takes_none_of_the_runs_arguments(tmp_path: Path) -> None:
    run = make_run(tmp_path, "mine", "env.kwargs={noise: 0.1}")
    (policy,) = choose_policies([run], env="twenty_questions")
    assert (policy.config.env.id, policy.config.env.kwargs) == ("twenty_questions", {})
    (policy,) = choose_policies([run], env="twenty_questions_subset", overrides=["env.kwargs.noise=0.2"])
    assert policy.config.env.kwargs == {"noise": 0.2}


def test_model_takes_the_defaults_and_the_task_of_the_runs_beside_it(tmp_path: Path) -> None:
    model = make_model(tmp_path / "newborn")
    with pytest.raises(ConfigError, match="--env"):
        choose_policies([model])
    (alone,) = choose_policies([model], env="twenty_questions", overrides=["seed=3"])
    assert (alone.name, alone.config.env.id, alone.config.seed) == ("newborn", "twenty_questions", 3)
    run = make_run(tmp_path, "mine", "env.kwargs={noise: 0.1}", "rollout.sampling.temperature=0.7")
    for env in (None, "twenty_questions_subset"):
        first, second = choose_policies([model, run], env=env)
        assert first.config.env == second.config.env
        assert first.config.env.kwargs == {"noise": 0.1}
        assert (first.config.rollout.sampling.temperature, second.config.rollout.sampling.temperature) == (1.0, 0.7)


def test_run_plays_without_its_initial_model_and_its_gpus(tmp_path: Path) -> None:
    gpus = ("learner.broadcast.backend=nccl", "learner.use_gpu=true", "rollout.gpus_per_worker=1")
    run = make_run(tmp_path, "mine", "model={path: /gone/for/good}", *gpus)
    (policy,) = choose_policies([run], overrides=["rollout.gpus_per_worker=0"])
    assert (policy.config.model.path, policy.config.rollout.gpus_per_worker) == (policy.model, 0)


def test_equal_names_get_their_parent_folders(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / above, "demo") for above in ("here/left", "here/right", "there/right")]
    names = [policy.name for policy in choose_policies([*runs, make_run(tmp_path, "other")])]
    assert names == ["left/demo", "here/right/demo", "there/right/demo", "other"]


def test_policies_that_are_not_comparable_are_refused(tmp_path: Path) -> None:
    one = make_run(tmp_path, "one", "env.kwargs={noise: 0.1}")
    two = make_run(tmp_path, "two", "env.kwargs={noise: 0.2}")
    three = make_run(tmp_path, "three", "env={id: twenty_questions}", "demonstrations.skill=0.1")
    four = make_run(tmp_path, "four", "env.kwargs={noise: 0.1}", "cluster.address=ray://elsewhere")
    with pytest.raises(ConfigError, match=r"are the same policy"):
        choose_policies([one, str(Path(one) / "checkpoints" / "cycle-00002")])
    with pytest.raises(
        ConfigError, match=r"one plays twenty_questions_subset and .*three plays twenty_questions; .*--env"
    ):
        choose_policies([one, three])
    with pytest.raises(ConfigError, match=r"\{'noise': 0.1\} and .*\{'noise': 0.2\}; .*--set 'env.kwargs"):
        choose_policies([one, two])
    with pytest.raises(ConfigError, match=r"ray://elsewhere; .*--set cluster.address"):
        choose_policies([one, four])
    assert len(choose_policies([one, two, three], env="twenty_questions")) == 3
    assert len(choose_policies([one, two, four], overrides=["env.kwargs={}", "cluster.address=null"])) == 3


def test_argument_that_is_no_policy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs", "mine")
    make_run(tmp_path / "runs", "young", checkpoints=())
    (tmp_path / "runs" / "young" / "checkpoints" / "cycle-00001").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").touch()
    (tmp_path / "notes.txt").touch()
    for source, words in (
        ("runs/young", "cycle-00001 has no policy"),
        ("runs/mien", "there is no run 'runs/mien'; runs has mine, young"),
        ("./nothing", "there is no folder './nothing'"),
        ("empty", "neither a run .* nor a Hugging Face model"),
        ("adapter", "'adapter' is an adapter without its base"),
        ("notes.txt", "'notes.txt' is a file"),
        ("rollout.workers=2", "give a setting with --set rollout.workers=2"),
    ):
        with pytest.raises(ConfigError, match=words):
            choose_policies([source], env="twenty_questions")
    (tmp_path / "runs" / "young" / "checkpoints" / "cycle-00001").rmdir()
    with pytest.raises(ConfigError, match="no checkpoint yet"):
        choose_policies(["runs/young"])


def test_run_of_chai_needs_its_critic(tmp_path: Path) -> None:
    heads = ("learner.critic.value=heads", "learner.critic.retrace=null")
    run = make_run(tmp_path, "mine", "algorithm=chai", "learner.chai.candidates=3", *heads)
    with pytest.raises(ConfigError, match=r"run of chai, .*critic.pt is missing"):
        choose_policies([run])
    weights = Path(run) / "checkpoints" / "cycle-00002" / "critic.pt"
    weights.touch()
    (policy,) = choose_policies([run])
    assert policy.run is not None
    assert (policy.critic, policy.run.algorithm_config.proposals()) == (weights.resolve(), 3)


def test_settings_that_an_evaluation_ignores_are_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path / "newborn")
    for text, words in (
        ("learner.critic.lr=1", "has no effect on an evaluation; these settings have: rollout, env.kwargs"),
        ("model.path=gpt2", "has no effect"),
        ("env.id=twenty_questions", "choose the environment .* with --env"),
        ("rollout.wrokers=2", "did you mean"),
        ("rollout.workers", "key=value"),
    ):
        with pytest.raises(ConfigError, match=words):
            choose_policies([model], env="twenty_questions", overrides=[text])
    with pytest.raises(ConfigError, match="unknown environment 'twenty_question'"):
        choose_policies([model], env="twenty_question")


def test_model_that_no_engine_could_play_with_is_refused(tmp_path: Path) -> None:
    broken = make_model(tmp_path / "broken")
    config = TinyModelConfig(hidden_size=32, layers=1, heads=1, intermediate_size=32, max_positions=64)
    model = str(build_tiny_model(["Is it a dog?\nNo.\n"] * 4, tmp_path / "newborn", config, seed=0))

    def check(source: str, *overrides: str) -> None:
        check_models(choose_policies([source], env="twenty_questions", overrides=overrides))

    check(model)
    for source, override, words in (
        (broken, "seed=0", "broken' cannot be played"),
        (model, "rollout.renderer=chat", "newborn' cannot be played: .*template"),
        (model, "rollout.sampling.max_tokens=64", "window of 64 tokens.* no room for a prompt"),
        (model, "rollout.engine.max_model_len=65", "window of 64 tokens, less than"),
    ):
        with pytest.raises(ConfigError, match=words):
            check(source, override)
