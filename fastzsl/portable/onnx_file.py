"""ONNX, checked in ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import torch

from fastzsl.errors import UserError, first_line
from fastzsl.portable.trace import Trace


def write_onnx(traced: Trace, path: Path) -> float:
    """Write an ONNX file with free numbers of images and classes.

    Returns:
        The largest difference of ONNX Runtime from the run, see `Trace.difference`.

    Raises:
        UserError: a missing package, an operation that ONNX does not have, or a difference above the tolerance.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX needs {error.name}: pip install 'fastzsl[export]'") from None
    chatter = logging.getLogger("torch.onnx")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                traced.program, (), str(path), dynamo=True, external_data=False, verbose=False,
                input_names=["images", "class_embeddings"], output_names=list(traced.outputs),
            )  # fmt: skip
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        feeds = dict(zip(("images", "class_embeddings"), (t.numpy() for t in traced.inputs)))
        found = session.run(list(traced.outputs), feeds)
    except Exception as error:
        raise UserError(f"ONNX: {first_line(error, 200)}") from None
    finally:
        chatter.setLevel(level)
    return traced.difference(tuple(map(torch.from_numpy, found)))
