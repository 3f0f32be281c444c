"""What makes the page start sooner, and keeps its memory where it is."""

import ctypes
import gc
import inspect
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

M_ARENA_MAX = -8  # from glibc's malloc.h


@contextmanager
def quick_start() -> Iterator[None]:
    """For the time of the imports and of loading: no garbage collection, and no stub files from gradio.

    Together they took a third of the start. What was imported by then is never looked through for garbage again.
    """
    gc.disable()
    getfile = inspect.getfile

    def file_for_stubs(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError("gradio writes a stub file for editors beside each component that has a file")
        return getfile(thing)

    inspect.getfile = file_for_stubs  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = getfile
        gc.freeze()
        gc.enable()


def share_memory_between_threads() -> None:
    """Have threads take memory from two pools: of its own for each, glibc gives little back, and memory grows."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)
