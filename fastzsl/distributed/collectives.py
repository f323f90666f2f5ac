"""The collectives that sharding needs, with their gradients, and a count of the bytes that they send.

The gradient of a gather is a reduce-scatter. The gradient of a tensor that every process uses is the sum of their
gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Group = dist.ProcessGroup | None
"""None is the default group of all processes."""

# The second of each pair is the name before PyTorch 2.14.
_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass
class Traffic:
    """Bytes that one process sends in the collectives so far, as ring algorithms do it.

    An all-reduce of n bytes over P processes sends 2n(P-1)/P. A gather to n bytes, or a reduce-scatter of n bytes,
    sends n(P-1)/P. No algorithm can send less.
    """

    sent: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(self.sent.values())

    def add(self, kind: str, sent: float) -> None:
        self.sent[kind] = self.sent.get(kind, 0.0) + sent
        self.calls[kind] = self.calls.get(kind, 0) + 1


_counters: list[Traffic] = []


@contextmanager
def traffic() -> Iterator[Traffic]:
    """Count the collectives of this process inside the block, those of the backward pass included."""
    counter = Traffic()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)


def _count(kind: str, numbers: int, dtype_size: int, group: Group) -> None:
    processes = dist.get_world_size(group)
    rounds = 2 if kind == "all_reduce" else 1
    for counter in _counters:
        counter.add(kind, rounds * numbers * dtype_size * (processes - 1) / processes)


def all_reduce(tensor: Tensor, group: Group = None, op: Any = dist.ReduceOp.SUM) -> Tensor:
    """The sum (or `op`) over the processes, a new tensor, outside autograd."""
    reduced = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(reduced, op, group)
    _count("all_reduce", reduced.numel(), reduced.element_size(), group)
    return reduced


def all_gather(tensor: Tensor, group: Group = None) -> Tensor:
    """The tensors of all processes, all of one shape, concatenated along the first dimension, outside autograd."""
    tensor = tensor.detach().contiguous()
    gathered = tensor.new_empty(dist.get_world_size(group) * tensor.shape[0], *tensor.shape[1:])
    _gather(gathered, tensor, group)
    _count("all_gather", gathered.numel(), gathered.element_size(), group)
    return gathered


def reduce_scatter(tensor: Tensor, group: Group = None) -> Tensor:
    """This process's equal slice (first dimension) of the sum over the processes, outside autograd."""
    tensor = tensor.detach().contiguous()
    own = tensor.new_empty(tensor.shape[0] // dist.get_world_size(group), *tensor.shape[1:])
    _scatter(own, tensor, group=group)
    _count("reduce_scatter", tensor.numel(), tensor.element_size(), group)
    return own


class _Replicate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return all_reduce(grad, ctx.group), None


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return all_gather(tensor, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return reduce_scatter(grad, ctx.group), None


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Group) -> Tensor:
        return all_reduce(tensor, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None  # every process uses the sum in the same way, so each has its complete gradient


def replicate(tensor: Tensor, group: Group = None) -> Tensor:
    """A tensor that is equal on all processes and used by each with its own shard; its gradient is summed."""
    return _Replicate.apply(tensor, group)


def all_gather_with_grad(tensor: Tensor, group: Group = None) -> Tensor:
    """The rows of all processes; the gradients of a row are summed and returned to the process that has the row."""
    return _AllGather.apply(tensor, group)


def all_reduce_with_grad(tensor: Tensor, group: Group = None) -> Tensor:
    """The sum over the processes of their parts of a value; every process then uses the sum in the same way."""
    return _AllReduce.apply(tensor, group)


def sum_gradients(parameters: Iterable[Tensor], group: Group = None) -> None:
    """Sum the gradients of parameters that are equal on all processes, but were used by each on its own classes.

    The encoder has such parameters: each process computes h_e(K) for its own rows of K. Call this once after
    `backward`. All gradients are sent in one all-reduce.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return
    total = all_reduce(torch.cat([grad.flatten() for grad in grads]), group)
    for grad, part in zip(grads, total.split([grad.numel() for grad in grads])):
        grad.copy_(part.view_as(grad))
