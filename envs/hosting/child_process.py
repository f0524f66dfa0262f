"""`ProcessEnv`: runs an environment that may hang, crash or change global state in a child process.

`ProcessEnv` is the parent side and is itself a `TextEnv`; `serve` is the child side. Requests and answers are pickled
over a socket pair. A child that does not answer in time is killed, and the next `reset` starts another. A step that
hangs truncates its episode, because the turns before it are valid data. The child exits when its parent exits.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pickle import PicklingError
from types import TracebackType
from typing import Any

from envs.base import TIMED_OUT, EnvSpec, Info, Observation, Step, TextEnv
from envs.errors import EnvArgumentError, EnvError, EnvFailedError, EnvStateError, EnvTimeoutError

START_TIMEOUT_S = 120.0
CLOSE_TIMEOUT_S = 5.0
HUNG = "No answer came within the time allowed: the episode was ended."
"""The observation after an action that hung the environment."""

log = logging.getLogger(__name__)

# Not multiprocessing's spawn, which runs the main script again in the child: that breaks scripts without a main guard
# and Ray workers.
_CHILD = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from envs.hosting.child_process import serve
serve(int(sys.argv[1]), int(sys.argv[3]))
"""


class ProcessEnv:
    """Runs the environment that `factory` makes in a child process.

    factory: picklable and called in the child, such as the class of an environment or `functools.partial(make_it,
        ...)`.
    timeout_s: longest wait for one reset or step, in seconds, before the child is killed. A step then returns reward 0,
        truncated and `info["timed_out"]`, and logs a warning. A reset raises EnvTimeoutError.
    """

    def __init__(self, factory: Callable[[], TextEnv], spec: EnvSpec, *, timeout_s: float = 60.0) -> None:
        self.spec = spec
        self.timeout_s = timeout_s
        self._factory = factory
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._lifeline: int | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Process id of the child, or None if no child runs."""
        return None if self._process is None else self._process.pid

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[Observation, Info]:
        if self._closed:
            raise EnvStateError(f"reset of {self.spec.id}: the environment is closed: make a new one")
        if self._process is None:
            self._start()
        observation, info = self._ask("reset", {"seed": seed, "options": options}, self.timeout_s)
        return observation, info

    def step(self, action: str) -> Step:
        if self._process is None:
            raise EnvStateError(f"step of {self.spec.id}: no episode is running in a child process: call reset")
        try:
            answer = self._ask("step", {"action": action}, self.timeout_s)
        except EnvTimeoutError as error:
            log.warning("%s; its episode is truncated after the action %.200r", error, action)
            return HUNG, 0.0, False, True, {TIMED_OUT: True}
        observation, reward, terminated, truncated, info = answer
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Ask the child to close its environment; kill the child if it does not exit within CLOSE_TIMEOUT_S."""
        self._closed = True
        process, connection = self._process, self._connection
        if process is None or connection is None:
            return
        try:
            connection.send(("close", {}))
            process.wait(CLOSE_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired):
            pass  # the child has died or hangs; `kill` handles both
        self.kill()

    def kill(self) -> None:
        """Kill the child. The next reset starts another one, unless the environment is closed."""
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        lifeline, self._lifeline = self._lifeline, None
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait(CLOSE_TIMEOUT_S)
        if connection is not None:
            connection.close()
        if lifeline is not None:
            os.close(lifeline)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        lifeline_read, lifeline_write = os.pipe()
        paths = json.dumps([str(path) for path in sys.path])
        arguments = [str(theirs.fileno()), paths, str(lifeline_read)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CHILD, *arguments],
                pass_fds=(theirs.fileno(), lifeline_read),
                stdin=subprocess.DEVNULL,
                process_group=0,  # with all that the environment starts, so that `kill` reaches it
            )
        finally:
            theirs.close()
            os.close(lifeline_read)
        self._lifeline = lifeline_write
        self._connection = Connection(ours.detach())
        try:
            self._ask("make", {"factory": self._factory}, START_TIMEOUT_S)
        except EnvError:
            self.kill()
            raise
        except (PicklingError, AttributeError, TypeError) as error:
            self.kill()
            raise EnvArgumentError(
                f"{self.spec.id} runs in a child process, but its factory cannot be pickled ({error}): "
                "use a class or function at the top level of an importable module"
            ) from error

    def _ask(self, method: str, arguments: dict[str, Any], timeout_s: float) -> Any:
        connection = self._connection
        assert connection is not None, "the child process has not been started"
        try:
            connection.send((method, arguments))
            answered = connection.poll(timeout_s)
            kind, value = connection.recv() if answered else ("timeout", None)
        except (EOFError, ConnectionError) as error:
            code = self._exit_code()
            self.kill()
            raise EnvFailedError(f"{method} of {self.spec.id}: its child process died (exit status {code})") from error
        if kind == "timeout":
            pid = self.pid
            self.kill()
            raise EnvTimeoutError(
                f"{method} of {self.spec.id}: no answer within {timeout_s:g} s; child process {pid} was killed"
            )
        if kind == "refused":
            assert isinstance(value, EnvError)
            raise value
        if kind == "raised":
            self.kill()
            raise EnvFailedError(f"{method} of {self.spec.id} raised in its child process:\n{value}")
        return value

    def _exit_code(self) -> int | None:
        if self._process is None:
            return None
        try:
            return self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return None


class Holding:
    """A factory that returns an environment that exists already, which is pickled with it."""

    def __init__(self, env: TextEnv) -> None:
        self.env = env

    def __call__(self) -> TextEnv:
        return self.env


def serve(fd: int, lifeline: int) -> None:
    """Run the child side: make the environment, then answer requests until `close` or until the parent exits."""
    connection = Connection(fd)
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()

    def send_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        connection.send(("raised", "".join(traceback.format_exception(kind, error, trace))))

    # An exception of the environment's own code ends the child, which sends the traceback to the parent first.
    sys.excepthook = send_exception
    env: TextEnv | None = None
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            method, arguments = "close", {}
        if method == "make":
            try:
                env = arguments["factory"]()
                connection.send(("value", None))
            except EnvError as error:
                connection.send(("refused", error))
                return
        elif method == "close":
            if env is not None:
                env.close()
            return
        else:
            assert env is not None, f"{method} before make"
            try:
                answer = env.reset(**arguments) if method == "reset" else env.step(**arguments)
                connection.send(("value", answer))
            except EnvError as error:  # such as a step after the end; the environment remains usable
                connection.send(("refused", error))


def _die_with_parent(lifeline: int) -> None:
    """Exit when the parent does. The parent holds the other end of this pipe, so the read returns when it dies."""
    os.read(lifeline, 1)
    with suppress(PermissionError):
        os.killpg(0, signal.SIGKILL)  # this process, and what the environment started
    os._exit(1)
