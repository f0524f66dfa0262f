"""The configuration of each model of a run: from its folder, the hub's cache, the table of published models, or a
stated number of parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from archer.config.loading import looks_like_folder
from archer.config.models import RunConfig
from archer.driver.model import tiny_shape
from archer.errors import ConfigError
from archer.planning.published import SHAPES, published, with_layers


class Shape(NamedTuple):
    """The configuration of a model, and where it is from, for people."""

    config: PreTrainedConfig
    source: str


def policy_shape(config: RunConfig, parameters: float | None) -> Shape:
    """Return the shape of the policy. Raises ConfigError if there is none, or if `parameters` is not needed.

    Args:
        parameters: stated number of parameters, for a model whose configuration cannot be had.
    """
    build = config.model.build
    if build is not None:
        if parameters is not None:
            raise ConfigError("--parameters states the size of an existing model, and `model.build` has its own")
        return Shape(tiny_shape(build, build.vocab_size, {}), "`model.build`, with its largest vocabulary")
    assert config.model.path is not None
    found = find_shape(config.model.path, "`model.path`", offered=True) if parameters is None else None
    return found or scaled(float(parameters or 0))


def find_shape(path: str, key: str, *, offered: bool = False) -> Shape:
    """Return the shape of the model at `path`. Raises ConfigError, in one sentence.

    Args:
        key: the setting that names the model.
        offered: whether --parameters can take its place.
    """
    if looks_like_folder(path):
        folder = Path(path).expanduser()
        if not (folder / "config.json").is_file():
            raise ConfigError(f"{key} is {path!r}, and that folder has no Hugging Face model (no config.json)")
        return Shape(_load(str(folder), path, key), f"{path}/config.json")
    try:
        return Shape(
            AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True), "the hub's cache"
        )
    except (OSError, ValueError):
        pass
    if (known := published(path)) is not None:
        kind, sizes = known
        return Shape(AutoConfig.for_model(kind, **copy.deepcopy(sizes)), "the table of published models")
    stated = "; state its size with --parameters, for example --parameters 7e9, or give" if offered else "; give"
    return Shape(_load(path, path, key, f"{stated} a folder with its config.json"), "the hub")


def _load(name: str, path: str, key: str, advice: str = "") -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ConfigError(f"{key} {path!r} has no configuration that can be read ({reason}){advice}") from error


def scaled(parameters: float) -> Shape:
    """Return the shape of a model with about this many parameters: the published causal one of the nearest size, with
    as many layers as bring it nearest to the number."""
    if not 1e6 <= parameters <= 2e12:
        raise ConfigError(f"--parameters {parameters:g} is no size of a language model; give it in units, such as 7e9")
    causal = {name: shape for name, shape in SHAPES.items() if shape[0] != "roberta"}
    shapes = {name: AutoConfig.for_model(kind, **copy.deepcopy(given)) for name, (kind, given) in causal.items()}
    # The layers of each are alike, so that one of them stands for all.
    outside = {name: count(with_layers(shape, 0)) for name, shape in shapes.items()}
    a_layer = {name: count(with_layers(shape, 1)) - outside[name] for name, shape in shapes.items()}
    name = min(
        shapes,
        key=lambda other: abs(outside[other] + shapes[other].num_hidden_layers * a_layer[other] - parameters),
    )
    shape, layers = shapes[name], shapes[name].num_hidden_layers
    wanted = max(1, round((parameters - outside[name]) / a_layer[name]))
    return Shape(with_layers(shape, wanted), f"{name} with {wanted} layers instead of {layers}, for --parameters")


def count(config: PreTrainedConfig, make: Callable[..., torch.nn.Module] = AutoModelForCausalLM.from_config) -> int:
    """Return the number of parameters of a model of this configuration, of which no weight is made."""
    with FakeTensorMode():
        return sum(parameter.numel() for parameter in make(config).parameters())
