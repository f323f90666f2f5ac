"""Reading feature maps at AwA2's full size: shuffled batches from the file, compared with plain copies of memory.

    python bench/reading.py [--images 37322] [--folder DIR]

Makes a file of random numbers (37,322 × 2048 × 7 × 7 in float16, 7.5 GB). Then reads the same shuffled batches, in one
process and in turn, (a) as training does and (b) with numpy from a memory map of the same file. Prints GB/s, their
ratio (target: at least 0.5), the time that a training step of 50 ms waits for its data, and the largest resident
memory (target: under 2 GiB). Removes the file at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from fastzsl.features.prefetch import prefetch
from fastzsl.features.store import FileRegions
from fastzsl.features.writer import FeatureWriter
from fastzsl.files.hdf5 import read_hdf5


def make(path: Path, shape: tuple[int, int, int, int]) -> None:
    """A complete feature file of random numbers."""
    rng = np.random.default_rng(0)
    block = rng.standard_normal((64, *shape[1:]), dtype=np.float32).astype(np.float16)
    with FeatureWriter(path, shape, "float16", {"pictures": "random"}) as writer:
        for first in range(0, shape[0], 64):
            indices = np.arange(first, min(first + 64, shape[0]))
            block[:, 0, 0, 0] = rng.standard_normal(64)
            writer.write(indices, block[: len(indices)])
        writer.finish()


def resident() -> tuple[int, int]:
    """Bytes of this process's memory now, without and with resident pages of files."""
    status = Path("/proc/self/status").read_text()
    own, total = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("RssAnon", "VmRSS"))
    assert own is not None
    assert total is not None
    return 1024 * int(own[1]), 1024 * int(total[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=37322)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9, help="parts of the epoch, read in turn by both")
    parser.add_argument("--step", type=float, default=0.05, help="seconds of work in the waiting test")
    parser.add_argument("--folder", type=Path, default=None)
    settings = parser.parse_args()
    shape = (settings.images, 2048, 7, 7)
    with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
        path = Path(folder) / "awa2.h5"
        start = time.perf_counter()
        make(path, shape)
        size = path.stat().st_size
        print(f"made {size / 1e9:.2f} GB in {time.perf_counter() - start:.1f} s")
        print(json.dumps(measure(path, shape, settings.batch, settings.rounds, settings.step), indent=2))


def measure(
    path: Path, shape: tuple[int, int, int, int], batch: int, rounds: int, step: float
) -> dict[str, float]:
    """One shuffled epoch, part by part: read as training does, then the same images copied from the memory map."""
    contents = read_hdf5(path, ["checksum"], maps="feature_map")
    assert contents.maps is not None
    assert contents.maps.offsets is not None
    row, offsets = contents.maps.row_bytes, contents.maps.offsets
    first_time, later = (FileRegions(path, contents.maps, contents.arrays["checksum"]) for _ in range(2))
    later._unchecked[:] = False  # as in every epoch but the first
    order = torch.randperm(shape[0], generator=torch.Generator().manual_seed(0))
    seconds = {"ours, first epoch (checksums compared)": 0.0, "ours": 0.0, "memory map": 0.0}
    most_own = most = 0
    names = list(seconds)
    for turn, part in enumerate(order.tensor_split(rounds)):
        batches = part.split(batch)
        for name in names[turn % 3 :] + names[: turn % 3]:  # the first one may have to read from the disk
            source = first_time if "first" in name else later
            start = time.perf_counter()
            if name == "memory map":
                # A new map each time, because pages that stay mapped would count as memory of this process.
                plain = np.memmap(path, dtype=np.uint8, mode="r")
                for indices in batches:
                    copied = np.empty((len(indices), row), dtype=np.uint8)
                    for place, at in enumerate(offsets[indices].tolist()):
                        copied[place] = plain[at : at + row]
                del plain
            else:
                for _, maps, _ in prefetch(batches, source.regions):
                    first = maps[0, 0, 0]
                    own, total = resident()
                    most_own, most = max(most_own, own), max(most, total)
            seconds[name] += time.perf_counter() - start
        same = source.feature_maps(batches[0].numpy())[0].numpy().tobytes()
        at = int(offsets[int(batches[0][0])])
        with open(path, "rb") as file:
            file.seek(at)
            assert same == file.read(row), "the bytes differ"
        assert torch.isfinite(first)
    total_bytes = shape[0] * row
    waits = []
    for _, _, waited in prefetch(order[: 40 * batch].split(batch), source.regions):
        waits.append(waited)
        time.sleep(step)
    figures = {f"{name}, GB/s": total_bytes / s / 1e9 for name, s in seconds.items()}
    return {
        **{k: round(v, 2) for k, v in figures.items()},
        "ours / memory map": round(seconds["memory map"] / seconds["ours"], 2),
        "first epoch / memory map": round(
            seconds["memory map"] / seconds["ours, first epoch (checksums compared)"], 2
        ),
        f"wait a step of {step * 1000:.0f} ms, ms": round(1000 * float(np.mean(waits[2:])), 2),
        "largest resident memory, GiB": round(most / 2**30, 2),
        "of it not pages of a file, GiB": round(most_own / 2**30, 2),
        "batch, MB": round(batch * row / 1e6, 1),
        "cores": os.cpu_count() or 0,
    }


if __name__ == "__main__":
    main()
