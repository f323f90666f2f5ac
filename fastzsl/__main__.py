"""The command `fastzsl`, and `python -m fastzsl`: lists the commands, and runs one."""

from __future__ import annotations

import importlib
import sys

from fastzsl import __version__
from fastzsl.command.exits import exits_with_message
from fastzsl.errors import UserError, nearest
from fastzsl.garbage import pause

COMMANDS = {
    "make_dataset": "make a checked data set from a folder of images and a spreadsheet",
    "describe": "describe classes by texts: word vectors, sentence models, image-text models",
    "download": "download the benchmarks",
    "extract": "write the features of a whole data set to one file",
    "train": "train and evaluate",
    "tune": "choose a method's settings on held-out seen classes",
    "eval": "repeat the evaluation of a run",
    "predict": "recognise images with a run",
    "serve": "a page and a JSON endpoint for a run, on this machine",
    "export": "write a run as ONNX, as a torch.export program, and as plain PyTorch",
    "reproduce": "repeat the paper's tables, ablations and figures",
    "info": "what this installation has and lacks",
}


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        print("usage: fastzsl COMMAND [options]      fastzsl COMMAND --help shows the options\n")
        print("\n".join(f"  {name:<14}{what}" for name, what in COMMANDS.items()))
        print("\npython -m fastzsl.COMMAND is the same.")
        return
    if words[0] == "--version":
        print(__version__)
        return
    name = words[0].replace("-", "_")
    if name not in COMMANDS:
        raise UserError(f"unknown command {words[0]}{nearest(name, list(COMMANDS))} (fastzsl --help)")
    pause()
    importlib.import_module(f"fastzsl.{name}").main(list(words[1:]))


if __name__ == "__main__":
    main()
