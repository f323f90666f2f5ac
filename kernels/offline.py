"""Compile the shipped kernels for GPUs that need not be present, and read the compiler's own report.

    python -m fastzsl.kernels.offline [sm_80 sm_90 sm_100 gfx942]

prints, for every kernel and tile of configs.TABLE: registers, spills, shared memory and the matrix
instructions found.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from . import configs
from .attend import attend_one_tile, attend_tiled
from .backward import scores_rows, softmax_rows
from .prototype import prototype_packed, prototype_tiled

KERNELS = {
    kernel.__name__: kernel
    for kernel in (
        prototype_packed,
        prototype_tiled,
        attend_one_tile,
        attend_tiled,
        scores_rows,
        softmax_rows,
    )
}
GPU_TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
MATRIX_INSTRUCTION = {
    "sm_80": r"\bmma\.sync\.\S+",
    "sm_90": r"\bwgmma\.mma_async\.\S+",
    "sm_100": r"\btcgen05\.mma\.\S+",
    "gfx942": r"\bv_mfma_\w+",
}
_FLOAT32 = {"bf16": {"peaks"}, "fp16": {"peaks"}, "fp32": set()}


@dataclass(frozen=True)
class Case:
    """One compilation: kernel, target, element type ("bf16", "fp16", "fp32"), constants and options."""

    kernel: str
    target: str
    element: str
    constants: dict[str, Any]
    warps: int = 4
    stages: int = 2

    def __str__(self) -> str:
        blocks = ",".join(f"{k}={v}" for k, v in self.constants.items() if k not in ("PRECISION", "COMPUTE"))
        return f"{self.kernel}[{self.target},{self.element},{blocks},warps={self.warps},stages={self.stages}]"


@dataclass(frozen=True)
class Report:
    """What the compiler says of one kernel: per-thread registers, spilled bytes (NVIDIA) or registers (AMD),
    bytes of shared memory, the distinct matrix instructions, and the bytes that asynchronous copies move at a
    time (NVIDIA)."""

    registers: int
    spills: int
    shared: int
    instructions: frozenset[str]
    copies: frozenset[int]


def cases(
    target: str, element: str = "bf16", regions: tuple[int, ...] = (49, 196), tf32: bool = True
) -> Iterator[Case]:
    """Every shipped tile of every kernel for the numbers of regions given, outputs saved as in training."""
    itemsize = 4 if element == "fp32" else 2
    exact = element == "fp32" and not tf32
    shared = {"PRECISION": "tf32" if element == "fp32" and tf32 else "ieee", "COMPUTE": _element(element)}
    for T in regions:
        small = configs.one_tile(T)
        for kernel in (
            ("prototype_packed", "attend_one_tile") if small else ("prototype_tiled", "attend_tiled")
        ):
            epilogues = ("attend", "cosine") if kernel.startswith("attend") else (None,)
            for config in configs.for_kernel(kernel, target, T, itemsize, exact):
                for epilogue in epilogues:
                    constants = dict(shared, REGIONS=T, SAVE=True, **config.blocks)
                    if epilogue is not None:
                        constants["EPILOGUE"] = epilogue
                    yield Case(kernel, target, element, constants, config.warps, config.stages)
        rows = {"REGIONS": T, **configs.rows_for(T)}
        yield Case("scores_rows", target, element, rows, 4)
        yield Case("softmax_rows", target, element, {"EXTRA": True, **rows}, 4)


def _element(name: str) -> Any:
    return {
        "bf16": triton.language.bfloat16,
        "fp16": triton.language.float16,
        "fp32": triton.language.float32,
    }[name]


def compile_case(case: Case, kernel: Any = None) -> Any:
    """Triton's compiled kernel for a case, specialised as for aligned, contiguous tensors."""
    function = kernel or KERNELS[case.kernel]
    constants = dict(case.constants)
    signature, hints = {}, {}
    for index, name in enumerate(function.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in ("stride_xd", "stride_yd", "stride_gc"):
            signature[name], constants[name] = "constexpr", 1
        elif name in ("scale", "log2_scale"):
            signature[name] = "fp32"
        elif name.startswith("stride") or name in ("B", "C", "D", "DV"):
            signature[name] = "i32"
            if name not in ("B", "C", "stride_gb"):
                hints[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "*fp32" if name in _FLOAT32[case.element] else f"*{case.element}"
            hints[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(function, signature, constants, hints)
    options = {"num_warps": case.warps, "num_stages": case.stages}
    return triton.compile(source, target=GPU_TARGETS[case.target], options=options)


def report(case: Case) -> Report:
    """Compile a case and read registers, spills, shared memory and matrix instructions from the assembler."""
    compiled = compile_case(case)
    text = compiled.asm["amdgcn" if case.target.startswith("gfx") else "ptx"]
    found = frozenset(re.findall(MATRIX_INSTRUCTION[case.target], text))
    if case.target.startswith("gfx"):
        spills = sum(int(n) for n in re.findall(r"\.[sv]gpr_spill_count:\s*(\d+)", text))
        registers = max(int(n) for n in re.findall(r"\.vgpr_count:\s*(\d+)", text))
    else:
        log = _assemble(text, case.target)
        spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill", log))
        registers = max(int(n) for n in re.findall(r"Used (\d+) registers", log))
    copies = re.findall(r"cp\.async\.c[ag]\.shared\.global \[[^]]*\], \[[^]]*\], 0x(\w+)", text)
    return Report(registers, spills, compiled.metadata.shared, found, frozenset(int(n, 16) for n in copies))


def _assemble(ptx: str, target: str) -> str:
    """The log of `ptxas -v`, the assembler that comes with Triton."""
    from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability

    arch = GPU_TARGETS[target].arch
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [
            get_ptxas(arch).path,
            "-v",
            "--regAllocOptLevel=2",
            f"--gpu-name={sm_arch_from_capability(arch)}",
        ]
        done = subprocess.run(
            [*command, str(source), "-o", f"{folder}/kernel.o"], capture_output=True, text=True
        )
    if done.returncode:
        raise RuntimeError(f"ptxas refused a kernel for {target}: {done.stderr.strip()}")
    return done.stderr


def main(targets: list[str]) -> None:
    for target in targets or list(configs.TARGETS):
        for case in cases(target):
            r = report(case)
            print(case)
            print(f"    {r.registers} registers, {r.spills} spilled, {r.shared} B shared", *r.instructions)


if __name__ == "__main__":
    main(sys.argv[1:])
