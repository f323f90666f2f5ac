"""Download a file from a server whose connections may break, or whose answers may be wrong or change."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fastzsl.errors import UserError

BLOCK = 1 << 20
ATTEMPTS = 5
"""The download fails after this number of connections in a row that break without a new byte."""
TIMEOUT = 30.0
LARGEST_DOWNLOAD = 64 << 30


class Digest(NamedTuple):
    """A published checksum: "sha256" or "md5", and its hexadecimal value."""

    algorithm: str
    value: str


def download(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    digest: Digest | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Fetch `url` into `path`, continuing where an earlier attempt stopped.

    The received bytes are in `<name>.part`, and the server's ETag in a file beside it. A file that changed on the
    server is fetched again from the start. The file gets its name when its length is that of the server or of `size`,
    and its digest, if there is one, is right.

    Args:
        size, digest: published size and digest of the file.
        progress: called with the number of bytes received and the total, if known.
        wait: sleeps between attempts.

    Raises:
        UserError: no such file on the server, a connection that breaks again and again, a wrong length or
            digest.
    """
    if not url.startswith(("https://", "http://")):
        raise UserError(f"{url}: wanted an address that begins with https:// or http://")
    path.parent.mkdir(parents=True, exist_ok=True)
    part, tag_file = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.etag")
    fruitless = 0
    while True:
        have = part.stat().st_size if part.exists() else 0
        try:
            total = _fetch_rest(url, part, tag_file, size, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code not in (408, 429) and error.code < 500:
                raise UserError(f"{url}: the server answers {error.code} {error.reason}") from None
            reason = f"the server answers {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.filename:
                raise  # an error of the local disk, not of the network
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        came = (part.stat().st_size if part.exists() else 0) > have
        fruitless = 1 if came else fruitless + 1
        if fruitless >= ATTEMPTS:
            kept = part.exists() and part.stat().st_size > 0
            raise UserError(
                f"{url}: {reason}" + kept * "; the received bytes are kept, run the same command to continue"
            )
        wait(min(2.0**fruitless, 30.0))
    if part.stat().st_size != total:
        found = part.stat().st_size
        part.unlink()
        raise UserError(f"{url}: {found} bytes came; {total} were announced")
    if digest is not None:
        with open(part, "rb") as file:
            found_digest = hashlib.file_digest(file, digest.algorithm).hexdigest()
        if found_digest != digest.value:
            part.unlink()
            raise UserError(
                f"{url}: {digest.algorithm} is {found_digest}; {digest.value} is published: "
                "not the file wanted"
            )
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
    tag_file.unlink(missing_ok=True)


def _fetch_rest(
    url: str, part: Path, tag_file: Path, size: int | None, progress: Callable[[int, int | None], None]
) -> int:
    """Read from one connection; returns the announced length of the whole file when all of it was received."""
    have = part.stat().st_size if part.exists() else 0
    tag = tag_file.read_text() if tag_file.exists() else ""
    request = urllib.request.Request(url, headers={"User-Agent": "fastzsl", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if tag:
            request.add_header("If-Range", tag)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        part.unlink()  # the received bytes are not the beginning of the server's file
        return _fetch_rest(url, part, tag_file, size, progress)
    with answer:
        start, total = _range(url, answer, have, size)
        if not start:
            tag_file.write_text(_strong_tag(answer))
        with open(part, "r+b" if part.exists() else "wb") as file:
            file.truncate(start)
            file.seek(start)
            done = start
            progress(done, total)
            while block := answer.read(BLOCK):
                done += len(block)
                if done > (LARGEST_DOWNLOAD if total is None else total):
                    raise UserError(f"{url}: sends more than the {total} bytes that it announced")
                file.write(block)
                progress(done, total)
    if total is not None and done < total:
        raise http.client.IncompleteRead(b"", total - done)
    return done


def _range(url: str, answer: http.client.HTTPResponse, have: int, size: int | None) -> tuple[int, int | None]:
    """The first byte of the answer, and the length of the whole file."""
    start, total = 0, None
    if answer.status == 206:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if not found or int(found[1]) != have:
            raise UserError(
                f"{url}: wanted the bytes from {have}; the server sends {answer.headers.get('Content-Range')}"
            )
        start, total = have, None if found[3] == "*" else int(found[3])
    elif (length := answer.headers.get("Content-Length", "")).isdigit():
        total = int(length)
    for limit in (size, total):
        if limit is not None and limit > LARGEST_DOWNLOAD:
            raise UserError(
                f"{url}: announces {limit} bytes; more than {LARGEST_DOWNLOAD >> 30} GiB are not fetched"
            )
    if size is not None and total is not None and size != total:
        raise UserError(f"{url}: announces {total} bytes; {size} are published: not the file wanted")
    return start, size if total is None else total


def _strong_tag(answer: http.client.HTTPResponse) -> str:
    """A value for `If-Range`: a strong ETag, or the date of the last change."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
