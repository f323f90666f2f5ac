"""A folder that needs torch and safetensors only: weights, and the model as a Python function without classes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from fastzsl.files.tensors import save_tensors
from fastzsl.portable.trace import Trace

HEADER = '''"""The model of a fastzsl run as one function. Needs torch and safetensors; use.py shows how to call it.

Written by `python -m fastzsl.export` from the model itself: each line is one operation of PyTorch.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import device, inf, nan  # noqa: F401

TENSORS = load_file(Path(__file__).with_name("model.safetensors"))


def scores(images, class_embeddings):
    """Scores of equation 8, without gamma.

    Args:
        images: (B, 3, {side}, {side}) float32 in [0, 1].
        class_embeddings: (C, {m}) float32, in the units of classes.json.

    Returns:
        {returns}
    """
    with torch.no_grad():
        found = _model(*(TENSORS[name] for name in NAMES), images, class_embeddings)
    return found[0] if len(found) == 1 else found


'''

USE = '''"""Recognise an image file: python use.py photo.jpg (Pillow reads the image)."""

import json
import sys
from pathlib import Path

import torch
from model import scores
from PIL import Image

about = json.loads((Path(__file__).resolve().parents[1] / "classes.json").read_text("utf-8"))
side = about["image_size"]
image = Image.open(sys.argv[1]).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, side, side, 3)
images = pixels.permute(0, 3, 1, 2).float() / 255

classes = about["classes"]  # name, kind (seen or unseen), embedding; a class of your own is one more of them
found = scores(images, torch.tensor([c["embedding"] for c in classes]))
found = found[0] if isinstance(found, tuple) else found  # with attention
gamma = torch.tensor([0.0 if c["kind"] == "seen" else about["gamma"] for c in classes])
for value, place in zip(*(found + gamma)[0].topk(min(5, len(classes)))):
    print(f"{value:.4f} {classes[place]['name']}")
'''


def write_plain(traced: Trace, folder: Path) -> float:
    """Write model.py, model.safetensors and use.py.

    Returns:
        The largest difference from the run, see `Trace.difference`.

    Raises:
        UserError: a difference above the tolerance.
    """
    folder.mkdir()
    names, tensors, code = _as_function(traced.program)
    save_tensors(folder / "model.safetensors", tensors)
    side, m = traced.inputs[0].shape[2], traced.inputs[1].shape[1]
    returns = "scores (B, C)" if len(traced.outputs) == 1 else "scores (B, C), attention (B, C, h, w)"
    text = HEADER.replace("{side}", str(side)).replace("{m}", str(m)).replace("{returns}", returns)
    listed = "".join(f'    "{name}",\n' for name in names)
    (folder / "model.py").write_text(f"{text}NAMES = (\n{listed})\n\n\n{code}\n", encoding="utf-8")
    (folder / "use.py").write_text(USE, encoding="utf-8")
    return traced.difference(_run(folder / "model.py", traced.inputs))


def _as_function(program: ExportedProgram) -> tuple[list[str], dict[str, Tensor], str]:
    """Names of the tensors in the order of the function's arguments, the tensors, and the function's text."""
    graph = torch.fx.Graph()
    graph.output(graph.graph_copy(program.graph, {}))
    for node in list(graph.nodes):
        if node.op == "call_function" and "_assert" in str(node.target):
            graph.erase_node(
                node
            )  # checks of types that the trace made; the inputs' types are in the docstring
    graph.eliminate_dead_code()
    held = {**program.state_dict, **program.constants}
    names, tensors = [], {}
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            continue
        assert spec.target is not None
        names.append(spec.target)
        tensors[spec.target] = held[spec.target].detach().clone()
    source = graph.python_code("self").src.replace("def forward(self, ", "def _model(").strip()
    return names, tensors, source


def _run(file: Path, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    spec = importlib.util.spec_from_file_location("exported_model", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.scores(*inputs)
    return found if isinstance(found, tuple) else (found,)
