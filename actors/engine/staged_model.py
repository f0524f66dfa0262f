"""New weights beside the old ones: a CPU engine loads and packs them while it generates, and pauses only to take them.

Loading and packing take most of an update on a CPU, where each linear layer computes with a packed copy of its weight.
A second module tree of the same model, without memory between updates, takes the new weights in a thread of the
engine's process. `install` then hands its parameters and packed copies to the model that generates, which copies
nothing. Between the two an engine holds its weights twice.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from vllm.config import VllmConfig

Tensors = Iterable[tuple[str, torch.Tensor]]


class StagedModel:
    """A second tree of the model `live`, whose layers take new weights on the meta device, as at the engine's start."""

    def __init__(self, live: nn.Module, vllm_config: VllmConfig) -> None:
        from vllm.model_executor.model_loader.reload import record_metadata_for_reloading
        from vllm.model_executor.model_loader.utils import initialize_model
        from vllm.utils.torch_utils import set_default_torch_dtype

        config = copy.copy(vllm_config)
        config.compilation_config = copy.copy(vllm_config.compilation_config)
        # Each attention layer registers itself here by its name, of which there may be one.
        config.compilation_config.static_forward_context = {}
        with set_default_torch_dtype(vllm_config.model_config.dtype), torch.device("meta"):
            self._tree = initialize_model(config)
        record_metadata_for_reloading(self._tree)  # again, for layers that are made on the CPU
        # vLLM shares some modules between models, such as tables of rotary positions.
        modules = zip(live.modules(), self._tree.modules(), strict=True)
        self._pairs = [(old, new) for old, new in modules if old is not new]
        # A parameter that several layers share is loaded for the first of them.
        owners: dict[int, tuple[nn.Module, str]] = {}
        self._tied: list[tuple[nn.Module, str, tuple[nn.Module, str]]] = []
        for old, new in self._pairs:
            for name, parameter in old._parameters.items():
                if parameter is None:
                    continue
                owner = owners.setdefault(id(parameter), (new, name))
                if owner[0] is not new:
                    self._tied.append((new, name, owner))
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, load: Callable[[Callable[[Tensors], None]], None]) -> None:
        """Begin to load weights in a thread. `load` gets the function that takes them."""

        if self._thread is not None:
            self._thread.join()  # of a broadcast that was given up

        def run() -> None:
            try:
                self._reset()
                load(self._load)
                self._finish()
            except BaseException as error:  # noqa: BLE001  `done` raises it in the thread of the engine
                self._error = error

        self._thread, self._error = threading.Thread(target=run, name="stage-weights", daemon=True), None
        self._thread.start()

    def done(self) -> bool:
        """Return whether the thread has ended. Raises its error."""
        assert self._thread is not None, "nothing is being staged"
        if self._thread.is_alive():
            return False
        if self._error is not None:
            error, self._error, self._thread = self._error, None, None
            raise error
        return True

    @property
    def ready(self) -> bool:
        """Whether weights have been staged and not installed."""
        return self._thread is not None and not self._thread.is_alive() and self._error is None

    def install(self) -> None:
        """Give the new weights to the model that generates, in its pause, and forget them here."""
        assert self.ready, "the weights are not staged"
        self._thread = None
        for old, new in self._pairs:
            parameters = {name: found for name, found in new._parameters.items() if found is not None}
            if not parameters or any(parameter.is_meta for parameter in parameters.values()):
                continue  # an update of adapters leaves the other layers as they are
            for name, parameter in parameters.items():
                old._parameters[name].data = parameter.data  # type: ignore[union-attr]
            if "cpu_linear" in vars(new):
                old.cpu_linear = new.cpu_linear
        self._reset()

    def _reset(self) -> None:
        """Put every layer back on the meta device, before its weights."""
        from vllm.model_executor.model_loader.reload.layerwise import (
            get_layerwise_info,
            initialize_online_processing,
        )
        from vllm.model_executor.model_loader.reload.meta import materialize_meta_tensor, restore_layer_on_meta

        for _, layer in self._pairs:
            info = get_layerwise_info(layer)
            info.reset()
            restore_layer_on_meta(layer, info)
            bias = layer._parameters.get("bias")
            if bias is not None:  # vLLM leaves biases where they are
                layer._parameters["bias"] = materialize_meta_tensor(bias)
            vars(layer).pop("cpu_linear", None)
            initialize_online_processing(layer)

    @torch.no_grad()
    def _load(self, tensors: Tensors) -> None:
        from vllm.model_executor.model_loader.mtp_validation import disable_mtp_completeness_check

        with disable_mtp_completeness_check():
            self._tree.load_weights(tensors)

    @torch.no_grad()
    def _finish(self) -> None:
        """Process layers with padding, which no weight fills, and those that share a weight with another one."""
        from vllm.model_executor.layers.attention import is_deferred_attention_layer
        from vllm.model_executor.model_loader.reload.layerwise import _layerwise_process, get_layerwise_info

        for _, layer in self._pairs:
            info = get_layerwise_info(layer)
            if info.can_load() and info.load_numel > 0 and not is_deferred_attention_layer(layer):
                _layerwise_process(layer, info)
        self._tie()

    def _tie(self) -> None:
        """Share the parameters that layers share, and pack each layer's copy."""
        from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

        for layer, name, (owner, owned) in self._tied:
            parameter = owner._parameters[owned]
            if parameter is None or parameter.is_meta:
                continue
            layer._parameters[name] = parameter
            if hasattr(layer, "quant_method"):
                dispatch_cpu_unquantized_gemm(layer, remove_weight=False)


def can_stage(model: nn.Module) -> bool:
    """Return whether everything that a CPU engine computes with follows from parameters and packed linear layers.

    Quantised layers, mixtures of experts and recurrent layers keep more than that, so they load in the pause.
    """
    from vllm.model_executor.layers.attention import is_deferred_attention_layer
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod
    from vllm.platforms import current_platform

    def known(layer: nn.Module) -> bool:
        if is_deferred_attention_layer(layer):
            return type(layer).__name__ == "Attention"
        method = getattr(layer, "quant_method", None)
        if method is None:
            return True
        plain = isinstance(method, UnquantizedLinearMethod | UnquantizedEmbeddingMethod)
        return plain and not getattr(layer, "_cpu_skip_gemm_dispatch", False) and all(_is_flat(p) for p in _own(layer))

    return current_platform.is_cpu() and all(map(known, model.modules()))


def _own(layer: nn.Module) -> Iterator[Any]:
    return (parameter for parameter in layer._parameters.values() if parameter is not None)


def _is_flat(parameter: Any) -> bool:
    return bool(parameter.ndim <= 2)
