"""Memory and utilisation of the GPUs that Ray has given to this process, read from the driver (NVML) at each scrape."""

import os
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

LABELS = ("gpu",)


class GpuCollector(Collector):
    """Gauges of each visible GPU, labelled by its number on the node. A GPU that does not answer has no series."""

    @staticmethod
    def found() -> bool:
        """Return whether Ray has given this process a GPU and the library that asks the driver is installed."""
        return bool(_visible()) and find_spec("pynvml") is not None

    def describe(self) -> Iterable[Metric]:
        return _families()

    def collect(self) -> Iterable[Metric]:
        import pynvml

        used, total, utilisation = families = _families()
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            return families
        for gpu in _visible():
            try:
                handle = _handle(pynvml, gpu)
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
            except pynvml.NVMLError:
                continue
            used.add_metric([gpu], memory.used)
            total.add_metric([gpu], memory.total)
            utilisation.add_metric([gpu], busy / 100)
        return families


def _handle(pynvml: Any, gpu: str) -> Any:
    """Return NVML's handle of a GPU, which CUDA_VISIBLE_DEVICES names by its number or by its UUID."""
    return pynvml.nvmlDeviceGetHandleByIndex(int(gpu)) if gpu.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(gpu)


def _visible() -> list[str]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names, which Ray sets for each process."""
    return [
        gpu.strip() for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu.strip() not in ("", "-1")
    ]


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily("archer_gpu_memory_used_bytes", "Memory in use, by all processes.", labels=LABELS),
        GaugeMetricFamily("archer_gpu_memory_total_bytes", "Memory that the GPU has.", labels=LABELS),
        GaugeMetricFamily(
            "archer_gpu_utilization_ratio",
            "Share of the last sample period in which a kernel ran on the GPU, 0 to 1.",
            labels=LABELS,
        ),
    )
