"""Classes sharded over two and three gloo processes: results and gradients are those of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastzsl import losses, ops

sys.path.insert(0, str(Path(__file__).parent))  # the workers import it by name as well
from problem import BATCH, CLASSES, EMBEDDING, FEATURES, REGIONS, Problem

TIMEOUT = 120
CASES = [(similarity, own) for similarity in ("cosine", "dot") for own in (False, True)]

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this PyTorch has no gloo",
)


@pytest.fixture(scope="module")
def case_seed() -> int:
    return int(os.environ.get("FASTZSL_TEST_SEED") or int.from_bytes(os.urandom(3), "little"))


@pytest.fixture(scope="module", params=[2, 3])
def workers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, case_seed: int
) -> list[dict]:
    """What each process computed."""
    folder = tmp_path_factory.mktemp("workers")
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback}
    script = str(Path(__file__).parent / "sharded_worker.py")
    common = [str(request.param), str(folder / "meeting"), str(folder), str(case_seed)]
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), *common], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(request.param)
    ]  # fmt: skip
    try:
        for process in processes:
            printed, _ = process.communicate(timeout=TIMEOUT)
            assert process.returncode == 0, printed
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(request.param)]


def _unsharded(seed: int, similarity: str) -> dict[str, torch.Tensor]:
    problem = Problem(seed)
    K, regions = problem.embeddings.requires_grad_(), problem.regions.requires_grad_()
    H = problem.encoder(K)
    scores = ops.reference.attended_scores(
        regions, H, problem.decoder.weight, problem.decoder.bias, K, similarity=similarity, scale=2.0
    )
    classification = losses.classification(5 * scores, problem.labels)
    alignment = losses.manifold_alignment(H, K)
    reconstruction = losses.semantic_reconstruction(problem.decoder(H), K)
    (classification + 0.3 * alignment + 0.7 * reconstruction).backward()
    values, ids = scores.detach().topk(4)
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
    }


@pytest.mark.parametrize(("similarity", "own_images"), CASES)
def test_scores_losses_ranking_and_every_gradient_equal_the_unsharded_ones(
    workers: list[dict], case_seed: int, similarity: str, own_images: bool
) -> None:
    print(f"FASTZSL_TEST_SEED={case_seed}")
    truth = _unsharded(case_seed, similarity)
    found = [worker[f"{similarity} {own_images}"] for worker in workers]
    sharded = {"scores": 1, "embeddings": 0} | ({"regions": 0} if own_images else {})
    for name, expected in truth.items():
        if name in sharded:
            joined = torch.cat([worker[name] for worker in found], dim=sharded[name])
            torch.testing.assert_close(joined, expected, rtol=1e-10, atol=1e-12, msg=f"{name}")
        else:
            for rank, worker in enumerate(found):
                torch.testing.assert_close(
                    worker[name], expected, rtol=1e-10, atol=1e-12, msg=f"{name}, rank {rank}"
                )


@pytest.mark.parametrize("own_images", [False, True])
def test_traffic_is_counted_and_does_not_grow_with_the_classes(workers: list[dict], own_images: bool) -> None:
    P, size = len(workers), 8
    around = (P - 1) / P
    weight = EMBEDDING * FEATURES + EMBEDDING
    encoder = EMBEDDING * 8 + 8 + 8 * FEATURES + FEATURES
    grams = FEATURES**2 + FEATURES * EMBEDDING + EMBEDDING**2
    reduced = 3 * BATCH + 2 * weight + grams + 1 + encoder  # softmax; W, b twice; L_MA; L_SR; encoder
    X = BATCH * REGIONS * FEATURES
    reduced += 2 if own_images else X  # numbers of images compared, or the gradient of X
    expected = [2 * around * size * reduced]
    if own_images:
        expected = [around * size * X, 2 * around * size * reduced, around * size * X]
    for worker in workers:
        sent = worker[f"dot {own_images}"]["sent"]
        torch.testing.assert_close(sent, torch.tensor(expected))


def test_wrong_input_is_refused_on_every_process(workers: list[dict]) -> None:
    for worker in workers:
        messages = worker["refusals"]
        assert f"processes have 2 to {len(workers) + 1} images each" in messages["uneven"]
        assert "the columns of classes" in messages["columns"]
        assert f"wanted 0 to {CLASSES - 1}" in messages["label"]
        assert "labels has shape (2,); wanted (3,)" in messages["labels"]
        assert "1 classes cannot be sharded" in messages["few"]
