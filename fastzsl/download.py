"""`python -m fastzsl.download`: the benchmarks' images and splits from their official addresses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from fastzsl.command.console import open_console
from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse
from fastzsl.data.download.fetch import Digest, download
from fastzsl.data.download.unpack import unpack

DESCRIPTION = """Download a benchmark from its official address, unpack it safely, and say how to use it.

If the command is stopped, or the connection breaks, run it again to continue. The images of a benchmark also need the
splits: download xlsa17 too.
"""


@dataclass(frozen=True)
class Archive:
    """One file to fetch.

    Attributes:
        url: the official address.
        most_bytes: limit of the unpacked size, about three times the known size.
        digest, size: as published. If the authors publish neither, only the length that the server announces
            and the archive's own checksums are checked.
    """

    url: str
    most_bytes: int
    digest: Digest | None = None
    size: int | None = None


@dataclass(frozen=True)
class Source:
    """A benchmark: its archives, and a note for its users."""

    title: str
    archives: tuple[Archive, ...]
    licence: str
    citation: str
    use: str


GB = 10**9
XIAN = (
    "Xian, Lampert, Schiele, Akata: Zero-Shot Learning - A Comprehensive Evaluation of the Good, the Bad and "
    "the Ugly. IEEE TPAMI, 2018."
)
SOURCES = {
    "awa2": Source(
        "Animals with Attributes 2",
        (
            Archive("https://cvml.ista.ac.at/AwA2/AwA2-base.zip", GB // 10),
            Archive("https://cvml.ista.ac.at/AwA2/AwA2-data.zip", 45 * GB),
        ),
        "the images' own free licences, image by image, in the archive's folder of licences",
        XIAN,
        "python -m fastzsl.extract --dataset awa2 --root XLSA17 --images {root} --out awa2.h5",
    ),
    "cub": Source(
        "Caltech-UCSD Birds-200-2011",
        (
            Archive(
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                5 * GB,
                Digest("md5", "97eceeb196236b17998738112f37df78"),
            ),
        ),
        "for non-commercial research and education; Caltech does not own the images' copyrights",
        "Wah, Branson, Welinder, Perona, Belongie: The Caltech-UCSD Birds-200-2011 Dataset. Technical report "
        "CNS-TR-2011-001, California Institute of Technology, 2011.",
        "python -m fastzsl.extract --dataset cub --root XLSA17 --images {root} --out cub.h5",
    ),
    "sun": Source(
        "SUN Attribute Database",
        (
            Archive("https://cs.brown.edu/~gmpatter/Attributes/SUNAttributeDB_Images.tar.gz", 30 * GB),
            Archive("https://cs.brown.edu/~gmpatter/Attributes/SUNAttributeDB.tar.gz", GB),
        ),
        "for research; the terms are on https://cs.brown.edu/~gmpatter/sunattributes.html",
        "Patterson, Xu, Su, Hays: The SUN Attribute Database: Beyond Categories for Deeper Scene "
        "Understanding. IJCV, 2014.",
        "python -m fastzsl.extract --dataset sun --root XLSA17 --images {root} --out sun.h5",
    ),
    "xlsa17": Source(
        "Proposed splits, class attributes and ResNet-101 features of AWA1, AWA2, CUB, SUN, aPY",
        (Archive("https://datasets.d2.mpi-inf.mpg.de/xian/xlsa17.zip", 10 * GB),),
        "for research; the terms of each data set apply to its part",
        XIAN,
        "python -m fastzsl.train --dataset cub --root {root}",
    ),
}


@dataclass(frozen=True)
class Settings:
    """What to download.

    Args:
        name: awa2, cub and sun are images; xlsa17 is the splits, attributes and pooled features of all of
            them.
        root: the folder to unpack to.
        keep: keep the archives after they are unpacked.
        mirror: fetch from this address instead, followed by the archives' names.
    """

    name: Annotated[Literal["awa2", "cub", "sun", "xlsa17"], tyro.conf.Positional]
    root: Path
    keep: bool = False
    mirror: str | None = None


def fetch(settings: Settings, console: Console | None = None) -> None:
    """Download, check and unpack. Archives that were unpacked before are not fetched again.

    Raises:
        UserError: the server fails or an archive is wrong; a partial download is kept if it can be continued.
    """
    console = console or open_console()

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    source = SOURCES[settings.name]
    say(f"{source.title}\nlicence: {source.licence}\nplease cite: {source.citation}")
    for archive in source.archives:
        name = archive.url.rpartition("/")[2]
        done = settings.root / f".{name}.done"
        if done.exists():
            say(f"{name}: unpacked before")
            continue
        url = f"{settings.mirror.rstrip('/')}/{name}" if settings.mirror else archive.url
        files = _fetch_one(archive, url, settings.root / name, console)
        done.touch()
        if not settings.keep:
            (settings.root / name).unlink()
        say(f"{name}: {files} files in {settings.root}")
    say(f"use it: {source.use.format(root=settings.root)}")


def _fetch_one(archive: Archive, url: str, packed: Path, console: Console) -> int:
    """Download and unpack one archive into its folder; returns the number of files."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as progress:
        if not packed.exists():
            task = progress.add_task(packed.name, total=archive.size)
            download(
                url,
                packed,
                size=archive.size,
                digest=archive.digest,
                progress=lambda there, total: progress.update(task, completed=there, total=total),
            )
        unpacking = progress.add_task(f"unpacking {packed.name}", total=None)
        return unpack(
            packed,
            packed.parent,
            most_bytes=archive.most_bytes,
            progress=lambda written: progress.advance(unpacking, written),
        )


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    fetch(parse(Settings, arguments, "python -m fastzsl.download", DESCRIPTION))


if __name__ == "__main__":
    main()
