"""The images that a recogniser takes: files, folders, bytes, file objects, Pillow images and arrays."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from fastzsl.data.formats.folder import read_image
from fastzsl.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})
"""Endings of the files of a folder that are read as images; a file named by the user may have any ending."""
MOST_BYTES = 1 << 30
"""A file object that holds more is refused."""

ImageInput = str | Path | bytes | BinaryIO | Image.Image | np.ndarray
"""A file, its content as bytes or as an object with `read`, a Pillow image, or a uint8 array (H, W, 3)."""


def list_images(folder: Path) -> list[Path]:
    """Every image below a folder, sorted, without hidden ones."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def each_image(images: ImageInput | Iterable[ImageInput]) -> Iterator[ImageInput]:
    """One image after the other; folders as the images below them."""
    if isinstance(images, str | Path | bytes | Image.Image | np.ndarray) or hasattr(images, "read"):
        images = [images]  # type: ignore[list-item]
    for image in images:
        if isinstance(image, str | Path) and Path(image).is_dir():
            yield from list_images(Path(image))
        else:
            yield image


def decode_image(image: ImageInput, name: str) -> Image.Image:
    """The image in RGB.

    Raises:
        UserError: not an image, damaged, or of another type; it starts with `name`.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, bytes | bytearray | memoryview):
        return read_image(io.BytesIO(image), name)
    found = type(image).__name__
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
            return Image.fromarray(image)
        found = f"{image.dtype} array {image.shape}"
    elif hasattr(image, "read"):
        content = _read(image, name)
        if isinstance(content, bytes):
            return read_image(io.BytesIO(content), name)
        found = "file object of texts"
    raise UserError(
        f"{name} is a {found}; wanted a file, bytes, a binary file object, a Pillow image or a uint8 array (H, W, 3)"
    )


def _read(file: BinaryIO, name: str) -> bytes:
    try:
        content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a closed file raises ValueError
        raise UserError(f"{name}: cannot be read ({error})") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"{name}: more than {MOST_BYTES >> 30} GiB; wanted an image")
    return content
