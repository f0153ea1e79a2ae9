"""What this machine computes on, and whether it does so faster in bf16 than in fp32: fixed rules, so that the same
machine always answers alike.

Measured on CPUs: AMX tiles win; so does AVX512-BF16 on AMD from Zen 4 on (a training step takes 0.77 of the CPU time, a
woven patch 0.6); on an Intel Xeon without AMX the same instructions train 1.7 times slower; AVX2 is far slower still.
"""

from pathlib import Path
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]  # auto: bf16 where the hardware is faster in it
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64"}


def best_device() -> str:
    """The GPU where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def bf16_is_faster(cpu_description: Path = Path("/proc/cpuinfo")) -> bool:
    """True on a GPU that computes in bf16, else on a CPU with AMX, or with AVX512-BF16 from AMD."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.cpu._is_amx_tile_supported():
        return True
    return torch.cpu._is_avx512_bf16_supported() and _is_amd(cpu_description)


def use_bf16(precision: Precision) -> bool:
    """Whether to train in bf16: as `precision` says, or with "auto" where that is faster."""
    return bf16_is_faster() if precision == "auto" else precision == "bf16"


def resolved(precision: Precision) -> Literal["fp32", "bf16"]:
    """The precision that this machine trains in; part of the key of every result that depends on it."""
    return "bf16" if use_bf16(precision) else "fp32"


def _is_amd(cpu_description: Path) -> bool:
    try:
        return "AuthenticAMD" in cpu_description.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False  # not Linux: fp32 is never wrong
