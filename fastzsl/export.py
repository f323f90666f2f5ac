"""`python -m fastzsl.export RUN`: a trained run as ONNX, as a torch.export program, and as plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fastzsl.command.console import open_console
from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse
from fastzsl.errors import UserError
from fastzsl.portable.folder import Form, export_run
from fastzsl.prediction.recogniser import load

DESCRIPTION = """Write a trained run for other programs. Inputs are images and class embeddings, any number of both.

OUT/model.onnx for ONNX Runtime and others, OUT/model.pt2 for torch.export.load, OUT/plain with the model as one Python
function that needs torch and safetensors only, and OUT/classes.json with the classes, gamma and the size of the images.
Each form is compared with the run on other numbers of images and classes; the largest difference is printed.
"""


@dataclass(frozen=True)
class Settings:
    """What to write.

    Args:
        run: the run folder.
        out: new folder; default RUN/export.
        forms: some of onnx, torch and plain.
        attention: also return the attention of every class, (B, C, h, w).
        backbone: the backbone that made the features, for a run trained on a file of features.
        backbone_weights: file with its weights, or "random".
    """

    run: Annotated[Path, tyro.conf.Positional]
    out: Path | None = None
    forms: tuple[Form, ...] = ("onnx", "torch", "plain")
    attention: bool = False
    backbone: str | None = None
    backbone_weights: str | None = None

    def __post_init__(self) -> None:
        if not self.forms:
            raise UserError("--forms names none; wanted some of onnx, torch, plain")


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    settings = parse(Settings, arguments, "python -m fastzsl.export", DESCRIPTION)
    recogniser = load(
        settings.run,
        accelerator="cpu",
        backbone=settings.backbone,
        backbone_weights=settings.backbone_weights,
    )
    out = settings.out or settings.run / "export"
    found = export_run(recogniser, out, tuple(dict.fromkeys(settings.forms)), settings.attention)
    console = open_console()
    names = {"onnx": "model.onnx", "torch": "model.pt2", "plain": "plain/"}
    for form, difference in found.items():
        console.print(
            f"{out / names[form]}: differs from the run by at most {difference:.1e}",
            soft_wrap=True,
        )


if __name__ == "__main__":
    main()
