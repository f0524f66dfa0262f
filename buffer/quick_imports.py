"""Imports of large packages without the garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Switch the garbage collector off in this block.

    An import of torch, transformers or vLLM creates a million objects, all of which stay. The collector would look at
    them again and again, which takes a fifth of the time of the import.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
