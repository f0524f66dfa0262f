"""The type of a setting that keeps processes on nodes with a custom resource of Ray."""

from typing import Annotated

from pydantic import AfterValidator, Field


def _custom(resources: dict[str, float]) -> dict[str, float]:
    if own := sorted(name for name in resources if name.upper() in ("CPU", "GPU", "MEMORY", "OBJECT_STORE_MEMORY")):
        raise ValueError(f"{', '.join(own)} is no custom resource; CPUs and GPUs have settings of their own")
    return resources


CustomResources = Annotated[
    dict[Annotated[str, Field(min_length=1)], Annotated[float, Field(gt=0)]], AfterValidator(_custom)
]
"""Amounts by the names that `ray start --resources` gave nodes."""
