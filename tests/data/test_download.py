"""Downloads from a server that breaks, lies and refuses, and archives that attack; all on this machine."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from fastzsl import download as command
from fastzsl.data.download import fetch
from fastzsl.data.download.fetch import ATTEMPTS, Digest, download
from fastzsl.data.download.unpack import unpack
from fastzsl.errors import UserError

CONTENT = bytes(i * 37 % 251 for i in range(100_000))
MOST = 1 << 20


class Server:
    """A file server; `play` is a list of one behaviour for each request, the last one for all that follow."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/f.bin": CONTENT}
        self.tag = '"one"'
        self.play: list[str] = ["good"]
        self.ranges: list[str | None] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner.ranges.append(self.headers.get("Range"))
                acted = owner.play.pop(0) if len(owner.play) > 1 else owner.play[0]
                owner.answer(self, acted)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, to: BaseHTTPRequestHandler, acted: str) -> None:
        content = self.files.get(to.path)
        if content is None or acted.isdigit():
            to.send_error(404 if content is None else int(acted))
            return
        asked = to.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        fresh = not asked or acted == "no ranges" or to.headers.get("If-Range", self.tag) != self.tag
        if fresh:
            start = 0
        if start >= len(content):
            to.send_error(416)
            return
        body = content[start:]
        to.send_response(200 if fresh else 206)
        to.send_header("ETag", self.tag)
        if not fresh:
            first = start + 5 if acted == "wrong range" else start
            to.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if acted != "no length":
            lie = {"too long": 999, "too short": -999, "huge": 1 << 50}.get(acted, 0)
            to.send_header("Content-Length", str(len(body) + lie))
        to.end_headers()
        if acted.startswith("break"):
            body = body[: int(acted.split()[1])]
        if acted == "stall":
            to.wfile.write(body[:1000])
            to.wfile.flush()
            time.sleep(2)
            return
        to.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def get(server: Server, path: Path, **options: object) -> bytes:
    download(f"{server.url}/f.bin", path, wait=lambda seconds: None, **options)  # type: ignore[arg-type]
    assert not path.with_name(path.name + ".part").exists()
    assert not path.with_name(path.name + ".etag").exists()
    return path.read_bytes()


def test_a_good_server(server: Server, tmp_path: Path) -> None:
    heard: list[tuple[int, int | None]] = []
    digest = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())
    got = get(
        server, tmp_path / "f", size=len(CONTENT), digest=digest, progress=lambda *now: heard.append(now)
    )
    assert got == CONTENT
    assert heard[0] == (0, len(CONTENT))
    assert heard[-1] == (len(CONTENT), len(CONTENT))


def test_broken_connections_go_on_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.play = ["break 30000", "break 1", "break 0", "503", "break 50000", "good"]
    assert get(server, tmp_path / "f") == CONTENT
    assert server.ranges == [
        None, "bytes=30000-", "bytes=30001-", "bytes=30001-", "bytes=30001-", "bytes=80001-",
    ]  # fmt: skip


def test_an_interrupted_command_goes_on(server: Server, tmp_path: Path) -> None:
    server.play = ["break 40000", "break 0"]
    with pytest.raises(UserError, match="the received bytes are kept, run the same command to continue"):
        get(server, tmp_path / "f")
    assert len(server.ranges) == ATTEMPTS
    assert not (tmp_path / "f").exists()
    server.play, server.ranges = ["good"], []
    assert get(server, tmp_path / "f") == CONTENT
    assert server.ranges == ["bytes=40000-"]


def test_nothing_is_said_to_be_kept_where_nothing_came(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        download("http://127.0.0.1:1/f", tmp_path / "f", wait=lambda seconds: None)
    assert "127.0.0.1:1/f: " in str(caught.value)
    assert "kept" not in str(caught.value)


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.play = ["break 40000", "no ranges"]
    assert get(server, tmp_path / "f") == CONTENT


def test_a_file_that_changed_is_not_patched_together(server: Server, tmp_path: Path) -> None:
    server.play = ["break 40000", "break 0"]
    with pytest.raises(UserError):
        get(server, tmp_path / "f")
    server.files["/f.bin"], server.tag, server.play = CONTENT[::-1], '"two"', ["good"]
    assert get(server, tmp_path / "f") == CONTENT[::-1]


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT + b"more")
    assert get(server, tmp_path / "f") == CONTENT


def test_a_length_that_is_too_long_ends_with_an_error(server: Server, tmp_path: Path) -> None:
    server.play = ["too long"]
    with pytest.raises(UserError, match="the received bytes are kept"):
        get(server, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_length_that_is_too_short_is_found_by_size_or_digest(server: Server, tmp_path: Path) -> None:
    server.play = ["too short"]
    with pytest.raises(UserError, match="announces 99001 bytes; 100000 are published"):
        get(server, tmp_path / "f", size=len(CONTENT))
    with pytest.raises(UserError, match=r"md5 is .*is published: not the file wanted"):
        get(server, tmp_path / "f", digest=Digest("md5", hashlib.md5(CONTENT).hexdigest()))
    assert not (tmp_path / "f").exists()


def test_a_wrong_file_is_not_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sha256 is"):
        get(server, tmp_path / "f", digest=Digest("sha256", "0" * 64))
    assert os.listdir(tmp_path) in ([], ["f.etag"])


@pytest.mark.parametrize(
    ("acts", "said"),
    [
        (["404"], "the server answers 404"),
        (["403"], "the server answers 403"),
        (["503"], "the server answers 503"),
        (["break 10", "wrong range"], "wanted the bytes from 10; the server sends bytes 15"),
        (["huge"], "more than 64 GiB are not fetched"),
    ],
)
def test_refusals_are_told_in_one_line(server: Server, tmp_path: Path, acts: list[str], said: str) -> None:
    server.play = acts
    with pytest.raises(UserError, match=said) as caught:
        get(server, tmp_path / "f")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "f").exists()


def test_without_a_length_the_connections_end_is_the_files(server: Server, tmp_path: Path) -> None:
    server.play = ["no length"]
    assert get(server, tmp_path / "f") == CONTENT


def test_endless_bytes_are_stopped(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "LARGEST_DOWNLOAD", 50_000)
    server.play = ["no length"]
    with pytest.raises(UserError, match="sends more than"):
        get(server, tmp_path / "f")


def test_a_server_that_falls_silent_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.3)
    monkeypatch.setattr(fetch, "ATTEMPTS", 2)
    server.play = ["stall"]
    with pytest.raises(UserError, match="timed out"):
        get(server, tmp_path / "f")


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="refused"):
        download("http://127.0.0.1:1/f", tmp_path / "f", wait=lambda seconds: None)
    for other in ("file:///etc/passwd", "ftp://x/y", "/etc/passwd"):
        with pytest.raises(UserError, match="wanted an address"):
            download(other, tmp_path / "f")


def test_our_own_full_disk_is_not_taken_for_the_network(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").mkdir()
    with pytest.raises(OSError, match="directory"):
        download(f"{server.url}/f.bin", tmp_path / "f", wait=lambda seconds: None)


def make_zip(path: Path, entries: dict[str, bytes], kind: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, content)
    return path


def make_tar(path: Path, entries: dict[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "") -> Path:
    with tarfile.open(path, "w:gz") as tape:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            tape.addfile(info, io.BytesIO(content))
    return path


NAMES = {make_zip: "a.zip", make_tar: "a.tgz"}


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_good_archive_lands_beside_what_is_there(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = make(tmp_path / NAMES[make], {"d/x.txt": b"x", "d/e/./y.txt": b"y" * 1000, "z": b""})
    (tmp_path / "out/d").mkdir(parents=True)
    (tmp_path / "out/d/mine").write_text("mine")
    written: list[int] = []
    assert unpack(archive, tmp_path / "out", most_bytes=MOST, progress=written.append) == 3
    assert sum(written) == 1001
    got = {
        str(p.relative_to(tmp_path / "out")): p.read_bytes()
        for p in (tmp_path / "out").rglob("*")
        if p.is_file()
    }
    assert got == {"d/x.txt": b"x", "d/e/y.txt": b"y" * 1000, "z": b"", "d/mine": b"mine"}


HOSTILE = ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil", "", ".", "a/..", "x" * 2000]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_no_path_leaves_the_folder(tmp_path: Path, make: Callable[..., Path], name: str) -> None:
    archive = make(tmp_path / NAMES[make], {"good": b"1", name: b"evil"})
    with pytest.raises(UserError):
        unpack(archive, tmp_path / "in/out", most_bytes=MOST)
    assert sorted(os.listdir(tmp_path)) == sorted([archive.name, "in"])
    assert os.listdir(tmp_path / "in") == ["out"]
    assert os.listdir(tmp_path / "in/out") == [], "something of a hostile archive was left"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    archive = make_tar(tmp_path / "a.tgz", {"l": b""}, kind, "/etc")
    with pytest.raises(UserError, match="link or a device"):
        unpack(archive, tmp_path / "out", most_bytes=MOST)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_zip_are_refused(tmp_path: Path, kind: int) -> None:
    archive = make_zip(tmp_path / "a.zip", {"l": b"/etc"}, kind)
    with pytest.raises(UserError, match="link or a device"):
        unpack(archive, tmp_path / "out", most_bytes=MOST)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_bombs_are_stopped_at_the_limit(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = make(tmp_path / NAMES[make], {"zeros": bytes(5 << 20)})
    assert archive.stat().st_size < 50_000
    with pytest.raises(UserError, match="unpacks to more than"):
        unpack(archive, tmp_path / "out", most_bytes=MOST)
    assert os.listdir(tmp_path / "out") == []


def test_a_zip_that_lies_about_its_size_is_damaged(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"zeros": bytes(5 << 20)})
    content = archive.read_bytes()
    archive.write_bytes(content.replace((5 << 20).to_bytes(4, "little"), (5).to_bytes(4, "little")))
    with pytest.raises(UserError, match="damaged"):
        unpack(archive, tmp_path / "out", most_bytes=MOST)


def test_a_header_of_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tgz", "w:gz", format=tarfile.PAX_FORMAT) as tape:
        info = tarfile.TarInfo("x")
        info.pax_headers = {"comment": "0" * (3 << 20)}
        tape.addfile(info, io.BytesIO())
    with pytest.raises(UserError, match="a header of"):
        unpack(tmp_path / "a.tgz", tmp_path / "out", most_bytes=MOST)


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tape:
        for _ in range(2):
            tape.addfile(tarfile.TarInfo("x"), io.BytesIO())
    with pytest.raises(UserError, match="two files of the name"):
        unpack(tmp_path / "a.tgz", tmp_path / "out", most_bytes=MOST)
    make_tar(tmp_path / "b.tgz", {"a": b"file", "a/b": b"in it"})
    with pytest.raises(UserError, match="two files of the name"):
        unpack(tmp_path / "b.tgz", tmp_path / "out", most_bytes=MOST)


def test_nothing_is_unpacked_through_a_link_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/d").symlink_to(tmp_path)
    archive = make_zip(tmp_path / "a.zip", {"d/x": b"x"})
    with pytest.raises(UserError, match="is a link"):
        unpack(archive, tmp_path / "out", most_bytes=MOST)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_every_cut_of_an_archive_is_found(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = make(tmp_path / NAMES[make], {"d/x": os.urandom(3000), "y": b"y"})
    content = archive.read_bytes()
    end = len(content) - (0 if make is make_zip else 60)  # the last bytes of a tar are padding
    for length in range(0, end, 97):
        archive.write_bytes(content[:length])
        with pytest.raises(UserError):
            unpack(archive, tmp_path / "out", most_bytes=MOST)
        assert os.listdir(tmp_path / "out") == []


QUIET = Console(quiet=True)


def test_the_whole_command_with_licence_and_citation(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AwA2-base.zip", "AwA2-data.zip"):
        made = make_zip(tmp_path / name, {f"Animals_with_Attributes2/{name}.txt": CONTENT})
        server.files[f"/awa2/{name}"] = made.read_bytes()
    root = tmp_path / "root"
    words = ["awa2", "--root", str(root), "--mirror", f"{server.url}/awa2"]
    command.main(words)
    said = capsys.readouterr().out
    assert "licence:" in said
    assert "please cite: Xian, Lampert" in said
    assert f"--images {root}" in said
    assert (root / "Animals_with_Attributes2/AwA2-data.zip.txt").read_bytes() == CONTENT
    assert not (root / "AwA2-data.zip").exists()
    server.play = ["404"]
    command.main(words)
    assert "unpacked before" in capsys.readouterr().out


def test_a_hostile_archive_stops_the_command_with_one_line(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["/xlsa17.zip"] = make_zip(tmp_path / "x.zip", {"../evil": b"evil"}).read_bytes()
    with pytest.raises(SystemExit) as ended:
        command.main(["xlsa17", "--root", str(tmp_path / "root"), "--mirror", server.url])
    assert ended.value.code == 2
    assert "would leave the folder" in capsys.readouterr().err
    assert not (tmp_path / "evil").exists()


def test_a_wrong_digest_of_cub_is_found(server: Server, tmp_path: Path) -> None:
    server.files["/CUB_200_2011.tgz"] = make_tar(tmp_path / "x.tgz", {"a": b"not birds"}).read_bytes()
    with pytest.raises(UserError, match="97eceeb196236b17998738112f37df78 is published"):
        command.fetch(command.Settings("cub", tmp_path / "root", mirror=server.url), QUIET)


def test_every_address_is_official_and_says_how_to_cite() -> None:
    hosts = {"cvml.ista.ac.at", "data.caltech.edu", "cs.brown.edu", "datasets.d2.mpi-inf.mpg.de"}
    for source in command.SOURCES.values():
        assert source.licence
        assert source.citation
        for archive in source.archives:
            assert archive.url.split("/")[2] in hosts
            assert archive.url.startswith("https://")
