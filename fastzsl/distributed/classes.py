"""`attended_scores` and the paper's losses with the classes sharded over processes; the results are the same.

Each process holds the rows of K and H of its own classes (`class_shard`), and their scores (B, C_own), which are
never sent. Either every process has the regions of all images, or each process has its own images and the regions
are gathered. No process has the scores of all C classes: the softmax of equation 4 needs only their maximum and
their sum, B numbers each.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from fastzsl import ops
from fastzsl.distributed.collectives import (
    Group,
    all_gather,
    all_gather_with_grad,
    all_reduce,
    all_reduce_with_grad,
    replicate,
)


def class_shard(classes: int, group: Group = None) -> slice:
    """The classes of this process: a contiguous range; the first processes have one more if P does not divide C.

    Raises:
        ValueError: fewer classes than processes.
    """
    processes, rank = dist.get_world_size(group), dist.get_rank(group)
    if classes < processes:
        raise ValueError(
            f"{classes} classes cannot be sharded over {processes} processes; wanted at least one each"
        )
    size, more = divmod(classes, processes)
    first = rank * size + min(rank, more)
    return slice(first, first + size + (rank < more))


def attended_scores(
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor | None,
    class_embeddings: Tensor,
    *,
    similarity: Literal["cosine", "dot"] = "cosine",
    scale: float | Tensor = 1.0,
    backend: str = "auto",
    own_images: bool = False,
    group: Group = None,
) -> Tensor:
    """Columns of `fastzsl.ops.attended_scores` that belong to this process's classes.

    Gradients are exact. Those of queries and class_embeddings are this process's rows of the unsharded gradient. Those
    of regions, decoder_weight and decoder_bias are complete and equal on every process.

    Args:
        regions: X (B, T, d), the same on every process; with `own_images` (B / P, T, d), this process's
            share of the batch, as many on each of the P processes.
        queries: H of this process's classes (C_own, d).
        decoder_weight, decoder_bias: W (m, d) and b (m,) or None, the same on every process.
        class_embeddings: K of this process's classes (C_own, m).
        similarity, scale, backend: as unsharded.
        own_images: gather the regions; their gradient then returns to the process that has the image.
        group: the processes that share the classes.

    Returns:
        scores (B, C_own).

    Raises:
        ValueError, TypeError: as unsharded; with own_images, numbers of images that differ.
    """
    if own_images:
        _same_count(regions, group)
        regions = all_gather_with_grad(regions, group)
    elif regions.requires_grad:
        regions = replicate(regions, group)
    weight = replicate(decoder_weight, group) if decoder_weight.requires_grad else decoder_weight
    bias = decoder_bias
    if bias is not None and bias.requires_grad:
        bias = replicate(bias, group)
    if isinstance(scale, Tensor) and scale.requires_grad:
        scale = replicate(scale, group)
    return ops.attended_scores(
        regions, queries, weight, bias, class_embeddings,
        similarity=similarity, scale=scale, backend=backend,
    )  # fmt: skip


def cross_entropy(scores: Tensor, labels: Tensor, classes: int, group: Group = None) -> Tensor:
    """Equation 4 from sharded scores: the mean over the batch of log sum_c exp s_c - s_y.

    Three all-reduces of B numbers forward, none backward: the gradient, softmax minus one-hot, is local.

    Args:
        scores: (B, C_own), this process's columns, multiplied by the temperature.
        labels: (B,) int64 ids among all `classes`, the same on every process.
        classes: C, the number of all classes, sharded as by `class_shard`.
        group: the processes that share the classes.

    Returns:
        A scalar, the same on every process.

    Raises:
        ValueError: scores are not those of this process's classes, or a label is out of range.
    """
    own = class_shard(classes, group)
    if scores.ndim != 2 or scores.shape[1] != own.stop - own.start:
        raise ValueError(
            f"scores has shape {tuple(scores.shape)}; wanted (B, {own.stop - own.start}), the columns of "
            f"classes {own.start} to {own.stop - 1}"
        )
    if labels.shape != scores.shape[:1]:
        raise ValueError(f"labels has shape {tuple(labels.shape)}; wanted ({len(scores)},)")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels run from {int(labels.min())} to {int(labels.max())}; wanted 0 to {classes - 1}"
        )
    return _CrossEntropy.apply(scores, labels, own.start, group)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, labels: Tensor, first: int, group: Group) -> Tensor:
        wide = scores.detach().to(torch.promote_types(scores.dtype, torch.float32))
        highest = all_reduce(wide.amax(1), group, dist.ReduceOp.MAX)
        exponents = (wide - highest[:, None]).exp_()
        place = labels - first
        is_own = (place >= 0) & (place < wide.shape[1])
        place = place.clamp(0, wide.shape[1] - 1)
        target = torch.where(is_own, wide.gather(1, place[:, None])[:, 0], 0)
        sums = all_reduce(torch.stack([exponents.sum(1), target]), group)
        ctx.save_for_backward(exponents.div_(sums[0][:, None]), place, is_own)
        ctx.dtype = scores.dtype
        return (sums[0].log() + highest - sums[1]).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        probabilities, place, is_own = ctx.saved_tensors
        rows = is_own.nonzero().flatten()
        gradient = probabilities.clone()
        gradient[rows, place[rows]] -= 1
        return (gradient * (grad / len(gradient))).to(ctx.dtype), None, None, None


def manifold_alignment(
    queries: Tensor, class_embeddings: Tensor, classes: int, group: Group = None
) -> Tensor:
    """Equation 5, the mean of (H H^T - K K^T)² over all C² pairs, without any C × C matrix.

    ‖HHᵀ - KKᵀ‖² = ‖HᵀH‖² - 2‖HᵀK‖² + ‖KᵀK‖², and those three sums over classes are sums over shards:
    d² + dm + m² numbers are sent, for any C. Large terms cancel if both graphs agree, so the sums are in float64.

    Args:
        queries: H of this process's classes (C_own, d).
        class_embeddings: K of this process's classes (C_own, m).
        classes: C, the number of all classes.
        group: the processes that share the classes.

    Returns:
        A float32 scalar (float64 for float64 inputs), the same on every process.
    """
    H, K = queries.double(), class_embeddings.double()
    parts = [H.mT @ H, H.mT @ K, K.mT @ K]
    joint = all_reduce_with_grad(torch.cat([part.flatten() for part in parts]), group)
    hh, hk, kk = joint.split([part.numel() for part in parts])
    total = hh.square().sum() - 2 * hk.square().sum() + kk.square().sum()
    return (total / classes**2).to(torch.promote_types(queries.dtype, torch.float32))


def semantic_reconstruction(
    reconstructed: Tensor, class_embeddings: Tensor, classes: int, group: Group = None
) -> Tensor:
    """Equation 6, the mean over all C classes of ‖k - h_d(h_e(k))‖², from this process's rows.

    One number is sent. The gradient of the decoder that computed `reconstructed` is only this process's part, see
    `sum_gradients`.
    """
    return all_reduce_with_grad((reconstructed - class_embeddings).square().sum(), group) / classes


def top_classes(scores: Tensor, count: int, classes: int, group: Group = None) -> tuple[Tensor, Tensor]:
    """The best classes of every image over all shards; P · count candidates per image are exchanged.

    Args:
        scores: (B, C_own).
        count: number of classes to return; all classes if there are fewer.
        classes: C, the number of all classes, sharded as by `class_shard`.
        group: the processes that share the classes.

    Returns:
        values (B, count) and class ids (B, count), best first, the same on every process. Equal scores are in the
        order of their ids.
    """
    own = class_shard(classes, group)
    processes = dist.get_world_size(group)
    kept = min(count, scores.shape[1])
    values, places = scores.detach().sort(dim=1, descending=True, stable=True)
    padded = values.new_full((len(scores), min(count, -(-classes // processes))), -torch.inf)
    ids = torch.full(padded.shape, classes, dtype=torch.long, device=scores.device)
    padded[:, :kept], ids[:, :kept] = values[:, :kept], places[:, :kept] + own.start
    everyone = all_gather(padded[None], group).transpose(0, 1).flatten(1)
    everyones_ids = all_gather(ids[None], group).transpose(0, 1).flatten(1)
    best, order = everyone.sort(dim=1, descending=True, stable=True)  # shards come in the order of ids
    count = min(count, classes)
    return best[:, :count], everyones_ids.gather(1, order)[:, :count]


def _same_count(regions: Tensor, group: Group) -> None:
    count = torch.tensor([len(regions), -len(regions)], device=regions.device)
    highest, lowest = all_reduce(count, group, dist.ReduceOp.MAX).tolist()
    if highest != -lowest:
        raise ValueError(
            f"processes have {-lowest} to {highest} images each; wanted as many on every process"
        )
