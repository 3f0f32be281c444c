"""In which number format this machine trains, and how fast it multiplies in it."""

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

SIZE = 2048  # rows and columns of the matrices that are timed


def training_precision() -> torch.dtype:
    """bfloat16 where its products are fast, else float32.

    A processor without instructions for them (one with AVX2 only, say) multiplies a hundred times slower
    in bfloat16 than in float32.
    """
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def in_four_bits(computed_in: torch.dtype, whole: list[str]) -> "BitsAndBytesConfig":
    """How matrices are rounded to 4 bits when they are loaded (NF4, arXiv:2305.14314), but for the `whole` modules."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computed_in,
        llm_int8_skip_modules=whole,
    )


def matrix_rate(device: torch.device | None = None) -> float:
    """Floating-point operations per second of one matrix product, on the GPU if there is one and no other is named."""
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    left = torch.randn(SIZE, SIZE, dtype=training_precision(), device=device)
    repeats = 5
    for timed in (False, True):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats if timed else 1):
            left @ left
        if device.type == "cuda":
            torch.cuda.synchronize()
    return repeats * 2 * SIZE**3 / (time.perf_counter() - start)
