"""The folder that `fastzsl.export` writes."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from fastzsl.errors import UserError
from fastzsl.portable.module import ScoringModule
from fastzsl.portable.onnx_file import write_onnx
from fastzsl.portable.plain import write_plain
from fastzsl.portable.trace import Trace, trace
from fastzsl.prediction.recogniser import Recogniser

Form = Literal["onnx", "torch", "plain"]


def export_run(
    recogniser: Recogniser,
    out: Path,
    forms: Sequence[Form] = ("onnx", "torch", "plain"),
    attention: bool = False,
) -> dict[str, float]:
    """Write a run in other forms, and compare each with the run.

    Args:
        recogniser: a run opened on the CPU.
        out: new folder. It appears when all of it is written and checked.
        forms: "onnx" (model.onnx), "torch" (model.pt2 of torch.export), "plain" (plain/, torch and safetensors only).
        attention: also return the attention of every class.

    Returns:
        Form -> largest difference from the run's scores, as a share of the largest score.

    Raises:
        UserError: the folder exists, the run cannot be exported, or a form differs by more than 1e-5.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty; choose another --out, or remove it")
    traced = trace(ScoringModule(recogniser, attention), recogniser.own.embeddings)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir()
        found: dict[str, float] = {form: _write(form, traced, partial) for form in forms}
        text = json.dumps(_about(recogniser, traced), indent=1, ensure_ascii=False)
        (partial / "classes.json").write_text(text + "\n", encoding="utf-8")
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def _write(form: Form, traced: Trace, folder: Path) -> float:
    if form == "onnx":
        return write_onnx(traced, folder / "model.onnx")
    if form == "plain":
        return write_plain(traced, folder / "plain")
    path = folder / "model.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tensors that share memory, which are compared below
        torch.export.save(traced.program, path)
        found = torch.export.load(path).module()(*traced.inputs)
    return traced.difference(found if isinstance(found, tuple) else (found,))


def _about(recogniser: Recogniser, traced: Trace) -> dict[str, object]:
    """What a program needs beside the model: how images are prepared, the classes, gamma."""
    own = recogniser.own
    return {
        "image_size": recogniser.backbone.image_size,
        "images": "the whole image resized (bicubic) to image_size, RGB, (B, 3, H, W) float32 in [0, 1]",
        "outputs": list(traced.outputs),
        "gamma": own.gamma,
        "gamma_is": "added to the scores of classes without training images, if seen classes are candidates too",
        "attributes": list(own.attributes),
        "classes": [
            {"name": name, "kind": "unseen" if unseen else "seen", "embedding": row}
            for name, unseen, row in zip(own.names, own.unseen.tolist(), own.embeddings.tolist())
        ],
    }
