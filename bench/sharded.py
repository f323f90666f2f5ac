"""One training step with the classes sharded over processes: time, memory, and bytes sent over the network.

    torchrun --nproc-per-node=2 -m bench.sharded --classes 21841

Every process starts from the same seed. Scores and loss are compared with those of one process before anything is
printed. On one machine the network is the loopback device, whose counter includes the packets' headers.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch
import torch.distributed as dist

from fastzsl import distributed, ops
from fastzsl.methods.attended import SemanticEncoder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=21841)
    parser.add_argument("--images", type=int, default=8, help="in the whole batch")
    parser.add_argument("--regions", type=int, default=49)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--embedding", type=int, default=300)
    parser.add_argument("--own-images", action="store_true", help="each process has its part of the batch")
    options = parser.parse_args()
    dist.init_process_group("gloo")
    C, B, T, d, m = options.classes, options.images, options.regions, options.features, options.embedding
    torch.manual_seed(0)
    regions = torch.randn(B, T, d) / d**0.5
    labels = torch.randint(0, C, (B,))
    embeddings = torch.nn.functional.normalize(torch.randn(C, m), dim=-1)
    encoder, decoder = SemanticEncoder(m, d), torch.nn.Linear(d, m)
    own = distributed.class_shard(C)
    mine = regions.chunk(dist.get_world_size())[dist.get_rank()] if options.own_images else regions
    before, start = _loopback(), time.perf_counter()
    with distributed.traffic() as traffic:
        queries = encoder(embeddings[own])
        scores = distributed.attended_scores(
            mine, queries, decoder.weight, decoder.bias, embeddings[own],
            scale=10.0, own_images=options.own_images,
        )  # fmt: skip
        loss = distributed.cross_entropy(10 * scores, labels, C)
        alignment = distributed.manifold_alignment(queries, embeddings[own], C)
        (loss + 0.02 * alignment).backward()
        distributed.sum_gradients(encoder.parameters())
    seconds = time.perf_counter() - start
    dist.barrier()
    wire = _loopback() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with torch.no_grad():
        whole = ops.attended_scores(
            regions, encoder(embeddings), decoder.weight, decoder.bias, embeddings, scale=10.0
        )
        truth = torch.nn.functional.cross_entropy(10 * whole, labels)
        error = float((scores - whole[:, own]).abs().max() + (loss - truth).abs())
    assert error < 1e-4, f"scores and loss differ by {error}: no figure for a wrong result"
    if dist.get_rank() == 0:
        print(f"{C} classes over {dist.get_world_size()} processes, {B} images, T={T}, d={d}, m={m}")
        for kind, sent in traffic.sent.items():
            print(f"  {kind}: {traffic.calls[kind]} calls, {sent / 1e6:.3f} MB a process")
        print(
            f"  counted {traffic.total / 1e6:.3f} MB a process; the wire carried {wire / 1e6:.1f} MB in all"
        )
        print(
            f"  {seconds:.2f} s a step, {peak:.2f} GiB resident, loss {float(truth):.4f}, error {error:.1e}"
        )
    dist.destroy_process_group()


def _loopback() -> int:
    """Bytes that the loopback device has sent, 0 if the system has no such counter."""
    counters = Path("/sys/class/net/lo/statistics/tx_bytes")
    return int(counters.read_text()) if counters.exists() else 0


if __name__ == "__main__":
    main()
