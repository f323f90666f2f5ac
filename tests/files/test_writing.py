"""Files of our own: whole, one writer never in another's way, and nothing that a reader could wait for for ever."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastzsl.data.descriptions.reading import read_descriptions
from fastzsl.data.formats.folder import image_folder, read_image
from fastzsl.errors import UserError
from fastzsl.files.atomic import write_atomically, write_text_atomically
from fastzsl.files.hdf5 import read_hdf5
from fastzsl.files.matlab import read_mat
from fastzsl.files.tensors import load_tensors, save_tensors


def test_two_writers_of_one_file_do_not_share_a_temporary_one(tmp_path: Path) -> None:
    path, both_open = tmp_path / "f.txt", threading.Barrier(2, timeout=30)

    def write(text: str) -> None:
        def half_by_half(partial: Path) -> None:
            with open(partial, "w") as file:
                file.write(text[:1000])
                file.flush()
                both_open.wait()
                file.write(text[1000:])

        write_atomically(path, half_by_half)

    threads = [threading.Thread(target=write, args=(letter * 2000,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in ("a" * 2000, "b" * 2000)
    assert os.listdir(tmp_path) == ["f.txt"]


def test_what_killed_writers_left_is_removed_and_living_ones_keep_theirs(tmp_path: Path) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from fastzsl.files.atomic import write_atomically\n"
        "def write(p): p.write_text('x'); print('there', flush=True); time.sleep(60)\n"
        "write_atomically(Path(sys.argv[1]), write)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "f.txt")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "there\n"
    write_text_atomically(tmp_path / "f.txt", "ours")
    assert len(list(tmp_path.glob(".f.txt.*.partial"))) == 1, "a living process's"
    child.kill()
    child.wait()
    child.stdout.close()
    write_text_atomically(tmp_path / "f.txt", "again")
    assert os.listdir(tmp_path) == ["f.txt"]


def test_tensors_without_a_digest_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"a": torch.ones(3)})
    assert torch.equal(load_tensors(path)["a"], torch.ones(3))
    content = path.read_bytes()
    at = content.index(b'"digest"')
    for damaged in (
        content[: at + 1] + b"x" + content[at + 2 :],  # the entry's name
        content.replace(b"__metadata__", b"__metadat___") if b"__metadata__" in content else content,
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"no digest|not a whole safetensors file"):
            load_tensors(path)
    save_file(load_file_or_ones(path), path)
    with pytest.raises(UserError, match="no digest in it; damaged, or not written by this program"):
        load_tensors(path)


def load_file_or_ones(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except Exception:
        return {"a": torch.ones(3)}


READERS = [
    read_image,
    read_descriptions,
    read_hdf5,
    lambda p: read_mat(p, ["att"]),
    load_tensors,
]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["FIFO", "device", "socket"])
def test_special_files_are_refused_by_their_kind(read, kind: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "x.png"
    listening = socket.socket(socket.AF_UNIX)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        listening.bind(str(path))
    with pytest.raises(UserError, match=f"x.png is a {kind}; wanted"):
        read(path)
    listening.close()


def test_a_fifo_among_the_images_is_named(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("a", "b", "c"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (4, 4)).save(tmp_path / "images" / name / f"{i}.png")
    (tmp_path / "classes.csv").write_text("class,split,x\na,seen,1\nb,seen,2\nc,unseen,3\n")
    os.mkfifo(tmp_path / "images" / "a" / "9.png")
    data = image_folder(tmp_path)
    assert data.images is not None
    with pytest.raises(UserError, match=r"9\.png is a FIFO; wanted an image"):
        [data.images.image(i) for i in range(len(data.images))]
    assert "9.png is a FIFO" in image_folder(tmp_path, skip_bad_images=True).images.skipped[0]  # type: ignore[union-attr]


def test_nothing_is_left_open_at_the_end(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["a"] = [1, 2]
    script = "import sys, pathlib, fastzsl.files.hdf5 as h; h.read_hdf5(pathlib.Path(sys.argv[1]), ['a'])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path / "f.h5")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0
    assert done.stderr == ""
