"""Where the time of a step goes: kernels, gaps in which the device has no work, and waits of the host."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bench.gpu_steps import synchronize

GAP_US = 10.0
"""A time without work on the device counts as a gap from here on; launches that follow each other have a few us."""
MOST = 12
"""Kernels and operations that the summary names."""

# Calls by which the host waits for the device, by a part of their names.
_WAITS = ("Synchronize", "Memcpy DtoH", "aten::_local_scalar_dense", "aten::nonzero")


class Span(NamedTuple):
    """One event: work on the device, or a call on the host; times in microseconds."""

    name: str
    where: Literal["device", "host"]
    start: float
    end: float


def profiled(step: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """Run `step` once under PyTorch's profiler and return the summary."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    synchronize(device)
    with profile(activities=activities) as found:
        step()
        synchronize(device)
    return summary(_spans(found.events()))


def _spans(events: Iterable[Any]) -> list[Span]:
    spans = []
    for event in events:
        where: Literal["device", "host"] = "host" if event.device_type == DeviceType.CPU else "device"
        spans.append(Span(event.name, where, event.time_range.start, event.time_range.end))
    return spans


def summary(spans: Sequence[Span]) -> dict[str, Any]:
    """Return the figures of one step, in milliseconds.

    `device_busy` is the share of the step in which the device has work. `gaps` are the times without any, of at least
    `GAP_US`, between the first and the last work. `waits` are calls by which the host waits for the device. On a CPU
    there is no device, and the host's operations are all.
    """
    device = [span for span in spans if span.where == "device"]
    begin, end = min(span.start for span in spans), max(span.end for span in spans)
    gaps = _gaps(device)
    waits = [span for span in spans if any(part in span.name for part in _WAITS)]
    return {
        "step_ms": (end - begin) / 1e3,
        "launches": len(device),
        "device_busy": 1.0 - (_idle(device, begin, end) / (end - begin)) if device else None,
        "gaps": {"count": len(gaps), "ms": sum(gaps) / 1e3, "longest_ms": max(gaps, default=0.0) / 1e3},
        "waits": _by_name(waits),
        "kernels": _by_name(device)[:MOST],
        "operations": _by_name([span for span in spans if span.where == "host"])[:MOST],
    }


def _busy(spans: Sequence[Span]) -> list[tuple[float, float]]:
    """Return the intervals in which any of `spans` runs, in order."""
    found: list[tuple[float, float]] = []
    for span in sorted(spans, key=lambda span: span.start):
        if found and span.start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], span.end))
        else:
            found.append((span.start, span.end))
    return found


def _idle(spans: Sequence[Span], begin: float, end: float) -> float:
    return (end - begin) - sum(stop - start for start, stop in _busy(spans))


def _gaps(spans: Sequence[Span]) -> list[float]:
    between = (start - stop for (_, stop), (start, _) in itertools.pairwise(_busy(spans)))
    return [gap for gap in between if gap >= GAP_US]


def _by_name(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Return calls and milliseconds of each name, the longest first. Times of calls inside of others count for both."""
    totals: defaultdict[str, list[float]] = defaultdict(list)
    for span in spans:
        totals[span.name].append(span.end - span.start)
    rows = [{"name": name[:120], "calls": len(each), "ms": sum(each) / 1e3} for name, each in totals.items()]
    return sorted(rows, key=lambda row: -row["ms"])
