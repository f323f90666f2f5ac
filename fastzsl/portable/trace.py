"""One trace of a run's module, with the numbers of images and of classes left free, and the comparison with it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from fastzsl.errors import UserError, first_line
from fastzsl.portable.module import ScoringModule

MOST = 1 << 20
TOLERANCE = 1e-5
"""Largest difference from the run, see `Trace.difference`."""


@dataclass(frozen=True)
class Trace:
    """An exported program and inputs of other sizes to test it with.

    Attributes:
        program: the trace; inputs images (B, 3, H, W) and class_embeddings (C, m).
        outputs: names of what it returns.
        inputs: images and class embeddings whose B and C are not those of the trace.
        expected: what the run's module gives for `inputs`.
    """

    program: ExportedProgram
    outputs: tuple[str, ...]
    inputs: tuple[Tensor, Tensor]
    expected: tuple[Tensor, ...]

    def difference(self, found: tuple[Tensor, ...]) -> float:
        """The largest difference from `expected`: of scores as a share of the largest score, of attention as it is.

        Raises:
            UserError: it is above `TOLERANCE`, or not a number.
        """
        shares = []
        for name, ours, theirs in zip(self.outputs, self.expected, found, strict=True):
            if ours.shape != theirs.shape:
                raise UserError(
                    f"the exported {name} have shape {tuple(theirs.shape)}, not {tuple(ours.shape)}"
                )
            unit = 1.0 if name == "attention" else float(ours.abs().max().clamp_min(1e-12))
            shares.append(float((ours - theirs).abs().max()) / unit)
            if not shares[-1] <= TOLERANCE:
                raise UserError(
                    f"the exported {name} differ from the run's by {shares[-1]:.1e}; wanted {TOLERANCE:.0e} at most"
                )
        return max(shares)


def trace(module: ScoringModule, class_embeddings: Tensor) -> Trace:
    """Trace a module with free numbers of images and classes.

    Args:
        module: the run.
        class_embeddings: (C, m), the run's own classes, to test with.

    Raises:
        UserError: something in backbone or method cannot be traced.
    """
    side, m = module.backbone.image_size, class_embeddings.shape[1]
    sizes = {
        "images": {0: Dim("images", min=1, max=MOST)},
        "class_embeddings": {0: Dim("classes", min=1, max=MOST)},
    }
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        example = (torch.rand(2, 3, side, side, generator=generator), _several(class_embeddings, 3))
        try:
            program = torch.export.export(module, example, dynamic_shapes=sizes, strict=False)
        except Exception as error:  # any type, of any layer of the backbone
            raise UserError(f"backbone or method cannot be exported ({first_line(error, 160)})") from None
        inputs = (torch.rand(5, 3, side, side, generator=generator), _several(class_embeddings, m % 7 + 4))
        expected = module(*inputs)
    outputs = ("scores", "attention") if module.attention else ("scores",)
    return Trace(program, outputs, inputs, expected if isinstance(expected, tuple) else (expected,))


def _several(class_embeddings: Tensor, count: int) -> Tensor:
    """`count` rows, from the first on and over again."""
    return class_embeddings[torch.arange(count) % len(class_embeddings)].float().contiguous()
