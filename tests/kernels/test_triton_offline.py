"""Every shipped tile compiles for every target, without a GPU, and the compiler's own report is clean."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

from fastzsl.kernels import configs, offline

# What is compiled where: every tile in bfloat16 everywhere; the other types share tiles and code, so fewer
# of them.
BUILDS = [(target, "bf16", (49, 196), True) for target in configs.TARGETS]
BUILDS += [(target, "fp32", (49, 196), True) for target in configs.TARGETS]
BUILDS += [
    ("sm_90", "fp32", (49, 196), False),
    ("sm_90", "bf16", (7, 100), True),
]
BUILDS += [("gfx942", "fp16", (49,), True)]


def _name(build: tuple[str, str, tuple[int, ...], bool]) -> str:
    target, element, regions, tf32 = build
    return f"{target}-{element}{'' if tf32 else ' without TF32'}-T={regions}"


@pytest.mark.slow
@pytest.mark.parametrize("build", BUILDS, ids=_name)
def test_compilers_report(build: tuple[str, str, tuple[int, ...], bool]) -> None:
    target, element, regions, tf32 = build
    found = list(offline.cases(target, element, regions, tf32))
    assert {case.kernel for case in found} >= {"scores_rows", "softmax_rows"}
    smallest: dict[tuple[str, int], int] = {}
    for case in found:
        report = offline.report(case)
        assert report.spills == 0, f"{case} spills {report.spills}"
        assert report.shared <= configs.SHARED_LIMIT[target], (
            f"{case} wants {report.shared} B of shared memory"
        )
        if not case.kernel.endswith("_rows"):
            if target.startswith("sm_"):
                assert 16 in report.copies, f"{case} does not load ahead of its products, 16 bytes at a time"
                # TF32 wants the value rows transposed in shared memory, which takes four-byte copies.
                least = 4 if element == "fp32" else 8
                assert min(report.copies) >= least, f"{case} copies {min(report.copies)} bytes at a time"
            if tf32:
                assert report.instructions, f"{case} has no matrix instruction"
            key = case.kernel, case.constants["REGIONS"]
            smallest[key] = min(report.shared, smallest.get(key, report.shared))
    for (kernel, T), shared in smallest.items():
        assert shared <= configs.SMALL_SHARED_LIMIT, f"no tile of {kernel} at T={T} fits a small card"


@pytest.mark.parametrize(("kernel", "barriers"), [("attend_tiled", 3), ("prototype_tiled", 1)])
def test_barriers_stand_between_writing_and_reading_scratch(kernel: str, barriers: int) -> None:
    # The interpreter runs a program as one thread, so it cannot miss them.
    for target in ("sm_90", "gfx942"):
        case = next(c for c in offline.cases(target, regions=(196,)) if c.kernel == kernel)
        assert offline.compile_case(case).asm["ttgir"].count("ttg.barrier all") == barriers


def test_a_spill_is_noticed() -> None:
    case = next(c for c in offline.cases("sm_90") if c.kernel == "prototype_packed")
    huge = offline.Case(
        case.kernel, case.target, case.element, {**case.constants, "BLOCK_C": 128}, case.warps, case.stages
    )
    report = offline.report(huge)
    assert report.spills > 0 or report.shared > configs.SHARED_LIMIT["sm_90"]


def test_missing_matrix_instructions_are_noticed() -> None:
    case = next(c for c in offline.cases("sm_90", "fp32", tf32=False) if c.kernel == "prototype_packed")
    assert not offline.report(case).instructions


def test_the_configurations_need_no_triton() -> None:
    script = (
        "import sys; sys.modules['triton'] = None\n"
        "import fastzsl.kernels.configs, fastzsl.ops.triton\n"
        "import fastzsl.ops as ops\n"
        "print(ops.backends()['triton'])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Triton is not installed" in done.stdout


def test_a_machine_without_a_gpu_is_told_so() -> None:
    script = "import fastzsl.ops as ops; print(ops.backends()['triton'])"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, env=environment
    )
    assert "PyTorch sees no CUDA or ROCm GPU" in done.stdout, done.stderr
