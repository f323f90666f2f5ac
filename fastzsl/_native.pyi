"""The compiled module (csrc/module.cpp). Addresses are `Tensor.data_ptr()`, 0 for "not wanted"."""

Regions = tuple[int, ...]
"""(address, dtype: 0 float32, 1 bfloat16, 2 float16; B, T, d; strides of the three, in elements)"""

Operand = tuple[int, ...]
"""(address, lane stride, step stride, in elements) of a float32 matrix"""

class Memory:
    """Bytes for a large result, in huge pages, used again once the last view of them is gone."""

    def __init__(self, size: int) -> None: ...
    def __buffer__(self, flags: int) -> memoryview: ...

def isas() -> list[str]:
    """Instruction sets built in and runnable here, weakest first."""

def isa() -> str:
    """The instruction set in use. Raises ValueError if FASTZSL_ISA names one that is not in `isas()`."""

def set_isa(name: str) -> None:
    """Use another instruction set, for tests. Raises ValueError if it is not in `isas()`."""

def bf16x3_from() -> int:
    """The smallest number of regions for which float32 products run as bf16x3 (AMX); see csrc/isa/dispatch.hpp."""

def set_bf16x3_from(regions: int) -> None:
    """Another number of regions, for tests."""

def share_openmp(gomp_parallel: int) -> None:
    """Run on the threads of the OpenMP runtime whose GOMP_parallel lies at this address; 0: on threads of our own."""

def peak_f32(seconds: float, threads: int) -> float:
    """float32 multiply-adds a second from registers alone, on so many threads."""

def peak_bf16(seconds: float, threads: int) -> float:
    """bfloat16 multiply-adds a second from registers alone; 0 without such a unit."""

def attend(
    regions: Regions,
    queries: int,
    C: int,
    scale: float,
    attended: int,
    attention: int,
    threads: int,
) -> None: ...
def attend_grad(
    regions: Regions,
    queries: int,
    C: int,
    scale: float,
    grad_attended: int,
    grad_attention: int,
    attention: int,
    d_regions: int,
    d_queries: int,
    threads: int,
) -> None: ...
def scores(
    regions: Regions,
    queries: int,
    weight: int,
    bias: int,
    classes: int,
    C: int,
    m: int,
    scale: float,
    similarity: int,
    order: int,
    scores: int,
    attention: int,
    values: int,
    threads: int,
) -> None: ...
def scores_grad(
    regions: Regions,
    queries: int,
    weight: int,
    bias: int,
    classes: int,
    C: int,
    m: int,
    scale: float,
    similarity: int,
    order: int,
    grad: int,
    attention: int,
    values: int,
    d_regions: int,
    d_queries: int,
    d_weight: int,
    d_bias: int,
    d_classes: int,
    threads: int,
) -> None: ...
def linear(
    a: Operand,
    b: Operand,
    m: int,
    n: int,
    k: int,
    bias: int,
    out: int,
    threads: int,
) -> None:
    """out (m, n) = A B + bias, float32, contiguous; A's lanes are the rows of the result, B's lanes its columns."""

def prepare(
    stored: Regions,
    images: int,
    kept: int,
    B: int,
    T: int,
    root: bool,
    factor: int,
    scale: float,
    out: int,
    out_type: int,
    threads: int,
) -> None:
    """Raises IndexError for an image or a region that the stored features do not have."""
