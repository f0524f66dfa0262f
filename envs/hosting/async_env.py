"""`AsyncEnv`: awaits any environment, and moves a blocking one off the event loop according to its `isolation`."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from envs.base import EnvSpec, Info, Observation, Step, TextEnv, unwrapped
from envs.errors import EnvError, EnvFailedError, EnvStateError, EnvTimeoutError
from envs.hosting.child_process import CLOSE_TIMEOUT_S, START_TIMEOUT_S, Holding, ProcessEnv

T = TypeVar("T")


class AsyncEnv:
    """`areset`, `astep` and `aclose` for any `TextEnv`. Use one AsyncEnv per episode in flight, with one call at a
    time.

    - If the environment has both `areset` and `astep`, these are used.
    - `inline`: called directly. The environment must be fast; no timeout applies.
    - `thread`: called on a dedicated thread. Threads cannot be killed, so after a timeout the environment is abandoned
      and later calls raise EnvStateError.
    - `process`: called in a child process, which is killed on a timeout. The next `areset` starts another process; a
      step that hung returns the truncated end of its episode.

    timeout_s: longest wait for one reset or step, in seconds. After it EnvTimeoutError is raised, except where the
        episode is truncated instead.

    An exception of the environment's own code is raised as EnvFailedError, so callers need to catch EnvError only.
    """

    def __init__(self, env: TextEnv, *, timeout_s: float = 60.0) -> None:
        self.spec: EnvSpec = env.spec
        self.timeout_s = timeout_s
        self._native = _has_coroutines(env)
        self._child: ProcessEnv | None = None
        if env.spec.isolation == "process" and not self._native:
            inner = unwrapped(env)
            if isinstance(inner, ProcessEnv):
                self._child = inner
            else:
                env = self._child = ProcessEnv(Holding(env), env.spec)
            self._child.timeout_s = timeout_s
        self.env = env
        self._thread: _LoopThread | None = None
        self._lost = False

    async def areset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[Observation, Info]:
        if self._native:
            return await self._await("reset", self.env.areset(seed=seed, options=options))  # type: ignore[attr-defined]
        return await self._call("reset", lambda: self.env.reset(seed=seed, options=options))

    async def astep(self, action: str) -> Step:
        if self._native:
            return await self._await("step", self.env.astep(action))  # type: ignore[attr-defined]
        return await self._call("step", lambda: self.env.step(action))

    async def aclose(self) -> None:
        """Close the environment and end its thread. May be called twice and after a timeout."""
        if not self._lost:
            await self._call("close", self.env.close)
        if self._thread is not None:
            self._thread.stop()
            self._thread = None

    async def _call(self, method: str, call: Callable[[], T]) -> T:
        if self._lost:
            raise EnvStateError(f"{method} of {self.spec.id}: an earlier call timed out: make a new environment")
        if self.spec.isolation == "inline" or self._native:
            with _Named(self.spec.id, method, KeyboardInterrupt):  # Ctrl-C arrives in this thread
                return call()
        if self._thread is None:
            self._thread = _LoopThread(self.spec.id)

        def named() -> T:
            with _Named(self.spec.id, method):
                return call()

        future = asyncio.wrap_future(self._thread.submit(named))
        # `ProcessEnv` enforces the timeout and kills the child; wait long enough here to receive its result.
        extra = 0.0 if self._child is None else START_TIMEOUT_S + 2 * CLOSE_TIMEOUT_S
        return await self._await(method, future, extra)

    async def _await(self, method: str, awaited: Any, extra_s: float = 0.0) -> Any:
        limit = self.timeout_s + extra_s

        async def named() -> Any:
            # Within the task: `sys.exit` in a task would end the event loop.
            with _Named(self.spec.id, method, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit):
                return await awaited

        task = asyncio.ensure_future(named())
        done, _ = await asyncio.wait([task], timeout=limit)
        if not done:
            task.cancel()
            self._lost = not self._native
            raise EnvTimeoutError(f"{method} of {self.spec.id}: no answer within {limit:g} s")
        if task.cancelled():
            raise EnvFailedError(f"{method} of {self.spec.id} was cancelled by its own code")
        return task.result()


class _Named:
    """Context manager that converts foreign exceptions to EnvFailedError, with environment id and method.

    `sys.exit` is an exception like others: it must not end the worker, nor the thread or the loop that runs the call.

    passes: exceptions that are not of the environment.
    """

    def __init__(self, env_id: str, method: str, *passes: type[BaseException]) -> None:
        self.what = f"{method} of {env_id}"
        self.passes = passes

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, (EnvError, *self.passes)):
            return
        raise EnvFailedError(f"{self.what} raised {type(error).__name__}: {error}") from error


class _LoopThread:
    """A daemon thread with an event loop. Unlike an executor's, it does not delay the exit of the interpreter."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"env-{name}", daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], T]) -> Any:
        """Run `call` on the thread; return a concurrent.futures.Future of its result."""

        async def run() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(run(), self._loop)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()


def _has_coroutines(env: TextEnv) -> bool:
    inner = unwrapped(env)
    areset, astep = getattr(inner, "areset", None), getattr(inner, "astep", None)
    return inspect.iscoroutinefunction(areset) and inspect.iscoroutinefunction(astep)
