"""Backend "native": the C++ kernels for the CPU (csrc/), called with addresses, shapes and strides.

`FASTZSL_ISA` selects an instruction set ("portable", "avx2", "avx512", "avx512bf16", "amx"); one that this machine
does not have is refused with a message.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from fastzsl.ops.dispatch import Call, UnknownBackend
from fastzsl.ops.saved import values_shape

ORDERS: dict[str, tuple[str, ...]] = {
    "dot": ("prototype", "project", "attend"),
    "cosine": ("project", "attend"),
}

REMAKES_DECODED = True  # the backward pass computes decoded features again, see `planner.score_costs`

INTERFACE = 2  # of csrc/module.cpp; an older compiled module would misread its arguments

_DTYPES = {torch.float32: 0, torch.bfloat16: 1}
_SIMILARITY = {"dot": 0, "cosine": 1}
_LARGE = 8 << 20
_STORED = (*_DTYPES, torch.float16)  # what `prepare_regions` reads
_ORDER = {"attend": 0, "project": 1, "prototype": 2}


@functools.cache
def _load() -> tuple[ModuleType | None, tuple[str, ...]]:
    """The compiled module, and why it cannot be used."""
    try:
        from fastzsl import _native
    except ImportError as error:
        return None, (
            f"the compiled module fastzsl._native is not installed ({error}); reinstall with a C++ compiler",
        )
    found = getattr(_native, "interface", 0)
    if found != INTERFACE:
        return None, (
            f"the compiled module fastzsl._native has interface {found}, this code wants {INTERFACE}; install again",
        )
    try:
        _native.isa()
    except ValueError as error:
        raise UnknownBackend(f"FASTZSL_ISA: {error}") from None
    _native.share_openmp(_torch_openmp())
    return _native, ()


def _torch_openmp() -> int:
    """Address of GOMP_parallel in the OpenMP runtime that PyTorch itself runs on; 0 if that has none.

    The symbol is searched in PyTorch's own library and the libraries that it links, so another libgomp in this process
    is never used by mistake.
    """
    for name in (str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"), "libtorch_cpu.so"):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_NOW)  # only if it is loaded already
            start = getattr(library, "GOMP_parallel", None)
            return 0 if start is None else ctypes.cast(start, ctypes.c_void_p).value or 0
    return 0


def missing() -> list[str]:
    """Why this installation has no native kernels; empty if it has.

    Raises:
        UnknownBackend: FASTZSL_ISA names an instruction set that this machine does not have.
    """
    return list(_load()[1])


def refuses(call: Call) -> list[str]:
    """Why the native kernels cannot run `call`; empty if they can."""
    reasons = []
    if call.device.type != "cpu":
        reasons.append(f"it runs on the CPU, the tensors are on {call.device}")
    if call.op == "prepare_regions":
        if call.dtype not in _STORED:
            reasons.append(f"it reads float32, bfloat16 and float16, the features are {call.dtype}")
    elif call.dtype not in _DTYPES:
        reasons.append(f"it computes float32 and bfloat16, the tensors are {call.dtype}")
    return reasons


def slower(call: Call) -> str | None:
    """Why "auto" should not use the native kernels for `call`; None if it should.

    The limits come from the crossover tables in bench/results, and from small calls on a processor without AVX-512.
    With few classes most of the time is reading the regions, which PyTorch does as fast; a backward pass reads them
    more often. With one image and many classes scored by dot product, most of the time is packing matrices, which
    several images would share.
    """
    B, T, C, d = call.B, call.T, call.C, call.d
    if call.op == "prepare_regions":
        return None
    if B * T <= 64:
        few = C <= 4 if call.similarity == "cosine" else 1024 * C <= d
        slow = few or (call.similarity == "dot" and C * d >= 100_000)
    elif call.op == "dense_attention":
        slow = C <= 4 or C * d < 4000
    elif call.similarity == "dot":
        slow = C <= 4 or (C <= 16 and B * T * C * d > 2_000_000 and not call.needs_grad)
    else:
        slow = C <= 4
    if slow:
        how = f" scored by {call.similarity}" if call.similarity else ""
        return f"plain PyTorch is as fast for {B} x {T} regions and {C} classes of size {d}{how}"
    return None


def attention_forward(
    regions: Tensor, queries: Tensor, scale: float, return_attention: bool
) -> tuple[Tensor, Tensor]:
    """(attended (B, C, d), attention (B, C, T) or empty)."""
    regions, queries = _walkable(regions), queries.contiguous()
    (B, T, d), C = regions.shape, queries.shape[0]
    attended = empty_large((B, C, d), regions.dtype)
    attention = regions.new_empty((B, C, T) if return_attention else (0,))
    loaded_module().attend(
        _describe(regions),
        queries.data_ptr(),
        C,
        scale,
        attended.data_ptr(),
        attention.data_ptr(),
        threads_for(B * T * C * d),
    )
    return attended, attention


def attention_backward(
    grad_attended: Tensor,
    grad_attention: Tensor | None,
    regions: Tensor,
    queries: Tensor,
    attention: Tensor,
    scale: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor]:
    """Gradients of (regions, queries), empty where `needs` says False."""
    regions, queries, attention = _walkable(regions), queries.contiguous(), attention.contiguous()
    grad_attended = grad_attended.contiguous()
    if grad_attention is not None:
        grad_attention = grad_attention.contiguous()
    grads = _empty_grads((regions, queries), needs)
    loaded_module().attend_grad(
        _describe(regions), queries.data_ptr(), queries.shape[0], scale, grad_attended.data_ptr(),
        _address(grad_attention), attention.data_ptr(), *(g.data_ptr() for g in grads),
        threads_for(regions.numel() * queries.shape[0]),
    )  # fmt: skip
    return grads[0], grads[1]


def scores_forward(
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor | None,
    class_embeddings: Tensor,
    similarity: str,
    scale: float,
    order: str,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(scores (B, C), attention (B, C, T), values); the last two empty unless `save`."""
    regions = _walkable(regions)
    queries, decoder_weight, class_embeddings = (
        t.contiguous() for t in (queries, decoder_weight, class_embeddings)
    )
    bias = None if decoder_bias is None else decoder_bias.contiguous()
    (B, T, d), (C, m) = regions.shape, class_embeddings.shape
    scores = regions.new_empty(B, C)
    attention = regions.new_empty((B, C, T) if save else (0,))
    values = regions.new_empty(values_shape(B, T, C, d, m, similarity, order) if save else (0,))
    loaded_module().scores(
        _describe(regions), queries.data_ptr(), decoder_weight.data_ptr(), _address(bias),
        class_embeddings.data_ptr(), C, m, scale, _SIMILARITY[similarity], _ORDER[order],
        scores.data_ptr(), attention.data_ptr(), values.data_ptr(), threads_for((B * T + m) * C * d),
    )  # fmt: skip
    return scores, attention, values


def scores_backward(
    grad_scores: Tensor,
    regions: Tensor,
    queries: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor | None,
    class_embeddings: Tensor,
    attention: Tensor,
    values: Tensor,
    similarity: str,
    scale: float,
    order: str,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the five tensors in order, empty where `needs` says False."""
    regions = _walkable(regions)
    queries, decoder_weight, class_embeddings, grad_scores, attention, values = (
        t.contiguous() for t in (queries, decoder_weight, class_embeddings, grad_scores, attention, values)
    )
    bias = None if decoder_bias is None else decoder_bias.contiguous()
    grads = _empty_grads((regions, queries, decoder_weight, bias, class_embeddings), needs)
    loaded_module().scores_grad(
        _describe(regions), queries.data_ptr(), decoder_weight.data_ptr(), _address(bias),
        class_embeddings.data_ptr(), *class_embeddings.shape, scale, _SIMILARITY[similarity], _ORDER[order],
        grad_scores.data_ptr(), attention.data_ptr(), values.data_ptr(),
        *(g.data_ptr() for g in grads), threads_for(regions.numel() * queries.shape[0]),
    )  # fmt: skip
    return grads[0], grads[1], grads[2], grads[3], grads[4]


def loaded_module() -> ModuleType:
    module = _load()[0]
    if module is None:
        raise RuntimeError("; ".join(missing()))
    return module


def threads_for(multiply_adds: int) -> int:
    """As many threads as PyTorch, but none for less than about ten microseconds of work: waking it takes longer."""
    return max(1, min(torch.get_num_threads(), multiply_adds // 1_000_000))


def _walkable(regions: Tensor) -> Tensor:
    """Regions with T or d contiguous are used in place; any other layout is copied once."""
    _, stride_t, stride_d = regions.stride()
    return regions if stride_d == 1 or stride_t == 1 else regions.contiguous()


def _describe(regions: Tensor) -> tuple[int, ...]:
    return (regions.data_ptr(), _DTYPES[regions.dtype], *regions.shape, *regions.stride())


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def empty_large(shape: tuple[int, ...], dtype: torch.dtype, least: int = _LARGE) -> Tensor:
    """As `torch.empty`, but tensors of `least` bytes and more get memory that is used again when the tensor is freed.

    The system's allocator returns new pages for every large tensor. Clearing these pages took four times as long as
    computing the attended features of a batch.
    """
    numbers = math.prod(shape)
    if numbers * dtype.itemsize < least:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(loaded_module().Memory(numbers * dtype.itemsize), dtype=dtype).view(shape)


def _empty_grads(inputs: tuple[Tensor | None, ...], needs: list[bool]) -> list[Tensor]:
    """Contiguous gradients to be filled; those that are not needed have no elements, and so address 0."""
    return [
        inputs[0].new_empty((0,)) if t is None or not need else t.new_empty(t.shape)  # type: ignore[union-attr]
        for t, need in zip(inputs, needs)
    ]


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a (m, k) times b (k, n), plus `bias` (n,) in each row; float32.

    Sums run in the same order for any number of threads.
    """
    (m, k), n = a.shape, b.shape[1]
    a, b = _matrix(a), _matrix(b)
    bias = None if bias is None else bias.contiguous()
    out = a.new_empty(m, n)
    loaded_module().linear(
        (a.data_ptr(), *a.stride()), (b.data_ptr(), b.stride(1), b.stride(0)), m, n, k, _address(bias),
        out.data_ptr(), threads_for(m * n * k),
    )  # fmt: skip
    return out


def _matrix(a: Tensor) -> Tensor:
    """A matrix one of whose strides is 1; any other layout is copied once."""
    return a if 1 in a.stride() else a.contiguous()
