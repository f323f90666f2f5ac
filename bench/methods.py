"""Time training and the whole grid search of the linear methods at a benchmark's size: `python -m bench.methods`.

The data are random, so no data set is needed: 7,000 training images of 150 classes, 2,048 features, and class
embeddings of size 312, as in CUB. Class means are a rectified linear map of the class embeddings, so that there is
something to learn. A search tries every point of the method's grid on one problem of held-out seen classes, scored by
AUSUC, in one process. Methods that do not ask for the full grid get a search over one setting after the other. Then
the best settings are trained once on all seen classes. Processor seconds are the sum over all threads; on a shared
machine they are more reliable than the clock.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.data.held_out import HeldOutClasses, SeenClassesOnly
from fastzsl.features.sources import MemoryRegions
from fastzsl.methods import METHODS
from fastzsl.methods.context import Context
from fastzsl.methods.method import ClassSet, Method, Model, new_model
from fastzsl.methods.problem import Problem
from fastzsl.protocol.metrics import TestScores, seen_unseen_curve

LINEAR = ("eszsl", "sae", "lesae", "ale", "sje", "devise", "conse", "sync", "sse")
LIMIT = 60.0
"""Seconds on two cores that a method should not exceed."""


def random_data(
    images: int = 7000, seen: int = 150, unseen: int = 50, features: int = 2048, embedding: int = 312
) -> ZeroShotDataset:
    """A data set with `images` training images, and two test images for each class."""
    generator = torch.Generator().manual_seed(0)
    classes = seen + unseen
    descriptions = torch.nn.functional.normalize(torch.randn(classes, embedding, generator=generator), dim=1)
    means = (descriptions @ torch.randn(embedding, features, generator=generator)).relu()
    labels = torch.cat([torch.arange(images) % seen, torch.arange(2 * classes) % classes])
    maps = (means[labels] + torch.randn(len(labels), features, generator=generator)).relu()
    test = torch.arange(images, len(labels))
    of_seen = labels[test] < seen
    return ZeroShotDataset(
        name="random",
        class_names=tuple(f"class {i}" for i in range(classes)),
        class_embeddings=descriptions,
        seen=torch.arange(seen),
        unseen=torch.arange(seen, classes),
        labels=labels,
        trainval=torch.arange(images),
        test_seen=test[of_seen],
        test_unseen=test[~of_seen],
        regions=MemoryRegions(maps[:, :, None, None]),
    )


def train(method: Method, problem: Problem) -> Model:
    model = new_model(method, problem.feature_dim, problem.embedding_dim, 0)
    method.fit(model, problem, Context())
    return model.eval()


@torch.no_grad()
def area(model: Model, data: ZeroShotDataset) -> float:
    """AUSUC on a problem's own test images."""
    ids = torch.full((data.num_classes,), -1)
    ids[data.seen] = torch.arange(len(data.seen))
    score = model.classifier(ClassSet(data.class_embeddings, ids))
    parts = [score(data.read_regions(part).float().mean(1)) for part in (data.test_seen, data.test_unseen)]
    labels = [data.labels[part] for part in (data.test_seen, data.test_unseen)]
    return seen_unseen_curve(
        TestScores(parts[0], labels[0], parts[1], labels[1], data.seen, data.unseen)
    ).area


def search(method: Method, data: ZeroShotDataset) -> tuple[Method, int]:
    """The best settings of the method's grid on `data`, and how many were tried."""
    problem = Problem(data, method.descriptions)
    tried: dict[str, float] = {}

    def judge(one: Method) -> float:
        key = json.dumps(one.settings())
        if key not in tried:
            tried[key] = area(train(one, problem), data)
        return tried[key]

    if method.full_grid:
        return max((replace(method, **point) for point in _points(method.grid)), key=judge), len(tried)
    for name, values in method.grid.items():
        method = max((replace(method, **{name: value}) for value in values), key=judge)
    return method, len(tried)


def _points(grid: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.methods",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("methods", nargs="*", help=f"any of {', '.join(LINEAR)}; none: all of them")
    options = parser.parse_args()
    data = random_data()
    held_out = SeenClassesOnly(data).problem(HeldOutClasses(0, 0, 3))
    print(
        f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads; load before {os.getloadavg()[0]:.1f}"
    )
    print(
        f"{'method':8} {'settings tried':>14} {'search, s':>10} {'training, s':>12} {'together, s':>12} "
        f"{'processor, s':>13}"
    )
    for name in options.methods or LINEAR:
        begin, worked = time.perf_counter(), time.process_time()
        chosen, count = search(METHODS[name](), held_out)
        middle = time.perf_counter()
        train(chosen, Problem(data, chosen.descriptions))
        end = time.perf_counter()
        verdict = "" if end - begin <= LIMIT else f"  above {LIMIT:.0f}"
        print(
            f"{name:8} {count:14} {middle - begin:10.1f} {end - middle:12.1f} {end - begin:12.1f} "
            f"{time.process_time() - worked:13.1f}{verdict}",
            flush=True,
        )


if __name__ == "__main__":
    main()
