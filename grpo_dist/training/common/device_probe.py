"""What PyTorch sees, as JSON on standard output; a separate process, so that light commands need not import torch."""

from __future__ import annotations

import json
from typing import Any

import torch


def seen() -> dict[str, Any]:
    """Version, builds and GPUs; memory in bytes."""
    available = torch.cuda.is_available()
    return {
        "torch": torch.__version__,
        "cuda_build": torch.version.cuda,
        "available": available,
        "nccl": list(torch.cuda.nccl.version()) if available else None,
        "bfloat16": torch.cuda.is_bf16_supported(including_emulation=False) if available else None,
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())] if available else [],
    }


def _gpu(index: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(index)
    return {"name": torch.cuda.get_device_name(index), "free": free, "total": total}


if __name__ == "__main__":
    print(json.dumps(seen()))
