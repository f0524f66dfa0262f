"""Bytes of tensors as PyTorch makes and frees them, for real tensors and for `FakeTensorMode`, which stores nothing."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AttentionInterface, AttentionMaskInterface

COUNTED = "archer_counted"
"""The `attn_implementation` of models whose passes are counted: what fused attention keeps, and no arithmetic."""


@contextmanager
def without_data() -> Iterator[FakeTensorMode]:
    """Yield a mode in which tensors have sizes and no data. Modules of such tensors can be copied and converted in this
    block; PyTorch would copy storages byte by byte, from memory that does not exist, and swap tensors that it observes.
    """
    converted, copied = nn.Module._apply, FakeTensor.__deepcopy__
    FakeTensor.__deepcopy__ = _copied  # type: ignore[method-assign]
    nn.Module._apply = _converted  # type: ignore[method-assign]
    try:
        yield FakeTensorMode(allow_non_fake_inputs=True)
    finally:
        nn.Module._apply = converted  # type: ignore[method-assign]
        FakeTensor.__deepcopy__ = copied  # type: ignore[method-assign]


def _converted(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    for child in module.children() if recurse else ():
        _converted(child, function)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(function(parameter.detach()), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        module._buffers[name] = None if buffer is None else function(buffer)
    return module


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    found: Tensor = tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        found = nn.Parameter(found, tensor.requires_grad)
    memo[id(tensor)] = found
    return found


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations in its block make.

    Attributes:
        live: bytes that exist now.
        peak: the most that existed at once.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, Any] = {tensor.untyped_storage()._cdata: None for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_iter(found):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return found

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self.live += size
        self.peak = max(self.peak, self.live)

        def freed(_: object) -> None:
            self.live -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, freed)


def held(module: nn.Module) -> list[Tensor]:
    """Return the parameters and buffers of a module, and gradients of its trained parameters, made if there is none."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    return [*module.parameters(), *module.buffers(), *gradients]


class _Fused(torch.autograd.Function):
    """The tensors of fused attention: queries, keys, values, outputs, and one float32 for each query and head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows, heads, length, _ = query.shape
        found = value.new_empty(rows, length, heads, value.shape[-1])
        ctx.save_for_backward(query, key, value, found, query.new_empty(rows, heads, length, dtype=torch.float32))
        return found

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _counted(_: nn.Module, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any) -> tuple[Tensor, None]:
    return _Fused.apply(query.to(value.dtype), key.to(value.dtype), value), None


AttentionInterface.register(COUNTED, _counted)
AttentionMaskInterface.register(COUNTED, lambda *_, **__: None)
