"""In which number format this machine trains."""

import torch


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
