"""The registry, the public names of `envs`, and scripted episodes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from env_cases import InChild

import envs
from envs import EnvArgumentError, EnvError, MissingExtraError, ProcessEnv, TimeLimit, UnknownEnvError
from envs.twenty_questions import TwentyQuestions

NEEDS = {
    "detective": "a story file of your own",
    "gymnasium": "needs the argument 'gym_id'",
    "miniwob": "needs the argument 'task'",
    "openenv": "needs the argument 'url'",
}
"""Errors of environments that cannot be made without arguments."""


def test_registered_environments_are_listed_and_made():
    ids = [spec.id for spec in envs.specs()]
    assert ids == sorted(ids)
    assert {"twenty_questions", "twenty_questions_subset"} <= set(ids)
    for env_id in ids:
        assert envs.spec(env_id).id == env_id
        extra = envs.spec(env_id).extra
        if extra is not None and envs.missing_modules(extra):
            with pytest.raises(MissingExtraError, match=extra):
                envs.make(env_id)
            continue
        if env_id in NEEDS:
            with pytest.raises(EnvArgumentError, match=NEEDS[env_id]):
                envs.make(env_id)
            continue
        env = envs.make(env_id)
        assert isinstance(env, TimeLimit)
        assert env.spec == envs.spec(env_id)
        env.close()


def test_envs_serves_its_public_names_and_loads_no_module_before():
    for name in envs.__all__:
        assert getattr(envs, name) is not None
    assert set(dir(envs)) == set(envs.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = envs.nothing
    loaded = "import sys, envs; print(sorted(name for name in sys.modules if name.startswith('envs.')))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_id_names_the_nearest():
    with pytest.raises(UnknownEnvError, match="did you mean 'twenty_questions'"):
        envs.make("twenty_question")
    with pytest.raises(UnknownEnvError, match=r"known: .*'twenty_questions_subset'"):
        envs.spec("zork")
    assert issubclass(UnknownEnvError, EnvError)


def test_unknown_arguments_name_the_nearest():
    with pytest.raises(EnvArgumentError, match="twenty_questions takes no argument 'nois': did you mean 'noise'"):
        envs.make("twenty_questions", nois=0.1)
    with pytest.raises(EnvArgumentError, match=r"'max_turn'.*'max_turns'"):
        envs.check("twenty_questions", max_turn=3)
    envs.check("twenty_questions", max_turns=3, noise=0.1)


def test_max_turns_overrides_the_spec():
    env = envs.make("twenty_questions", max_turns=2)
    env.reset(seed=0)
    assert [env.step("?")[3] for _ in range(2)] == [False, True]


def test_module_and_class():
    env = envs.make("envs.twenty_questions:TwentyQuestions", noise=0.1)
    assert isinstance(env.env, TwentyQuestions)
    assert envs.make("env_cases:Counting", isolation="thread").spec.isolation == "thread"
    assert envs.spec("env_cases:Counting").id == "counting"
    child = envs.make("env_cases:InChild")
    assert isinstance(child.env, ProcessEnv)
    assert child.env.pid is None
    assert child.spec == InChild.spec


@pytest.mark.parametrize(
    ("env_id", "says"),
    [
        ("no_such_module_here:Thing", "no module named 'no_such_module_here'"),
        ("env_cases:Countin", "no class or function 'Countin': did you mean 'Counting'"),
        ("env_cases:", "not of the form"),
        (":Counting", "not of the form"),
    ],
)
def test_a_wrong_module_or_class_is_named(env_id, says):
    with pytest.raises(UnknownEnvError, match=says):
        envs.make(env_id)


def test_a_class_that_is_not_an_environment_is_refused():
    with pytest.raises(EnvArgumentError, match="NoEnv, not a TextEnv"):
        envs.make("env_cases:NoEnv")


def test_an_id_cannot_be_registered_twice():
    spec = envs.spec("twenty_questions")
    with pytest.raises(EnvArgumentError, match="already registered"):
        envs.register(spec, TwentyQuestions)


def test_the_contract_of_demonstrate():
    played = list(envs.demonstrate("twenty_questions_subset", episodes=30, skill=0.3, seed=7))
    assert [d.seed for d in played] == list(range(7, 37))
    for d in played:
        assert d.env == "twenty_questions_subset"
        assert d.task_id
        assert len(d.observations) == len(d.actions) + 1 == len(d.rewards) + 1
        assert d.terminated != d.truncated
        assert d.success == d.terminated
        assert d.ret == -(len(d.actions) - d.terminated)
    assert played == list(envs.demonstrate("twenty_questions_subset", episodes=30, skill=0.3, seed=7))
    assert played != list(envs.demonstrate("twenty_questions_subset", episodes=30, skill=0.3, seed=8))
    # An episode depends on its seed only, so a set can be made in parts.
    assert played[10:] == list(envs.demonstrate("twenty_questions_subset", episodes=20, skill=0.3, seed=17))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"env_id": "twenty_questions", "skill": 1.5, "episodes": 1}, "skill is 1.5"),
        ({"env_id": "twenty_questions", "skill": 0.5, "episodes": -1}, "episodes is -1"),
        ({"env_id": "env_cases:Counting", "skill": 0.5, "episodes": 1}, "no scripted demonstrator"),
        ({"env_id": "twentyquestions", "skill": 0.5, "episodes": 1}, "did you mean"),
    ],
)
def test_demonstrate_refuses_wrong_arguments_at_the_call(arguments, says):
    with pytest.raises(EnvError, match=says):
        envs.demonstrate(arguments.pop("env_id"), seed=0, **arguments)
