"""Extraction: the backbone's numbers, whole or absent under any kill, and no finished image done again."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from fastzsl.errors import UserError
from fastzsl.features import writer as feature_writer
from fastzsl.features.extraction import extract_features, weights_name
from fastzsl.features.opening import load_regions
from fastzsl.features.writer import FeatureWriter, partial_path
from tests.features.feature_files import Noise, tiny_backbone


def expected(count: int) -> np.ndarray:
    backbone, images = tiny_backbone(), Noise(count)
    with torch.inference_mode():
        return (
            backbone(torch.stack([backbone.preprocess(images.image(i)) for i in range(count)])).half().numpy()
        )


def stored(path: Path) -> np.ndarray:
    """As the loaders of the dense-attention papers read it."""
    with h5py.File(path, "r") as file:
        return np.array(file.get("feature_map"))


def test_the_file_holds_the_backbones_maps_in_the_papers_convention(tmp_path: Path) -> None:
    labels = np.arange(11)
    extract_features(Noise(11), tiny_backbone(), tmp_path / "f.h5", batch_size=4, arrays={"labels": labels})
    np.testing.assert_allclose(stored(tmp_path / "f.h5"), expected(11), atol=2e-3)
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["feature_map"].chunks == (1, 5, 4, 4)
        assert file["feature_map"].dtype == np.float16
        np.testing.assert_array_equal(file["labels"], labels)
    regions = load_regions(tmp_path / "f.h5", 11).regions(torch.tensor([10, 2]))
    np.testing.assert_array_equal(
        regions.numpy(), stored(tmp_path / "f.h5")[[10, 2]].reshape(2, 5, 16).transpose(0, 2, 1)
    )
    assert sorted(os.listdir(tmp_path)) == ["f.h5"]


def in_a_child(work: object) -> int:
    """Run in a fork; the wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()  # type: ignore[operator]
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


COUNT, BATCH = 7, 2


@pytest.mark.parametrize("torn", [False, True], ids=["before the write", "half way through it"])
def test_killed_at_every_write_it_resumes_and_ends_right(
    tmp_path: Path, torn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill it at its first write, resume and kill at the second of that run, and so on until it is done."""
    path, truth = tmp_path / "f.h5", expected(COUNT)
    torch.set_num_threads(1)
    written: list[int] = []
    for attempt in range(3 * COUNT):
        fatal = 1 + attempt % 4
        images = Noise(COUNT)

        def work(fatal: int = fatal, images: Noise = images) -> None:
            calls, write = 0, os.pwrite

            def deadly(descriptor: int, view: memoryview, start: int) -> int:
                nonlocal calls
                calls += 1
                if calls == fatal:
                    if torn:
                        write(descriptor, view[: len(view) // 2], start)
                    os.kill(os.getpid(), signal.SIGKILL)
                return write(descriptor, view, start)

            os.pwrite = deadly  # type: ignore[assignment]
            extract_features(images, tiny_backbone(), path, batch_size=BATCH)

        status = in_a_child(work)
        if status == 0:
            break
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert not path.exists(), "a file that looks whole was left behind"
        with FeatureWriter(path, (COUNT, 5, 4, 4), "float16", identity()) as writer:
            written.append(COUNT - len(writer.missing))
        assert written == sorted(written), "a finished image was lost"
    assert path.exists()
    np.testing.assert_allclose(stored(path), truth, atol=2e-3)
    assert sorted(os.listdir(tmp_path)) == ["f.h5"]


def identity() -> dict[str, str | int]:
    return {
        "pictures": "", "backbone": "tiny", "weights": "published", "image_size": 16, "engine": "torch",
        "precision": "float32",
    }  # fmt: skip


@pytest.mark.parametrize("where", ["create", "link", "flock", "fsync", "replace"])
def test_killed_between_the_writes_it_ends_right_too(tmp_path: Path, where: str) -> None:
    path = tmp_path / "f.h5"

    def work() -> None:
        def deadly(*_: object, **__: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        place = {"create": h5py.h5d, "flock": feature_writer.fcntl}.get(where, os)
        setattr(place, where, deadly)
        extract_features(Noise(COUNT), tiny_backbone(), path, batch_size=BATCH)

    assert in_a_child(work) != 0
    assert not path.exists()
    images = Noise(COUNT)
    extract_features(images, tiny_backbone(), path, batch_size=BATCH)
    np.testing.assert_allclose(stored(path), expected(COUNT), atol=2e-3)
    assert not partial_path(path).exists()
    if where in ("fsync", "replace"):
        assert images.drawn == [], "finished images were done again"


def test_finished_images_are_not_done_again(tmp_path: Path) -> None:
    path, failing = tmp_path / "f.h5", Noise(9)
    draw = failing.image

    def image(index: int) -> Image.Image:
        if index == 6:
            raise UserError("image 6 is broken")
        return draw(index)

    failing.image = image  # type: ignore[method-assign]
    with pytest.raises(UserError, match="image 6 is broken"):
        extract_features(failing, tiny_backbone(), path, batch_size=2)
    assert not path.exists()
    images, heard = Noise(9), []
    extract_features(images, tiny_backbone(), path, batch_size=2, progress=heard.append)
    assert sorted(images.drawn) == [6, 7, 8]
    assert heard == [6, 2, 1]


def test_an_unfinished_file_of_other_images_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with FeatureWriter(path, (4, 5, 4, 4), "float16", {**identity(), "pictures": "others"}):
        pass
    with pytest.raises(UserError, match="unfinished features of others: the images differ"):
        extract_features(Noise(4), tiny_backbone(), path)


def test_a_renamed_unfinished_file_is_not_taken_for_whole(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with FeatureWriter(path, (4, 5, 4, 4), "float16", {}) as writer:
        writer.write(np.array([1, 2]), np.ones((2, 5, 4, 4)))
    partial_path(path).rename(path)
    with pytest.raises(UserError, match=r"2 of 4 images are missing, first \[0, 3\]"):
        load_regions(path)


def test_two_at_once_share_the_work_of_one(tmp_path: Path) -> None:
    path, images = tmp_path / "f.h5", Noise(60)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(extract_features, images, tiny_backbone(), path) for _ in range(2)]
    for one in both:
        one.result()
    np.testing.assert_allclose(stored(path), expected(60), atol=2e-3)
    assert sorted(images.drawn) == list(range(60)), "an image was done twice"


@pytest.mark.parametrize(("scale", "said"), [(float("nan"), "not finite"), (1e6, "--dtype float32")])
def test_features_that_do_not_fit_are_refused(tmp_path: Path, scale: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        extract_features(Noise(3), tiny_backbone(scale), tmp_path / "f.h5")
    assert not (tmp_path / "f.h5").exists()


def test_float32_has_room_for_what_float16_refuses(tmp_path: Path) -> None:
    extract_features(Noise(3), tiny_backbone(1e6), tmp_path / "f.h5", dtype="float32")
    assert stored(tmp_path / "f.h5").dtype == np.float32
    assert np.abs(stored(tmp_path / "f.h5")).max() > 1e5


def test_a_disk_that_is_too_small_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        feature_writer.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 30})
    )
    with pytest.raises(UserError, match=r"the features need 7\.0 GiB; 1\.0 GiB are free"):
        FeatureWriter(tmp_path / "f.h5", (37322, 2048, 7, 7), "float16", {})
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fills_up_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write, room = tmp_path / "f.h5", os.pwrite, 1000

    def full(descriptor: int, view: memoryview, start: int) -> int:
        nonlocal room
        got = min(room, len(view))
        if got == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        room -= got
        return write(descriptor, view[:got], start)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        extract_features(Noise(20), tiny_backbone(), path)
    monkeypatch.setattr(os, "pwrite", write)
    images = Noise(20)
    extract_features(images, tiny_backbone(), path)
    np.testing.assert_allclose(stored(path), expected(20), atol=2e-3)
    assert 0 < len(images.drawn) < 20


def test_the_kernels_own_limit_on_file_size_is_a_plain_error(tmp_path: Path) -> None:
    """The same with a real refusal of the operating system, in a process of its own."""
    script = textwrap.dedent(f"""
        import resource, signal, sys
        from pathlib import Path
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        from fastzsl.features.extraction import extract_features
        from fastzsl.command.exits import exits_with_message
        from tests.features.feature_files import Noise, tiny_backbone
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
        exits_with_message(extract_features)(Noise(100), tiny_backbone(), Path({str(tmp_path / "f.h5")!r}))
    """)
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("fastzsl: error: ")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "f.h5").exists()


def test_weights_are_named_by_their_content(tmp_path: Path) -> None:
    assert weights_name(None) == "published"
    assert weights_name("random") == "random"
    for folder, content in (("a", b"1"), ("b", b"2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.pt").write_bytes(content)
    assert weights_name(str(tmp_path / "a/w.pt")) != weights_name(str(tmp_path / "b/w.pt"))
    with pytest.raises(UserError, match="no file"):
        weights_name(str(tmp_path / "c"))


@pytest.mark.parametrize(("count", "size"), [(1, 3), (7, 3), (9, 3), (40, 16)])
def test_every_image_is_drawn_once_and_lands_in_its_row(tmp_path: Path, count: int, size: int) -> None:
    images = Noise(count)
    extract_features(images, tiny_backbone(), tmp_path / "f.h5", batch_size=size)
    assert sorted(images.drawn) == list(range(count))
    np.testing.assert_allclose(stored(tmp_path / "f.h5"), expected(count), atol=2e-3)
