"""Feature maps by OpenVINO, from the PyTorch module; the converted model is kept in the cache.

OpenVINO's own `convert_model` also reports its use over the network, so its parts are called here.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastzsl.errors import UserError, first_line
from fastzsl.features.cache import cache_folder

LARGEST_ERROR = 1e-4
"""Relative Frobenius norm of the difference from PyTorch's maps in float32. A model that differs more is refused."""
PACKAGES = ("openvino", "torch", "torchvision", "timm", "fastzsl")


class OpenVinoMaps:
    """uint8 images (B, 3, H, W) -> feature maps (B, d, h, w) float32, one thread for each call.

    The maps of random images are compared with PyTorch's whenever a model is opened.

    Args:
        backbone: a `fastzsl.features.backbones.Backbone` on the CPU, in float32.

    Raises:
        UserError: OpenVINO is not installed, or does not compute this backbone's maps.
    """

    def __init__(self, backbone: Any) -> None:
        try:
            import openvino
        except ImportError:
            raise UserError(
                "--engine openvino needs a package that is not installed: pip install 'fastzsl[openvino]'"
            ) from None
        folder = cache_folder() / "engines" / f"{backbone.name.replace('/', '_')}-{_digest(backbone)}"
        try:
            self._open(openvino.Core().read_model(folder / "model.xml"))
            if self._error(backbone, images=1) <= LARGEST_ERROR:
                return
        except RuntimeError:  # no such file yet, or a damaged one
            pass
        try:
            self._open(_kept(_convert(backbone), folder))
            error = self._error(backbone, images=3)
        except Exception as problem:  # tracing and conversion raise any type
            raise UserError(
                f'OpenVINO cannot run backbone "{backbone.name}" ({first_line(problem)}); use --engine torch'
            ) from problem
        if not error <= LARGEST_ERROR:
            raise UserError(
                f'OpenVINO computes other features of backbone "{backbone.name}" than PyTorch (relative error '
                f"{error:.1e}); use --engine torch"
            )

    def _open(self, model: Any) -> None:
        """One stream of one thread for each of PyTorch's threads; float32 even if there are units for bfloat16."""
        import openvino

        threads = max(1, torch.get_num_threads())
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": threads,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # two programs would be pinned to the same core
        }
        self._compiled = openvino.Core().compile_model(model, "CPU", settings)
        self._requests = threading.local()

    def __call__(self, images: Tensor) -> Tensor:
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        self._requests.own.infer({0: np.ascontiguousarray(images.numpy())})
        return torch.from_numpy(self._requests.own.get_output_tensor(0).data.copy())

    @torch.no_grad()
    def _error(self, backbone: Any, images: int) -> float:
        side = backbone.image_size
        generator = torch.Generator().manual_seed(0)
        probe = torch.randint(256, (images, 3, side, side), dtype=torch.uint8, generator=generator)
        wanted, found = backbone(probe), self(probe)
        if wanted.shape != found.shape:
            return float("inf")
        return float((found - wanted).norm() / wanted.norm().clamp_min(1e-30))


def _convert(backbone: Any) -> Any:
    """The backbone as an OpenVINO model that takes any number of images."""
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    side = backbone.image_size
    example = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # PyTorch calls tracing deprecated; constants of the model are traced as such
        traced = torch.jit.trace(backbone, example, check_trace=False, strict=False)
        constant = torch.jit.freeze(traced.eval())
        decoder = TorchScriptPythonDecoder(constant, example_input=example, skip_freeze=True)
    frontend = FrontEndManager().load_by_framework("pytorch")
    loaded = frontend.load(decoder)
    model = frontend.convert(loaded)
    entrance = model.inputs[0].get_node()
    entrance.set_element_type(openvino.Type.u8)
    entrance.set_partial_shape(openvino.PartialShape([-1, 3, side, side]))
    model.validate_nodes_and_infer_types()
    return model


def _digest(backbone: Any) -> str:
    """Of all that decides the model: weights, size of the images, versions."""
    digest = hashlib.sha256(f"{backbone.name} {backbone.image_size}".encode())
    digest.update(" ".join(map(_version, PACKAGES)).encode())
    for name, values in (*backbone.named_parameters(), *backbone.named_buffers()):
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.detach().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # on the path without being installed
        return str(getattr(importlib.import_module(package), "__version__", ""))


def _kept(model: Any, folder: Path) -> Any:
    """The model as it is read from the cache, so that the first program computes the same bits as later ones."""
    import openvino

    own = folder.with_name(f".{folder.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        own.mkdir(parents=True)
        openvino.save_model(model, own / "model.xml", compress_to_fp16=False)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        own.rename(folder)
        return openvino.Core().read_model(folder / "model.xml")
    except (OSError, RuntimeError):  # another program was first, or the disk is full
        shutil.rmtree(own, ignore_errors=True)
        return model
