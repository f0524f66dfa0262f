"""The protocol, the time limit, and `AsyncEnv` in each isolation."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading
import time

import pytest
from env_cases import Coroutines, Counting, InChild, Raising, RaisingCoroutines, Unmade

from envs import (
    TIMED_OUT,
    AsyncEnv,
    EnvArgumentError,
    EnvError,
    EnvFailedError,
    EnvSpec,
    EnvStateError,
    EnvTimeoutError,
    ProcessEnv,
    TextEnv,
    TimeLimit,
    make,
    unwrapped,
)
from envs.hosting.child_process import HUNG


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_protocol_is_checked_by_shape():
    assert isinstance(Counting(), TextEnv)
    assert isinstance(TimeLimit(Counting()), TextEnv)
    assert not isinstance(object(), TextEnv)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("max_turns", 0),
        ("reward_range", (1.0, 0.0)),
        ("discount", 0.0),
        ("discount", 1.5),
        ("isolation", "fork"),
    ],
)
def test_spec_refuses_wrong_values(field, value):
    fields = {"id": "x", "description": "", "max_turns": 1, "reward_range": (0.0, 1.0), field: value}
    with pytest.raises(EnvArgumentError, match=field):
        EnvSpec(**fields)


def test_time_limit_truncates_and_never_terminates():
    env = TimeLimit(Counting())
    env.reset(seed=0)
    flags = [env.step("a")[2:4] for _ in range(3)]
    assert flags == [(False, False), (False, False), (False, True)]
    with pytest.raises(EnvStateError, match=r"counting.*ended"):
        env.step("a")
    env.reset(seed=1)
    assert env.step("a")[2:4] == (False, False)


def test_an_end_on_the_last_turn_is_terminated_not_truncated():
    env = TimeLimit(Counting(), max_turns=1)
    assert env.spec.max_turns == 1
    env.reset(seed=0)
    assert env.step("end")[2:4] == (True, False)
    with pytest.raises(EnvStateError, match="ended"):
        env.step("a")


def test_calls_out_of_order_are_refused():
    inner = Counting()
    env = TimeLimit(inner)
    with pytest.raises(EnvStateError, match="call reset first"):
        env.step("a")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="broke"):
        env.step("raise")
    with pytest.raises(EnvStateError, match="did not finish"):
        env.step("a")
    env.reset(seed=0)
    env.close()
    env.close()
    assert inner.closed == 1
    for call in (lambda: env.step("a"), lambda: env.reset(seed=0)):
        with pytest.raises(EnvStateError, match="closed"):
            call()


def test_time_limit_below_one_is_refused():
    with pytest.raises(EnvArgumentError, match="max_turns is 0"):
        TimeLimit(Counting(), max_turns=0)


@pytest.mark.parametrize("isolation", ["inline", "thread", "process"])
def test_async_env_runs_an_episode_according_to_its_isolation(isolation):
    async def play():
        env = AsyncEnv(TimeLimit(Counting(isolation=isolation)))
        observation, info = await env.areset(seed=5, options={"k": 1})
        assert (observation, info["options"]) == ("seed 5", {"k": 1})
        steps = [await env.astep("a") for _ in range(3)]
        with pytest.raises(EnvStateError):
            await env.astep("a")
        await env.aclose()
        await env.aclose()
        return info, steps

    info, steps = asyncio.run(play())
    assert [step[0] for step in steps] == ["turn 1", "turn 2", "turn 3"]
    assert steps[-1][2:4] == (False, True)
    own_process = info["pid"] == os.getpid()
    own_thread = steps[0][4]["thread"] == threading.get_ident()
    assert own_process == (isolation != "process")
    if isolation != "process":
        assert own_thread == (isolation == "inline")
    else:
        assert not alive(info["pid"])


def test_own_coroutines_are_used_through_the_time_limit():
    async def play():
        env = AsyncEnv(TimeLimit(Coroutines(isolation="thread", hang_s=30.0)), timeout_s=0.1)
        assert (await env.areset(seed=1))[0] == "own 1"
        observation, _, _, _, info = await env.astep("a")
        assert observation == "own"
        assert info["thread"] == threading.get_ident()
        with pytest.raises(EnvTimeoutError, match="step of counting"):
            await env.astep("hang")
        assert (await env.areset(seed=2))[0] == "own 2"
        await env.aclose()

    asyncio.run(play())


def test_threads_of_several_envs_run_at_once():
    async def play():
        envs = [AsyncEnv(Counting(isolation="thread", hang_s=0.4)) for _ in range(8)]
        await asyncio.gather(*(env.areset(seed=i) for i, env in enumerate(envs)))
        start = time.monotonic()
        await asyncio.gather(*(env.astep("hang") for env in envs))
        took = time.monotonic() - start
        await asyncio.gather(*(env.aclose() for env in envs))
        return took

    assert asyncio.run(play()) < 8 * 0.4 / 2


def test_a_hung_thread_is_abandoned_and_named():
    async def play():
        env = AsyncEnv(Counting(isolation="thread", hang_s=2.0), timeout_s=0.1)
        await env.areset(seed=0)
        with pytest.raises(EnvTimeoutError, match=r"step of counting: no answer within 0\.1 s"):
            await env.astep("hang")
        with pytest.raises(EnvStateError, match="an earlier call timed out: make a new environment"):
            await env.areset(seed=0)
        await env.aclose()

    asyncio.run(play())


def test_a_hung_child_is_killed_its_episode_truncated_and_the_next_reset_starts_another(caplog):
    async def play():
        env = AsyncEnv(make("env_cases:InChild"), timeout_s=10.0)
        _, info = await env.areset(seed=0)
        env.timeout_s = unwrapped(env.env).timeout_s = 0.3
        observation, reward, terminated, truncated, hung = await env.astep("hang")
        assert (observation, reward, terminated, truncated, hung) == (HUNG, 0.0, False, True, {TIMED_OUT: True})
        assert re.search(rf"step of in_child.*{info['pid']} was killed; .* after the action 'hang'", caplog.text)
        assert not alive(info["pid"])
        with pytest.raises(EnvStateError):
            await env.astep("a")
        env.timeout_s = unwrapped(env.env).timeout_s = 10.0
        observation, again = await env.areset(seed=3)
        assert observation == "seed 3"
        assert again["pid"] != info["pid"]
        assert (await env.astep("end"))[2]
        await env.aclose()
        assert not alive(again["pid"])

    asyncio.run(play())


@pytest.mark.parametrize("isolation", ["inline", "thread", "process"])
def test_an_exception_of_an_environment_names_it(isolation):
    async def play():
        env = AsyncEnv(Counting(isolation=isolation))
        await env.areset(seed=0)
        with pytest.raises(EnvFailedError, match=r"(?s)step of counting raised.*the game broke") as caught:
            await env.astep("raise")
        assert isinstance(caught.value, EnvError)
        assert (await env.areset(seed=1))[0] == "seed 1"
        await env.aclose()

    asyncio.run(play())


@pytest.mark.parametrize("isolation", ["inline", "thread", "process"])
@pytest.mark.parametrize("kind", ["SystemExit", "GeneratorExit", "CancelledError", "BaseException"])
def test_whatever_an_environment_raises_ends_its_episode_only(isolation, kind):
    async def play():
        env = AsyncEnv(Raising(kind, isolation=isolation))
        await env.areset(seed=0)
        with pytest.raises(EnvFailedError, match="step of counting"):
            await env.astep("a")
        assert (await env.areset(seed=1))[0] == "seed 1"
        await env.aclose()
        return "the loop goes on"

    assert asyncio.run(play()) == "the loop goes on"


@pytest.mark.parametrize("kind", ["SystemExit", "CancelledError", "BaseException"])
def test_whatever_a_coroutine_of_an_environment_raises_ends_its_episode_only(kind):
    async def play():
        env = AsyncEnv(RaisingCoroutines(kind))
        await env.areset(seed=0)
        with pytest.raises(EnvFailedError, match="step of counting"):
            await env.astep("a")
        return "the loop goes on"

    assert asyncio.run(play()) == "the loop goes on"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(3)", "module 'odd' cannot be imported: SystemExit: 3"),
        ("x = (", "module 'odd' cannot be imported: SyntaxError"),
        ("def Env(): raise SystemExit(3)", "environment 'odd:Env' cannot be made: SystemExit: 3"),
        ("def Env(): return 1 / 0", "environment 'odd:Env' cannot be made: ZeroDivisionError"),
    ],
)
def test_a_module_that_exits_or_fails_is_a_sentence(tmp_path, monkeypatch, code, said):
    (tmp_path / "odd.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd", raising=False)
    with pytest.raises(EnvError, match=re.escape(said)):
        make("odd:Env")


def test_a_child_that_dies_is_reported_with_its_status():
    env = ProcessEnv(InChild, InChild.spec)
    env.reset(seed=0)
    with pytest.raises(EnvFailedError, match=r"step of in_child: its child process died \(exit status 7\)"):
        env.step("die")
    assert env.pid is None
    env.reset(seed=0)
    os.kill(env.pid, signal.SIGKILL)
    with pytest.raises(EnvFailedError, match="exit status -9"):
        env.step("a")
    env.close()
    with pytest.raises(EnvStateError, match="closed"):
        env.reset(seed=0)


def test_an_environment_that_cannot_be_made_in_its_child_gives_the_reason():
    env = make("env_cases:Unmade")
    with pytest.raises(EnvFailedError, match=r"(?s)make of in_child.*no story file"):
        env.reset(seed=0)
    env.close()
    assert Unmade.spec.isolation == "process"


def test_an_environment_that_cannot_be_pickled_is_refused():
    class Local(InChild):
        pass

    env = ProcessEnv(Local, Local.spec)
    with pytest.raises(EnvArgumentError, match="top level of an importable module"):
        env.reset(seed=0)
    assert env.pid is None


def test_a_hung_child_dies_with_its_parent(tmp_path):
    import subprocess
    import sys

    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from envs import ProcessEnv\nfrom env_cases import InChild\n"
        "env = ProcessEnv(InChild, InChild.spec)\n"
        "print(env.reset(seed=0)[1]['pid'], flush=True)\n"
        "env.step('hang')\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, os.path.dirname(__file__)], stdout=subprocess.PIPE, cwd=tmp_path, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait(10)
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:  # an orphan, on which this process cannot wait
        time.sleep(0.02)
    assert not alive(child)
