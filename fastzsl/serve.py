"""`python -m fastzsl.serve RUN`: a page and a JSON endpoint for a trained run, on this machine."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fastzsl.command.console import open_console
from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse
from fastzsl.errors import UserError
from fastzsl.prediction.recogniser import load
from fastzsl.server.app import build_app

DESCRIPTION = """A page on which images are dropped and new classes described, with scores and where the model looked.

Programs POST to /predict: an image file (curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg'
'http://127.0.0.1:8000/predict?classes=unseen&top=3'), or JSON {"image": base64, "new": {"okapi": "a striped giraffe"},
"beside": "seen", "top": 5, "heatmap": true}; "new" may also have attributes and numbers. Only this machine is answered.
"""


@dataclass(frozen=True)
class Settings:
    """What to serve, and where.

    Args:
        run: the run folder.
        host: address to listen at. Only a loopback address is safe: there is no password and no encryption.
        port: number of the port; 0 takes a free one.
        max_mib: largest request in MiB.
        backbone: the backbone that made the features, for a run trained on a file of features.
        backbone_weights: file with its weights, or "random".
    """

    run: Annotated[Path, tyro.conf.Positional]
    host: str = "127.0.0.1"
    port: int = 8000
    max_mib: int = 16
    backbone: str | None = None
    backbone_weights: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port is {self.port}; wanted 0 to 65535")
        if not 1 <= self.max_mib <= 1024:
            raise UserError(f"--max-mib is {self.max_mib}; wanted 1 to 1024")


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    settings = parse(Settings, arguments, "python -m fastzsl.serve", DESCRIPTION)
    try:
        import uvicorn
    except ImportError:
        raise UserError("the server needs starlette and uvicorn: pip install 'fastzsl[serve]'") from None
    listener = _listen(settings.host, settings.port)
    recogniser = load(settings.run, backbone=settings.backbone, backbone_weights=settings.backbone_weights)
    app = build_app(recogniser, ["127.0.0.1", "localhost", "[::1]", settings.host], settings.max_mib << 20)
    console = open_console()
    host, port = listener.getsockname()[:2]
    console.print(f"http://{f'[{host}]' if ':' in host else host}:{port}  (stop with Ctrl-C)", soft_wrap=True)
    if not ipaddress.ip_address(host).is_loopback:
        console.print("- other machines can reach this address; there is no password", soft_wrap=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        UserError: not an address of this machine, or a port that is taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise UserError(f"cannot listen at {host}, port {port}: {error.strerror or error}") from None
    return listener


if __name__ == "__main__":
    main()
