"""What a client may ask for, checked before anything is computed."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastzsl.errors import UserError

MOST_NEW = 200
LONGEST_TEXT = 2000
MOST_SHOWN = 100
OWN = ("all", "unseen", "seen")


@dataclass(frozen=True)
class Request:
    """One image and the classes that it can be assigned to.

    Attributes:
        image: the bytes of an image file.
        classes: "all", "unseen" or "seen"; used without new classes. Never a path: no file of the server is read.
        attributes: new class -> {attribute: number}.
        texts: new class -> texts.
        beside: the run's own classes that are candidates too: "seen", "all" or None.
        top: classes shown.
        heatmap: whether to show where the best classes looked.
    """

    image: bytes
    classes: str = "all"
    attributes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    beside: str | None = None
    top: int = 5
    heatmap: bool = False


def read_request(body: bytes, kind: str, query: Mapping[str, str]) -> Request:
    """A request from the body of a POST: an image file (options in the query), or JSON with the image in base64.

    Raises:
        UserError: anything else.
    """
    if kind.startswith("image/") or kind == "application/octet-stream":
        options: dict[str, Any] = dict(query)
        for name in ("top", "heatmap"):
            if name in options:
                options[name] = _loads(options[name].encode(), name)
        return _checked(body, options)
    if kind != "application/json":
        raise UserError(f"content type {kind[:60] or 'missing'}; wanted image/* or application/json")
    options = _loads(body, "the body")
    if not isinstance(options, dict) or not isinstance(options.get("image"), str):
        raise UserError("wanted a JSON object with the image in base64 under image")
    try:
        image = base64.b64decode(options.pop("image").rpartition("base64,")[2], validate=True)
    except (binascii.Error, ValueError):
        raise UserError("image is not base64") from None
    return _checked(image, options)


def _loads(text: bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{what}: not JSON") from None


def _checked(image: bytes, options: dict[str, Any]) -> Request:
    known = ("classes", "new", "beside", "top", "heatmap")
    for name in options:
        if name not in known:
            raise UserError(f"unknown option {str(name)[:60]}; wanted some of {', '.join(known)}")
    classes, beside = options.get("classes", "all"), options.get("beside")
    top, heatmap = options.get("top", 5), options.get("heatmap", False)
    if classes not in OWN:
        raise UserError(f"classes is {str(classes)[:60]!r}; wanted one of {', '.join(OWN)}")
    if beside not in (None, "", "seen", "all"):
        raise UserError(f"beside is {str(beside)[:60]!r}; wanted seen or all")
    if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= MOST_SHOWN:
        raise UserError(f"top is {str(top)[:60]}; wanted 1 to {MOST_SHOWN}")
    if not isinstance(heatmap, bool):
        raise UserError(f"heatmap is {str(heatmap)[:60]}; wanted true or false")
    if not image:
        raise UserError("no image in the request")
    attributes, texts = _new(options.get("new") or {})
    if beside and not (attributes or texts):
        raise UserError("beside needs new classes")
    return Request(image, classes, attributes, texts, beside or None, top, heatmap)


def _new(new: Any) -> tuple[dict[str, dict[str, float]], dict[str, tuple[str, ...]]]:
    """New classes by attributes, and by texts."""
    if not isinstance(new, dict) or len(new) > MOST_NEW:
        raise UserError(f"new: wanted an object of at most {MOST_NEW} classes, each attributes or a text")
    attributes: dict[str, dict[str, float]] = {}
    texts: dict[str, tuple[str, ...]] = {}
    for name, said in new.items():
        if not name.strip() or len(name) > LONGEST_TEXT:
            raise UserError("new: a class without a name, or with one that is too long")
        lines = [said] if isinstance(said, str) else said
        if isinstance(lines, list) and lines and all(isinstance(text, str) for text in lines):
            if sum(map(len, lines)) > LONGEST_TEXT:
                raise UserError(f"new class {name[:60]}: more than {LONGEST_TEXT} letters")
            texts[name] = tuple(lines)
        elif isinstance(said, dict) and said and all(map(_number, said.values())):
            attributes[name] = said
        else:
            raise UserError(f"new class {name[:60]}: wanted a text, or an object of attributes and numbers")
    if attributes and texts:
        raise UserError("new classes are described by attributes or by texts; wanted one way for all")
    return attributes, texts


def _number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
