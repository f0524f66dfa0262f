"""The web application: the page and its data, as JSON. All routes only read."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import date
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from archer.driver.run_folder import plain
from archer.errors import ConfigError
from archer.viewer.access import Access
from archer.viewer.curves import charts, other_metrics, return_series
from archer.viewer.detail import episode_page
from archer.viewer.search import facets, find_episodes
from archer.viewer.store import Store

_REFRESH_S = 2.0
Answer = Callable[[Request], Any]


def make_app(store: Store, token: str | None = None) -> Starlette:
    """Return the application over a store. With a `token`, every request must carry it."""
    static = str(files("archer.viewer").joinpath("static"))

    def page(_: Request) -> Response:
        return FileResponse(f"{static}/index.html")

    routes = [
        Route("/", page),
        Route("/api/runs", _json(store, _runs)),
        Route("/api/run", _json(store, _run)),
        Route("/api/facets", _json(store, lambda store, _: facets(store))),
        Route("/api/episodes", _json(store, lambda store, request: find_episodes(store, request.query_params))),
        Route("/api/episode", _json(store, _episode)),
        Mount("/static", StaticFiles(directory=static)),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Access, token=token)])


def _json(store: Store, answer: Callable[[Store, Request], Any]) -> Callable[[Request], Response]:
    """Return an endpoint, which Starlette calls in a thread; None as an answer is a 404."""

    def endpoint(request: Request) -> Response:
        threading.Thread(target=store.refresh, kwargs={"at_most_every_s": _REFRESH_S}, daemon=True).start()
        try:
            found = answer(store, request)
        except ConfigError as error:
            return _response({"error": str(error)}, 400)
        if found is None:
            return _response({"error": "there is no such run or episode in this folder (any more)"}, 404)
        return _response(found)

    return endpoint


def _response(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(plain(content), default=_text), status, media_type="application/json")


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)


def _runs(store: Store, _: Request) -> dict[str, Any]:
    counts = {row["run"]: row["n"] for row in store.query("SELECT run, count(*) AS n FROM episodes GROUP BY run")}
    runs = store.runs()
    return {
        "root": str(store.root),
        "runs": [{**run.overview(), "held": counts.get(run.key, 0), "series": return_series(run)} for run in runs],
        "waiting": store.waiting,
        "problems": sorted(store.problems.values()),
    }


def _run(store: Store, request: Request) -> dict[str, Any] | None:
    run = store.run(request.query_params.get("run", ""))
    if run is None:
        return None
    return {
        **run.overview(),
        "charts": charts(run),
        "metrics": other_metrics(run),
        "evaluations": run.evaluations,
        "config": run.config_text,
        "summary": run.summary,
    }


def _episode(store: Store, request: Request) -> dict[str, Any] | None:
    asked = request.query_params
    row = asked.get("row", "")
    if not row.isdecimal() or len(row) > 9:
        raise ConfigError(f"row is {row!r}; give the number of a row")
    return episode_page(store, asked.get("run", ""), asked.get("file", ""), int(row))
