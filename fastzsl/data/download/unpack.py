"""Unpack an untrusted archive: no file outside the folder, no links, and no more bytes than a limit."""

from __future__ import annotations

import errno
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from fastzsl.errors import UserError, first_line

BLOCK = 1 << 20
MOST_ENTRIES = 2_000_000
LONGEST_HEADER = 1 << 20


class Entry(NamedTuple):
    """One file of an archive."""

    name: str
    size: int
    open: Callable[[], AbstractContextManager[IO[bytes]]]


def unpack(
    archive: Path, folder: Path, *, most_bytes: int, progress: Callable[[int], None] = lambda n: None
) -> int:
    """Unpack a .zip, .tar, .tgz or .tar.gz below `folder`; returns the number of files.

    Only plain files are made. They are first written to a separate folder, and moved when all are complete.

    Args:
        most_bytes: limit of the unpacked size. Written bytes are counted; sizes that the archive states are not used.
        progress: called with the number of bytes written since the last call.

    Raises:
        UserError: damaged; a path that leaves the folder; a link or device; too many files or bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f".{archive.name}.unpacking"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    written = files = 0
    try:
        for entry in _entries(archive):
            files += 1
            target = new / _safe_name(archive, entry.name)
            if files > MOST_ENTRIES or written + entry.size > most_bytes:
                raise UserError(
                    f"{archive}: unpacks to more than {most_bytes:,} bytes or {MOST_ENTRIES:,} files"
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            with entry.open() as source, open(target, "xb") as file:
                while block := source.read(BLOCK):
                    written += len(block)
                    if written > most_bytes:
                        raise UserError(f"{archive}: unpacks to more than {most_bytes:,} bytes")
                    file.write(block)
                    progress(len(block))
        _move_into(new, folder)
    except UserError:
        raise
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{archive}: two files of the name {error.filename}") from None
    except OSError as error:
        if error.filename or error.errno not in (None, errno.EINVAL):  # EINVAL: a seek outside the file
            raise
        raise UserError(f"{archive}: damaged ({error})") from None
    except Exception as error:  # zip, zlib, lzma and tar raise different types
        said = first_line(error)
        raise UserError(f"{archive}: damaged ({said})") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return files


def _entries(archive: Path) -> Iterator[Entry]:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise UserError(
                        f"{archive}: {info.filename} is a link or a device; only files are unpacked"
                    )
                if info.flag_bits & 1:
                    raise UserError(f"{archive}: {info.filename} is encrypted")
                if not info.is_dir():
                    yield Entry(info.filename, info.file_size, partial(packed.open, info))
        return
    with tarfile.open(archive, "r|*", tarinfo=_ShortHeaders) as tape:  # read once from the start
        for member in tape:
            if member.isdir():
                continue
            # `tarfile.data_filter` is not enough: it allows links inside the folder, and does not check sizes.
            if not member.isreg():
                raise UserError(f"{archive}: {member.name} is a link or a device; only files are unpacked")
            source = tape.extractfile(member)
            assert source is not None, "a plain file has content"
            yield Entry(member.name, member.size, partial(_as_it_is, source))


def _as_it_is(source: IO[bytes]) -> AbstractContextManager[IO[bytes]]:
    return nullcontext(source)


class _ShortHeaders(tarfile.TarInfo):
    """Refuses long names and large extended headers, which `tarfile` would read into memory."""

    def _proc_member(self, tape: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and not self.isdir() and self.size > LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(tape)  # type: ignore[misc,no-any-return]


def _safe_name(archive: Path, name: str) -> PurePosixPath:
    """The entry's path below the folder; raises `UserError` if it is outside."""
    path = PurePosixPath(name.replace("\\", "/"))
    parts = [part for part in path.parts if part != "."]
    bad = path.is_absolute() or ".." in parts or not parts or any(":" in p or "\0" in p for p in parts[:1])
    if bad or len(name) > 1000:
        raise UserError(f"{archive}: {name[:100]!r} would leave the folder")
    return PurePosixPath(*parts)


def _move_into(new: Path, folder: Path) -> None:
    """Move a tree into another, file by file if folders exist already; links in the path are refused."""
    for item in sorted(new.iterdir()):
        target = folder / item.name
        if target.is_symlink():
            raise UserError(f"{target} is a link; remove it, nothing is unpacked through links")
        if item.is_dir() and target.is_dir():
            _move_into(item, target)
        else:
            item.replace(target)
