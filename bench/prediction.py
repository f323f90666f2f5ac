"""Speed of prediction over a folder of photographs, compared with the backbone, and with decoding and backbone.

    python -m bench.prediction RUN DIR [--images 512] [--rounds 5]

Four variants run in turn in one process, each on all cores:

- backbone: the run's backbone over images that are already decoded tensors in memory;
- decode + backbone: read, decode and resize the files and run the backbone on them; its output is not used. No
  prediction from files can be faster;
- predict: what `python -m fastzsl.predict RUN DIR` does, including names and scores;
- loader: a PyTorch `DataLoader` with one process per core, then backbone and model on all threads.

The first two use only the backbone of this package; one thread per core takes 4 images at a time. The scores of
predict and of loader are compared before the measurement. Prints images per second (medians over the rounds) and
ratios within a round.
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
from fastzsl.methods.method import ClassSet
from fastzsl.prediction.recogniser import Recogniser, list_images

BATCH = 4


class Files(Dataset[Tensor]):
    def __init__(self, paths: list[Path], recogniser: Recogniser) -> None:
        self.paths, self.preprocess = paths, recogniser.backbone.preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.preprocess(Image.open(self.paths[index]).convert("RGB"))


def on_every_core(work: Callable[[list[int]], object], count: int) -> None:
    """Call `work` with a few of `count` indices at a time, on one thread per core."""
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
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    recogniser = fastzsl.load(options.run, accelerator="cpu")
    found = list_images(options.folder)
    paths = [found[i] for i in torch.linspace(0, len(found) - 1, min(options.images, len(found))).int()]
    files, backbone = Files(paths, recogniser), recogniser.backbone
    decoded = torch.stack([files[i] for i in range(len(files))])
    candidates = recogniser.own.candidates()
    classes = ClassSet(candidates.embeddings, candidates.training_ids)

    def loader() -> Tensor:
        scores = []
        with torch.inference_mode():
            scorer = recogniser.model.classifier(classes)
            for batch in DataLoader(files, batch_size=32, num_workers=torch.get_num_threads()):
                regions = backbone(batch).half().flatten(2).mT  # float16 as the stored features of training
                scores.append(scorer(regions).float() + candidates.bias)
        return torch.cat(scores)

    def predict() -> Tensor:
        return torch.stack([p.scores for p in recogniser.stream(paths, candidates)])

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
        f"{len(paths)} images, {backbone.name}, {len(candidates.names)} classes, {torch.get_num_threads()} "
        f"threads, scores within {error:.1e}"
    )
    for name in names:
        rate = len(paths) / statistics.median(seconds[name])
        ratios = [mine / other for mine, other in zip(seconds[name], seconds["predict"])]
        print(f"{name:18} {rate:7.1f} images/s   predict is {statistics.median(ratios):.2f} times as fast")


if __name__ == "__main__":
    main()
