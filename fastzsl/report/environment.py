"""What this installation has, what it lacks, and what follows from that."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import torch

import fastzsl
from fastzsl.features.cache import cache_folder
from fastzsl.ops import backends

COSTS = {
    "native": "without it the CPU computes with PyTorch's own products, see the table in README.md",
    "triton": "without it nothing is lost on the CPU; on a GPU the ops run in plain PyTorch",
}
PACKAGES = (
    "torch",
    "torchvision",
    "openvino",
    "triton",
    "timm",
    "numpy",
    "h5py",
    "lightning-fabric",
    "safetensors",
)
VARIABLES = {
    "FASTZSL_BACKEND": "backend of the ops where the code says auto: auto, eager, native or triton",
    "FASTZSL_ISA": "instruction set of the native kernels",
    "FASTZSL_ENGINE": "what computes features where --engine is auto: torch or openvino",
    "FASTZSL_CACHE": "folder of extracted features",
    "TRITON_INTERPRET": "1 runs the Triton kernels on the CPU in Triton's interpreter, for tests",
}


def environment() -> dict[str, dict[str, str]]:
    """Versions, processor, devices, backends with their reasons, and environment variables, as plain text."""
    return {
        "versions": {"fastzsl": _version("fastzsl"), "python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "threads": str(torch.get_num_threads()),
            "instruction set of the native kernels": _isa(),
            "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
            "import of fastzsl": f"{fastzsl.IMPORT_SECONDS:.3f} s beyond torch's own",
            "feature cache": str(cache_folder()),
        },
        "backends": {
            name: "available" if found else f"missing: {'; '.join(found.reasons)} ({COSTS.get(name, '')})"
            for name, found in backends().items()
        },
        "environment": {
            name: f"{os.environ.get(name, 'not set')} ({meaning})" for name, meaning in VARIABLES.items()
        },
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _isa() -> str:
    if not backends()["native"]:
        return "none"
    from fastzsl import _native

    return f"{_native.isa()} (this processor has {', '.join(_native.isas())})"
