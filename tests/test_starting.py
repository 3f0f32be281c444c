"""A quick start leaves nothing changed behind, and threads share their memory."""

import gc
import inspect
import subprocess
import sys

from pipeline.recipe import REPOSITORY
from ui.starting import quick_start


def test_a_quick_start_ends_as_it_began() -> None:
    getfile = inspect.getfile
    try:
        with quick_start():
            assert not gc.isenabled()
            raise KeyError
    except KeyError:
        pass
    assert gc.isenabled()
    assert inspect.getfile is getfile
    gc.unfreeze()


def test_gradio_prepares_no_stub_files_meanwhile() -> None:
    program = """
import ast
from ui.starting import quick_start
read = []
ast.get_source_segment = lambda source, node: read.append(node.name)
with quick_start():
    import gradio
print(read)
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_many_threads_take_memory_from_two_pools() -> None:
    """Of its own for each thread, glibc would report a pool a thread."""
    program = """
import ctypes, threading
from ui.starting import share_memory_between_threads
share_memory_between_threads()
ready = threading.Barrier(9)
def work():
    kept = [bytes(5_000) for _ in range(100)]
    ready.wait(60)
    ready.wait(60)
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
ready.wait(60)
glibc = ctypes.CDLL(None)
stdout = ctypes.c_void_p.in_dll(glibc, "stdout")
glibc.malloc_info(0, stdout)
glibc.fflush(stdout)
ready.wait(60)
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert 1 <= result.stdout.count("<heap nr=") <= 2
