"""OpenEnv: environments of this project served, and a server's environment played here."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading

import pytest

pytest.importorskip("openenv", reason="needs the extra openenv: make install")

import requests
import uvicorn
from fuzz import fuzz
from openenv.core.env_server import create_fastapi_app
from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation
from openenv_cases import Adder, Heard, Parrot, Said
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import envs
from envs import EnvArgumentError, EnvError, EnvFailedError, EnvTimeoutError
from envs.adapters.openenv_served import EnvServer
from envs.registry import tools
from envs.toolkit.tool_calls import write_call, write_rejected

TIMEOUT_S = 60


@contextlib.contextmanager
def running(run, stop):
    """Run a server on a thread, from its first connection to the end of the block."""
    started = threading.Event()
    thread = threading.Thread(target=run, args=(started.set,), daemon=True)
    thread.start()
    assert started.wait(TIMEOUT_S), "the server did not start"
    yield
    stop()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive(), "the server did not end"


@contextlib.contextmanager
def serving(env_id: str, *, sessions: int = 4, max_message_bytes: int = 4_000_000, **kwargs):
    """Yield the address of a server of `env_id`."""
    server = EnvServer(
        env_id, host="127.0.0.1", port=0, sessions=sessions, max_message_bytes=max_message_bytes, **kwargs
    )
    with running(server.run, server.stop):
        yield server.address


@pytest.fixture(scope="module")
def parrot():
    """Yield the address of a server of another project's environment."""
    with serving_app(create_fastapi_app(Parrot, Said, Heard, max_concurrent_envs=9)) as url:
        yield url


@pytest.fixture(scope="module")
def adder():
    """Yield the address of a server whose environment has tools."""
    with serving_app(create_fastapi_app(Adder, CallToolAction, CallToolObservation, max_concurrent_envs=9)) as url:
        yield url


@contextlib.contextmanager
def serving_app(app):
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))

    def run(started):
        async def startup(sockets=None):
            await uvicorn.Server.startup(server, sockets)
            started()

        server.startup = startup
        server.run(sockets=[listener])

    with running(run, lambda: setattr(server, "should_exit", True)):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


def client(url: str, **kwargs):
    return envs.make("openenv", url=url, **kwargs)


@pytest.mark.parametrize("env_id", ["text_nav", "web_forms", "key_door", "support_desk"])
def test_an_episode_is_the_same_through_the_client(env_id):
    with serving(env_id) as url:
        far = client(url)
        for game in envs.demonstrate(env_id, episodes=4, skill=0.5, seed=5):
            observation, info = far.reset(seed=game.seed)
            observations, rewards = [observation], []
            assert info["task_id"] == game.task_id
            for action in game.actions:
                observation, reward, terminated, truncated, info = far.step(action)
                observations.append(observation)
                rewards.append(reward)
            assert (observations, rewards) == (game.observations, game.rewards)
            assert (terminated, truncated, info["success"]) == (game.terminated, game.truncated, game.success)
            assert "privileged" not in info
        far.close()


def test_chat_messages_stay_messages():
    with serving("gym_chat:Chat") as url:
        observation, _ = client(url).reset(seed=0)
        assert observation == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello."}]


def test_sessions_are_independent_and_limited():
    with serving("key_door", sessions=2, max_turns=5) as url:
        first, second, third = client(url), client(url), client(url)
        starts = [env.reset(seed=seed)[0] for seed, env in enumerate((first, second))]
        assert starts == [envs.make("key_door").reset(seed=seed)[0] for seed in (0, 1)]
        with pytest.raises(EnvFailedError, match=r"capacity: 2/2 sessions|the server may have no free session"):
            third.reset(seed=0)
        assert [first.step("?")[3] for _ in range(5)] == [False] * 4 + [True]
        assert second.step("?")[3] is False
        first.close()
        # The server frees the session some time after the client closes it.
        for _ in range(50):
            with contextlib.suppress(EnvFailedError):
                assert third.reset(seed=1)[0] == starts[1]
                break
            threading.Event().wait(0.1)
        assert third.step("?")[0] == "Invalid action."


def test_a_message_that_is_too_long_closes_its_session_only():
    with serving("key_door", max_message_bytes=20_000) as url:
        with connect(f"ws{url.removeprefix('http')}/ws") as raw:
            raw.send(json.dumps({"type": "step", "data": {"text": "x" * 30_000}}))
            with pytest.raises(ConnectionClosed, match="1009"):
                raw.recv(TIMEOUT_S)
        assert requests.post(f"{url}/step", data="x" * 30_000, timeout=TIMEOUT_S).status_code == 413
        chunked = requests.post(f"{url}/step", data=iter([b"x" * 15_000] * 2), timeout=TIMEOUT_S)
        assert (chunked.status_code, "20000 bytes" in chunked.text) == (413, True)
        far = client(url)
        far.reset(seed=0)
        with pytest.raises(EnvFailedError, match="1009"):
            far.step("x" * 30_000)
        far.reset(seed=0)
        assert far.step("x" * 200_000)[0] == "That action is too long."
        assert far.step("up")[1] == -1.0


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "INVALID_JSON"),
        ('{"type": "dance"}', "UNKNOWN_TYPE"),
        ('{"type": "step", "data": {}}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"text": 7}}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"text": "up"}}', "EXECUTION_ERROR"),
        ('{"type": "reset", "data": {"seed": 1, "nonsense": 2}}', "EXECUTION_ERROR"),
    ],
)
def test_malformed_messages_are_answered_and_the_session_continues(message, code):
    with serving("key_door") as url, connect(f"ws{url.removeprefix('http')}/ws") as raw:
        raw.send(message)
        answer = json.loads(raw.recv(TIMEOUT_S))
        assert (answer["type"], answer["data"]["code"]) == ("error", code)
        raw.send('{"type": "reset", "data": {"seed": 3}}')
        assert json.loads(raw.recv(TIMEOUT_S))["data"]["observation"]["text"].startswith("Find the key")
        raw.send('{"type": "state"}')
        state = json.loads(raw.recv(TIMEOUT_S))["data"]
        assert (state["env_id"], state["seed"], state["max_turns"], state["step_count"]) == ("key_door", 3, 30, 0)


def test_http_serves_a_reset_and_refuses_a_step():
    with serving("key_door") as url:
        answer = requests.post(f"{url}/reset", json={"seed": 3}, timeout=TIMEOUT_S).json()
        assert answer["observation"]["text"] == envs.make("key_door").reset(seed=3)[0]
        answer = requests.post(f"{url}/step", json={"action": {"text": "up"}}, timeout=TIMEOUT_S)
        assert answer.status_code == 409
        assert "over one connection to /ws" in answer.json()["detail"]
        assert requests.get(f"{url}/metadata", timeout=TIMEOUT_S).json()["name"] == "key_door"


def test_reset_options_are_passed_on():
    with serving("env_cases:Counting") as url:
        assert client(url).reset(seed=1, options={"a": [1]})[1]["options"] == {"a": [1]}


def test_an_exception_ends_its_session_only():
    with serving("env_cases:Counting") as url:
        far = client(url)
        far.reset(seed=0)
        with pytest.raises(EnvFailedError, match="the game broke"):
            far.step("raise")
        assert far.reset(seed=1)[0] == "seed 1"


def test_any_strings():
    """Send 2,000 random strings. The keep-alive of websockets draws from the global random every 20 seconds."""
    with serving("web_forms") as url:
        fuzz(
            "openenv", ["click[1]", "type[1] ", "select[2] ", "x", "\ud800"], actions=2000, leaves_random=False, url=url
        )


def test_a_server_that_does_not_know_truncation(parrot):
    env = client(parrot, action_field="message", text_field="heard")
    assert env.reset(seed=4)[0] == "seed 4"
    assert env.step("hello")[:4] == ("hello (plain)", 0.5, False, False)
    assert env.step("end")[:4] == ("end (plain)", 0.5, True, False)
    env = client(parrot)  # `message` is the only required text field of an action; observations have two
    observation, info = env.reset(seed=4, options={"mood": "wild"})
    assert json.loads(observation) == {"heard": "seed 4", "mood": "wild"}
    assert info["task_id"] == parrot
    env = client(parrot, actions="openenv_cases:shout", observe="openenv_cases:mood_only")
    env.reset(seed=0)
    assert env.step("hi")[0] == "It is calm."
    assert env.step("")[4]["invalid_action"] is True
    with pytest.raises(EnvFailedError, match="the parrot broke"):
        client_after_reset(parrot).step("break")


def client_after_reset(url: str):
    env = client(url)
    env.reset(seed=0)
    return env


def test_wrong_arguments_are_reported():
    with pytest.raises(EnvArgumentError, match="openenv needs the argument 'url'"):
        envs.make("openenv")
    with pytest.raises(EnvArgumentError, match="url is 'localhost:1', must be the server's address"):
        client("localhost:1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(EnvTimeoutError, match=r"sent no schema within 0\.5 s"):
            client(f"http://127.0.0.1:{port}", timeout_s=0.5).reset(seed=0)
        with pytest.raises(EnvArgumentError, match=rf"port {port} on 127\.0\.0\.1 is in use by another process"):
            EnvServer("key_door", host="127.0.0.1", port=port, sessions=1, max_message_bytes=1000)
    with pytest.raises(EnvFailedError, match="no OpenEnv server answers at"):
        client(f"http://127.0.0.1:{port}").reset(seed=0)
    with pytest.raises(EnvError, match="unknown environment 'kee_door': did you mean 'key_door'"):
        EnvServer("kee_door", host="127.0.0.1", port=0, sessions=1, max_message_bytes=1000)


def test_the_command_serves_until_ctrl_c():
    command = [sys.executable, "-m", "archer.cli", "envs", "serve", "key_door", "--port", "0", "--set", "size=2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving key_door at http://127.0.0.1:"), line
        far = client(line.split()[3])
        assert far.reset(seed=0)[0] == envs.make("key_door", size=2).reset(seed=0)[0]
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=TIMEOUT_S)
        assert (process.returncode, rest) == (0, "stopped\n")
        with pytest.raises(EnvFailedError):
            far.step("up")
        far.close()


def test_the_tools_of_a_served_environment_are_those_of_the_client():
    with serving("support_desk") as url:
        assert list(tools("openenv", {"url": url})) == json.loads(json.dumps(envs.spec("support_desk").tools))
    with serving("key_door") as url:
        assert tools("openenv", {"url": url.replace("http", "ws")}) == ()
    with pytest.raises(EnvFailedError, match="no OpenEnv server answers"):
        tools("openenv", {"url": "http://127.0.0.1:1"})


def test_tools_of_the_model_context_protocol_are_called_by_lines_of_json(adder):
    (declared,) = tools("openenv", {"url": adder, "tools": True})
    assert declared["function"]["name"] == "add"
    assert declared["function"]["parameters"]["required"] == ["one", "other"]
    env = client(adder, tools=True)
    env.reset(seed=0)
    assert env.step(write_call("add", one=2, other=3))[0] == "5"
    observation, _, _, _, info = env.step(write_call("subtract", one=2))
    assert "subtract" in observation
    for action, says in {"hello": "Error: not a call", write_rejected("no"): "Error: no."}.items():
        observation, _, _, _, info = env.step(action)
        assert observation.startswith(says)
        assert info["invalid_action"]
    env.close()
    with pytest.raises(EnvArgumentError, match="with tools=true an action is a call"):
        client(adder, tools=True, action_field="message")


def test_a_server_without_tools_is_named(parrot):
    assert tools("openenv", {"url": parrot}) == ()
    with pytest.raises(EnvFailedError, match=r"tools is true, but .* lists no tools at /mcp"):
        tools("openenv", {"url": parrot, "tools": True})
