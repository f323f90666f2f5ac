"""Several processes extract one file together: the file of one process, also after a kill of one of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from fastzsl.errors import UserError
from fastzsl.features.backbones import Backbone, load_backbone
from fastzsl.features.extraction import extract_features
from fastzsl.features.sharded_extraction import extract_share, part_path

ARRAYS = {"labels": np.arange(11), "trainval_loc": np.arange(5)}


class Images:
    """Eleven images; remembers which were asked for."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._pixels = rng.integers(0, 256, (11, 20, 24, 3), dtype=np.uint8)
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self._pixels)

    def image(self, index: int) -> Image.Image:
        self.asked.append(index)
        return Image.fromarray(self._pixels[index])

    def mask(self, index: int) -> None:
        return None

    def describe(self, index: int) -> str:
        return f"image {index}"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("timm/test_resnet", "random")


def _contents(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][:] for name in file if name != "checksum"}


def _agree(found: Path, wanted: Path) -> None:
    one, other = _contents(found), _contents(wanted)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name].astype(float), other[name].astype(float), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("world", [2, 3, 40])
def test_the_file_is_that_of_one_process(tmp_path: Path, backbone: Backbone, world: int) -> None:
    whole, shared = tmp_path / "whole.h5", tmp_path / "shared.h5"
    options = {"fingerprint": "f", "weights": "random", "arrays": ARRAYS, "batch_size": 2}
    extract_features(Images(), backbone, whole, **options)
    images = Images()

    def work(rank: int) -> None:
        extract_share(images, backbone, shared, rank=rank, world=world, **options)

    with ThreadPoolExecutor(world) as pool:
        list(pool.map(work, range(world)))
    _agree(shared, whole)
    assert sorted(images.asked) == list(range(11))
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["shared.h5", "whole.h5"]
    extract_features(images, backbone, shared, **options)  # the same identity: nothing is done again
    assert len(images.asked) == 11
    with pytest.raises(UserError, match="holds other features"):
        extract_share(images, backbone, shared, rank=0, world=2, **(options | {"fingerprint": "g"}))


def test_a_process_that_was_stopped_goes_on_and_the_others_do_nothing_again(
    tmp_path: Path, backbone: Backbone
) -> None:
    path = tmp_path / "shared.h5"
    images = Images()

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    extract_share(images, backbone, path, rank=1, world=2, batch_size=2)
    assert part_path(path, 1, 2).exists()
    with pytest.raises(KeyboardInterrupt):
        extract_share(images, backbone, path, rank=0, world=2, batch_size=2, progress=stop)
    assert not path.exists()
    images.asked.clear()
    extract_share(images, backbone, path, rank=1, world=2, batch_size=2)
    assert images.asked == []
    extract_share(images, backbone, path, rank=0, world=2, batch_size=2)
    assert len(images.asked) == 4  # of its six images two were done
    whole = tmp_path / "whole.h5"
    extract_features(images, backbone, whole, batch_size=2)
    _agree(path, whole)


@pytest.mark.slow
def test_torchrun_shares_the_work(tmp_path: Path) -> None:
    for label in range(4):
        folder = tmp_path / "data" / "images" / f"c{label}"
        folder.mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (30, 30), (60 * label, 80 * i, 7)).save(folder / f"{i}.png")
    rows = "".join(f"c{i},{'unseen' if i > 2 else 'seen'},{i & 1},{i >> 1}\n" for i in range(4))
    (tmp_path / "data" / "classes.csv").write_text("class,split,a,b\n" + rows)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    launcher = ["torch.distributed.run", "--nproc-per-node=2", "--master-port", port, "-m", "fastzsl.extract"]
    flags = ["--dataset", "folder", "--root", str(tmp_path / "data"), "--backbone", "timm/test_resnet"]
    flags += ["--backbone-weights", "random", "--device", "cpu", "--out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for out, command in (("two.h5", launcher), ("one.h5", ["fastzsl.extract"])):
        subprocess.run(
            [sys.executable, "-P", "-m", *command, *flags, str(tmp_path / out)],
            env=environment, check=True, timeout=120, capture_output=True,
        )  # fmt: skip
    with h5py.File(tmp_path / "two.h5") as two, h5py.File(tmp_path / "one.h5") as one:
        assert set(two) == set(one)
        np.testing.assert_allclose(two["feature_map"][:], one["feature_map"][:], rtol=2e-3, atol=2e-3)
    assert not list(tmp_path.glob(".two*"))
