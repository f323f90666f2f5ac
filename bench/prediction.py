"""Prediction over a folder of photographs against its backbone alone, and against decoding and backbone alone.

    python -m bench.prediction RUN DIR [--pictures 512] [--rounds 5]

Rivals, all on every core, in one process and in turn:

- backbone: the run's backbone over pictures that are already decoded tensors in memory;
- decode + backbone: files read, decoded, resized and passed through the backbone, and the result thrown away,
  which is the fastest that any prediction from files could be;
- predict: what `python -m fastzsl.predict RUN DIR` does, down to names and scores;
- loader: a PyTorch `DataLoader` with a process a core, then backbone and model on all threads.

The first two share nothing with this package but the backbone: a thread a core takes 4 pictures at a time. Before
anything is timed, predict's scores are compared with the loader's. Prints pictures a second, medians over the
rounds, and ratios from the same round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import fastzsl
from fastzsl.prediction.recogniser import Predictor, list_pictures

BATCH = 4


class Files(Dataset[Tensor]):
    def __init__(self, paths: list[Path], predictor: Predictor) -> None:
        self.paths, self.preprocess = paths, predictor.backbone.preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.preprocess(Image.open(self.paths[index]).convert("RGB"))


def on_every_core(work: Callable[[list[int]], object], count: int) -> None:
    """`work` on a few numbers at a time, a thread a core."""
    cores = torch.get_num_threads()

    def alone(part: list[int]) -> None:
        torch.set_num_threads(1)
        with torch.inference_mode():
            work(part)

    with ThreadPoolExecutor(cores) as pool:
        parts = torch.arange(count).split(BATCH)
        list(pool.map(lambda part: alone(part.tolist()), parts))
    torch.set_num_threads(cores)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    predictor = fastzsl.load(options.run, accelerator="cpu")
    found = list_pictures(options.folder)
    paths = [found[i] for i in torch.linspace(0, len(found) - 1, min(options.pictures, len(found))).int()]
    files, backbone = Files(paths, predictor), predictor.backbone
    decoded = torch.stack([files[i] for i in range(len(files))])
    candidates = predictor.own.candidates()

    def loader() -> Tensor:
        scores = []
        with torch.inference_mode():
            for batch in DataLoader(files, batch_size=32, num_workers=torch.get_num_threads()):
                maps = backbone(batch).half()  # as the features of training are kept
                scores.append(predictor.model(maps, candidates.embeddings) + candidates.bias)
        return torch.cat(scores)

    def predict() -> Tensor:
        return torch.stack([p.scores for p in predictor.stream(paths, candidates)])

    error = float((predict() - loader()).abs().max())
    assert error < 1e-3, f"scores differ by {error}: no figure for a wrong result"
    rivals: dict[str, Callable[[], object]] = {
        "backbone": lambda: on_every_core(lambda part: backbone(decoded[part]), len(paths)),
        "decode + backbone": lambda: on_every_core(
            lambda part: backbone(torch.stack([files[i] for i in part])), len(paths)
        ),
        "predict": predict,
        "loader": loader,
    }
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    names = list(rivals)
    for turn in range(options.rounds):
        for name in names[turn % 4 :] + names[: turn % 4]:
            start = time.perf_counter()
            rivals[name]()
            seconds[name].append(time.perf_counter() - start)
    print(
        f"{len(paths)} pictures, {backbone.name}, {len(candidates.names)} classes, {torch.get_num_threads()} "
        f"threads, scores within {error:.1e}"
    )
    for name in names:
        rate = len(paths) / statistics.median(seconds[name])
        ratios = [mine / other for mine, other in zip(seconds[name], seconds["predict"])]
        print(f"{name:18} {rate:7.1f} pictures/s   predict is {statistics.median(ratios):.2f} times as fast")


if __name__ == "__main__":
    main()
