"""The web application: one page, and POST /predict."""

from __future__ import annotations

import base64
import io
import threading
from pathlib import Path
from typing import Any

from PIL import Image

from fastzsl.errors import UserError
from fastzsl.prediction.images import decode_image
from fastzsl.prediction.recogniser import Recogniser
from fastzsl.prediction.result import Prediction
from fastzsl.report.heatmap import heatmap_overlay
from fastzsl.server.request import Request, read_request

SHOWN_SIDE = 480
MAPS = 5
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
PAGES = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript")}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; img-src blob: data:; "
    "style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def build_app(recogniser: Recogniser, hosts: list[str], largest: int) -> Any:
    """The application, for any ASGI server.

    Args:
        recogniser: the run.
        hosts: names in the Host header that are answered, against pages that rebind their own name to this machine.
        largest: bytes of a request.

    Raises:
        UserError: starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.requests import Request as WebRequest
        from starlette.responses import JSONResponse, Response
        from starlette.routing import Route
    except ImportError:
        raise UserError("the server needs starlette and uvicorn: pip install 'fastzsl[serve]'") from None
    attends = recogniser.has_attention
    turn = threading.Lock()  # one image at a time: the backbone uses all cores

    def answer(request: Request) -> dict[str, Any]:
        with turn:
            return recognise(recogniser, request)

    async def page(request: WebRequest) -> Response:
        name, kind = PAGES[request.url.path]
        return Response(Path(__file__).with_name(name).read_bytes(), headers=HEADERS, media_type=kind)

    async def about(request: WebRequest) -> Response:
        return JSONResponse(
            {
                "classes": list(recogniser.class_names),
                "attributes": list(recogniser.attribute_names),
                "texts": recogniser.record is not None,
                "attention": attends,
            },
            headers=HEADERS,
        )

    async def predict(request: WebRequest) -> Response:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > largest:
                error = f"the request has more than {largest} bytes"
                return JSONResponse({"error": error}, 413, headers={**HEADERS, "Connection": "close"})
            parts.append(part)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            asked = read_request(b"".join(parts), kind, dict(request.query_params))
            return JSONResponse(await run_in_threadpool(answer, asked), headers=HEADERS)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 400, headers=HEADERS)

    return Starlette(
        routes=[
            *[Route(path, page) for path in PAGES],
            Route("/about", about),
            Route("/predict", predict, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
    )


def recognise(recogniser: Recogniser, request: Request) -> dict[str, Any]:
    """The answer to a request, as plain values.

    Raises:
        UserError: not an image, or classes that do not fit the run.
    """
    _refuse_other_formats(request.image)
    image = decode_image(request.image, "the image")
    new = recogniser.describe(request.texts) if request.texts else request.attributes
    candidates = recogniser.own.candidates(new or request.classes, request.beside)  # type: ignore[arg-type]
    shown = min(request.top, MAPS) if request.heatmap else 0
    (prediction,) = recogniser.stream(image, candidates, attention_top=shown)
    rows: list[dict[str, Any]] = [{"class": n, "score": s} for n, s in prediction.top(request.top)]
    kinds = dict(zip(candidates.names, candidates.kinds))
    for rank, row in enumerate(rows):
        row["kind"] = kinds[row["class"]]
        if rank < shown:
            row["heatmap"] = _overlay(prediction, rank, image)
    return {"predictions": rows, "classes": candidates.description}


def _refuse_other_formats(content: bytes) -> None:
    """Raise `UserError` unless it is an image of a usual format; some rare ones are read by other programs."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS):
            pass
    except Exception:  # Pillow raises many types
        raise UserError(f"the image: not readable; wanted one of {', '.join(FORMATS)}") from None


def _overlay(prediction: Prediction, rank: int, image: Image.Image) -> str:
    """The attention over the image, a PNG as a data: address."""
    small = image.convert("RGB")
    small.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    file = io.BytesIO()
    heatmap_overlay(small, prediction.heatmap(rank, small.height, small.width)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
