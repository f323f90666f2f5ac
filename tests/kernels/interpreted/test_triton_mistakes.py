"""The checks of triton_checks.py would notice: a mistake planted in each kernel makes them fail."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import fastzsl.kernels
import pytest
from triton_checks import Case, failures

SMALL, LONG = Case(7, 49, 10, 40, 12), Case(3, 150, 10, 40, 12)
SHARP = Case(7, 49, 10, 40, 12, scale=60.0)


class Mistake(NamedTuple):
    kernel: str
    right: str
    wrong: str
    check: str
    case: Case = SMALL

    @property
    def file(self) -> str:
        return {"proto": "prototype", "atten": "attend", "mix_b": "attend", "logit": "tiles"}.get(
            self.kernel[:5], "backward"
        )


MISTAKES = [
    Mistake("logits_tile", "(k < D)[:, None] & x_live", "(k < D + 9)[:, None] & x_live", "attention"),
    Mistake("logits_tile", "h_live[:, None] & (k < D)", "h_live[:, None] & (k <= D)", "attention"),
    Mistake("logits_and_values_tile", "live = h_live[:, None] & (k < D)",
            "live = h_live[:, None] & (k <= D)", "prototype"),
    Mistake("logits_and_values_tile", "prototypes + h_rows", "queries + h_rows", "prototype"),
    Mistake("prototype_packed", "(first + member < B)", "(first + member <= B)", "prototype"),
    Mistake("prototype_packed", "region * stride_xt", "region * stride_xd", "prototype"),
    Mistake("prototype_packed", "tl.max(tl.where(own, logits",
            "tl.max(tl.where(own, -logits", "prototype", SHARP),
    Mistake("prototype_packed", "c_live & (first + i < B)", "(first + i < B)", "prototype"),
    Mistake("prototype_tiled", "t_live = region < REGIONS", "t_live = region <= REGIONS", "prototype", LONG),
    Mistake("prototype_tiled", "mixed * shrink", "mixed", "prototype", LONG),
    Mistake("prototype_tiled", "c_live[:, None] & (region < REGIONS)",
            "c_live[:, None] & (region < 64)", "prototype", LONG),
    Mistake("attend_one_tile", "t_live = region < REGIONS", "t_live = region <= REGIONS", "attention"),
    Mistake("attend_one_tile", "image * stride_yb", "image * stride_yt", "attention"),
    Mistake("attend_one_tile", "(v < DV)", "(v <= DV)", "project"),
    Mistake("attend_one_tile", "e_square += tl.sum(block * block, 1)",
            "e_square += tl.sum(block, 1)", "cosine"),
    Mistake("attend_tiled", "total * tl.exp2(peak - higher)", "total", "attention", LONG),
    Mistake("attend_tiled", "region * stride_yt", "region * stride_yd", "attention", LONG),
    Mistake("attend_tiled", "else program.to(tl.int64) * BLOCK_C",
            "else (program + 1).to(tl.int64) * BLOCK_C",
            "attention", LONG),
    Mistake("mix_block", "y_live[:, None] & (v < DV)", "y_live[:, None] & (v < 32)", "attention"),
    Mistake("scores_rows", "c * stride_gc", "c * stride_gb", "dot"),
    Mistake("scores_rows", "(region < REGIONS)[None, :]", "(region <= REGIONS)[None, :]", "dot"),
    Mistake("scores_rows", "mean = tl.sum(a * u, 1)", "mean = tl.sum(u, 1)", "dot"),
    Mistake("softmax_rows", "class_first = (rows", "class_first = ((rows + 1)", "attention"),
    Mistake("softmax_rows", "(region < REGIONS)[None, :]", "(region < 48)[None, :]", "attention"),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: f"{m.kernel}: {m.wrong}")
def test_a_planted_mistake_is_caught(mistake: Mistake, tmp_path: Path) -> None:
    package = _package(tmp_path, mistake)
    assert failures(package.launch, package.gradients, mistake.case, 0, mistake.check)


def test_an_unchanged_copy_passes(tmp_path: Path) -> None:
    package = _package(tmp_path, None)
    for case in (SMALL, LONG):
        assert failures(package.launch, package.gradients, case, 0) == []


def _package(folder: Path, mistake: Mistake | None) -> ModuleType:
    """The kernels, copied with one mistake and imported under a name of their own."""
    copy = folder / "copied_kernels"
    shutil.copytree(Path(fastzsl.kernels.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    if mistake is not None:
        path = copy / f"{mistake.file}.py"
        before, kernel, after = path.read_text().partition(f"def {mistake.kernel}(")
        body, next_kernel, rest = after.partition("@triton.jit")
        assert body.count(mistake.right) == 1, "the planted mistake must change one place"
        path.write_text(before + kernel + body.replace(mistake.right, mistake.wrong) + next_kernel + rest)
    for name in [name for name in sys.modules if name.startswith("copied_kernels")]:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location(
        "copied_kernels", copy / "__init__.py", submodule_search_locations=[str(copy)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["copied_kernels"] = package
    spec.loader.exec_module(package)
    for name in ("launch", "gradients"):
        importlib.import_module(f"copied_kernels.{name}")
    return package
