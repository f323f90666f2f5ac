"""One of several processes that compute everything sharded and keep the results; run by test_classes.py.

Arguments: rank, processes, the file that they meet at, the folder for the results, the seed.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from problem import CLASSES, Problem

from fastzsl import distributed
from fastzsl.distributed.collectives import replicate


def step(problem: Problem, similarity: str, own_images: bool) -> dict[str, torch.Tensor]:
    """Equation 7 with everything sharded: results and every gradient."""
    own = distributed.class_shard(CLASSES)
    rank, processes = dist.get_rank(), dist.get_world_size()
    regions = problem.regions.chunk(processes)[rank] if own_images else problem.regions
    regions = regions.clone().requires_grad_()
    K = problem.embeddings[own].clone().requires_grad_()
    with distributed.traffic() as traffic:
        H = problem.encoder(K)
        scores = distributed.attended_scores(
            regions, H, problem.decoder.weight, problem.decoder.bias, K,
            similarity=similarity, scale=2.0, own_images=own_images, backend="eager",
        )  # fmt: skip
        classification = distributed.cross_entropy(5 * scores, problem.labels, CLASSES)
        alignment = distributed.manifold_alignment(H, K, CLASSES)
        weight, bias = replicate(problem.decoder.weight), replicate(problem.decoder.bias)
        reconstructed = torch.nn.functional.linear(H, weight, bias)
        reconstruction = distributed.semantic_reconstruction(reconstructed, K, CLASSES)
        (classification + 0.3 * alignment + 0.7 * reconstruction).backward()
        distributed.sum_gradients(problem.encoder.parameters())
    values, ids = distributed.top_classes(scores, 4, CLASSES)
    return {
        "scores": scores.detach(),
        "classification": classification.detach(),
        "alignment": alignment.detach(),
        "reconstruction": reconstruction.detach(),
        "top values": values,
        "top ids": ids,
        "regions": regions.grad,
        "embeddings": K.grad,
        "weight": problem.decoder.weight.grad,
        "bias": problem.decoder.bias.grad,
        **{f"encoder {name}": p.grad for name, p in problem.encoder.named_parameters()},
        "sent": torch.tensor([traffic.sent[kind] for kind in sorted(traffic.sent)]),
    }


def refusals(problem: Problem) -> dict[str, str]:
    """Messages of what must be refused, on every process alike."""
    rank = dist.get_rank()
    queries = torch.zeros(2, 6, dtype=torch.float64)
    own = distributed.class_shard(CLASSES)
    columns = own.stop - own.start
    calls = {
        "uneven": lambda: distributed.attended_scores(
            problem.regions[: 2 + rank], queries, torch.zeros(5, 6), None, queries, own_images=True
        ),
        "columns": lambda: distributed.cross_entropy(
            torch.zeros(3, columns + 1), torch.zeros(3).long(), CLASSES
        ),
        "label": lambda: distributed.cross_entropy(
            torch.zeros(3, columns), torch.full((3,), CLASSES), CLASSES
        ),
        "labels": lambda: distributed.cross_entropy(torch.zeros(3, columns), torch.zeros(2).long(), CLASSES),
        "few": lambda: distributed.class_shard(1),
    }
    messages = {}
    for name, call in calls.items():
        try:
            call()
            messages[name] = ""
        except ValueError as error:
            messages[name] = str(error)
    return messages


def main() -> None:
    rank, processes, meeting, folder, seed = sys.argv[1:]
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=int(processes),
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    results: dict[str, object] = {
        f"{similarity} {own_images}": step(Problem(int(seed)), similarity, own_images)
        for similarity in ("cosine", "dot")
        for own_images in (False, True)
    }
    results["refusals"] = refusals(Problem(int(seed)))
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
