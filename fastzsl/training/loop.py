"""The training loop: equation 7 minimised with AdamW, resumable at any step, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, cast

import nvtx
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.errors import UserError
from fastzsl.features.backbones import Backbone
from fastzsl.features.prefetch import prefetch
from fastzsl.methods.attended import AttendedAutoencoder
from fastzsl.methods.attended.autoencoder import BatchPart
from fastzsl.training.checkpoint import load_state, save_state
from fastzsl.training.config import Config

WARM_UP = 0.1


class StepListener(Protocol):
    """Called after every step with the step's number (from 1) and its losses and learning rate."""

    def __call__(self, step: int, figures: dict[str, float]) -> None: ...


def new_model(
    config: Config, feature_dim: int, embedding_dim: int, backbone: Backbone | None = None
) -> AttendedAutoencoder:
    """A model with weights drawn from `config.seed`, its scaling not fitted yet.

    Args:
        feature_dim: d of the backbone's feature maps.
        embedding_dim: m of the class embeddings.
        backbone: only where it is trained; otherwise the model takes region features.
    """
    torch.manual_seed(config.seed)
    return AttendedAutoencoder(
        feature_dim,
        embedding_dim,
        hidden=config.hidden,
        query_length=config.query_length,
        similarity=config.similarity,
        temperature=config.temperature,
        attention_scale=config.attention_scale,
        coupled=config.coupled,
        pooling=config.pooling,
        feature_power=config.feature_power,
        feature_dropout=config.feature_dropout,
        region_dropout=config.region_dropout,
        embedding_normalisation=config.embedding_normalisation,
        backbone=backbone,
        backend=config.backend,
    )


def build_model(
    data: ZeroShotDataset, config: Config, feature_dim: int, backbone: Backbone | None = None
) -> AttendedAutoencoder:
    """A model with weights drawn from `config.seed`, its scaling fitted on training pictures.

    Args:
        backbone: only where it is trained; otherwise the model takes region features.
    """
    model = new_model(config, feature_dim, data.embedding_dim, backbone)
    sample = data.trainval[torch.linspace(0, len(data.trainval) - 1, min(512, len(data.trainval))).long()]
    if backbone is None:
        regions = data.read_regions(sample)
    else:
        with torch.no_grad():
            regions = backbone(read_pictures(data, sample[:64], backbone)).flatten(2).transpose(1, 2)
    model.fit_scaling(regions, data.class_embeddings[data.seen])
    return model


def fit(
    model: AttendedAutoencoder,
    data: ZeroShotDataset,
    config: Config,
    fabric: Fabric,
    *,
    checkpoint: Path | None = None,
    listener: StepListener = lambda step, figures: None,
) -> AttendedAutoencoder:
    """Train `model` on `data.trainval`, in place.

    The order of the pictures and every random number of a step depend on `config.seed` and the step's number
    alone, so a run that continues from `checkpoint` ends with the same weights as one that was never stopped.

    Args:
        checkpoint: where the state is kept; a state found there is continued. None keeps none.
        listener: hears of every step.

    Raises:
        UserError: the loss is not finite, or the checkpoint belongs to other settings.
    """
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, config), weight_decay=config.weight_decay, fused=True
    )
    steps_per_epoch = math.ceil(len(data.trainval) / config.batch_size)
    total = config.epochs * steps_per_epoch
    embeddings, seen = data.class_embeddings.to(fabric.device), data.seen.to(fabric.device)

    first = 0
    if checkpoint is not None and checkpoint.exists():
        first = _restore(checkpoint, model, optimizer, config)
    _same_on_all_devices(first, checkpoint, fabric)
    objective, optimizer = fabric.setup(_Objective(model, config), optimizer)
    objective.train()
    batches = _batches(model, data, config, fabric, first=first, total=total)
    ahead = prefetch(batches, lambda place: _read(model, data, place[1]))
    for (step, batch, part, share), read, waited in ahead:
        torch.manual_seed(config.seed * 1_000_003 + step)
        lr_share = learning_rate_share(step, total)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * lr_share
        with nvtx.annotate("data"):
            inputs = fabric.to_device(read)
            labels = fabric.to_device(data.labels[batch])
        with nvtx.annotate("forward"):
            terms = objective(inputs, labels, embeddings, seen, part, share)
        figures = _figures(terms, fabric)
        if not math.isfinite(figures["loss"]):
            raise UserError(_not_finite(step, figures, checkpoint))
        with nvtx.annotate("backward"):
            fabric.backward(terms["loss"])
        with nvtx.annotate("step"):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        done = step + 1
        figures |= {"lr": config.lr * lr_share, "epoch": step // steps_per_epoch, "data_wait": waited}
        listener(done, figures)
        if checkpoint is not None and (done % steps_per_epoch == 0 or done % config.checkpoint_steps == 0):
            if fabric.is_global_zero:
                _save(checkpoint, model, optimizer, config, done)
            fabric.barrier()
    model.eval()
    return model


class _Objective(nn.Module):
    """Equation 7 as the forward pass of a module: what Fabric's precision and DDP apply to."""

    def __init__(self, model: AttendedAutoencoder, config: Config) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(
        self, inputs: Tensor, labels: Tensor, embeddings: Tensor, seen: Tensor, part: BatchPart, share: float
    ) -> dict[str, Tensor]:
        """As `AttendedAutoencoder.loss`; the classification loss is weighted by `share`, see `_batches`."""
        terms = self.model.loss(
            inputs, labels, embeddings, seen,
            alpha=self.config.alpha, eta=self.config.eta, reduction=self.config.reduction,
            reconstruct=self.config.reconstruct, part=part,
        )  # fmt: skip
        if share == 1:
            return terms
        classification = share * terms["classification"]
        loss = terms["loss"] - terms["classification"] + classification
        return {**terms, "classification": classification, "loss": loss}


def learning_rate_share(step: int, total: int) -> float:
    """Linear warm-up over the first tenth, then half a cosine down to 0."""
    warm = max(1, round(WARM_UP * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def epoch_order(indices: Tensor, seed: int, epoch: int) -> Tensor:
    """The pictures of an epoch in their order, the same on every machine."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return indices[torch.randperm(len(indices), generator=generator)]


def read_pictures(data: ZeroShotDataset, indices: Tensor, backbone: Backbone) -> Tensor:
    """uint8 pictures (B, 3, H, W) as the backbone wants them."""
    if data.images is None:
        raise UserError(
            f"data set {data.name} has region features only; the backbone cannot be trained on it"
        )
    images = data.images
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        pictures = pool.map(
            lambda i: backbone.preprocess(images.image(i)), data.picture_ids[indices].tolist()
        )
        return torch.stack(list(pictures))


def _batches(
    model: AttendedAutoencoder, data: ZeroShotDataset, config: Config, fabric: Fabric, first: int, total: int
) -> Iterator[tuple[int, Tensor, BatchPart, float]]:
    """From step `first` on: the step, this device's picture indices, their part of the batch, its weight.

    The weight is the part's number of pictures over the devices' mean. A device for which the last batch has no
    picture gets one with weight 0, because every device must take part in every step.
    """
    steps_per_epoch = math.ceil(len(data.trainval) / config.batch_size)
    world, rank = fabric.world_size, fabric.global_rank
    for epoch in range(first // steps_per_epoch, config.epochs):
        batches = epoch_order(data.trainval, config.seed, epoch).split(config.batch_size)
        for position, batch in enumerate(batches):
            step = epoch * steps_per_epoch + position
            if not first <= step < total:
                continue
            rows = slice(rank, None, world)
            share = len(batch[rows]) * world / len(batch)
            if not share:
                rows = slice(0, 1)
            yield step, batch[rows], BatchPart(rows, len(batch)), share


def _figures(terms: dict[str, Tensor], fabric: Fabric) -> dict[str, float]:
    """The losses of the whole batch, the same on every device."""
    values = torch.stack([value.detach().double() for value in terms.values()])
    if fabric.world_size > 1:
        values = cast(Tensor, fabric.all_reduce(values, reduce_op="mean"))
    return dict(zip(terms, values.tolist()))


def _read(model: AttendedAutoencoder, data: ZeroShotDataset, batch: Tensor) -> Tensor:
    if model.backbone is not None:
        return read_pictures(data, batch, model.backbone)  # type: ignore[arg-type]
    return data.read_regions(batch)


def _parameter_groups(model: AttendedAutoencoder, config: Config) -> list[dict[str, Any]]:
    trained = [p for name, p in model.named_parameters() if not name.startswith("backbone.")]
    groups = [{"params": trained, "lr": config.lr, "initial_lr": config.lr}]
    if model.backbone is not None:
        groups.append(
            {
                "params": list(model.backbone.parameters()),
                "lr": config.backbone_lr,
                "initial_lr": config.backbone_lr,
            }
        )
    return groups


def _save(
    path: Path, model: AttendedAutoencoder, optimizer: torch.optim.Optimizer, config: Config, step: int
) -> None:
    save_state(
        path,
        {
            "step": step,
            "settings": config.training_settings(),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
    )


def _restore(path: Path, model: AttendedAutoencoder, optimizer: torch.optim.Optimizer, config: Config) -> int:
    state = load_state(path)
    settings = config.training_settings()
    different = [k for k, v in settings.items() if state["settings"].get(k) != v]
    if different:
        k = different[0]
        raise UserError(
            f"{path} belongs to a run with {k} = {state['settings'].get(k)}, not {settings[k]}; "
            "resume with the same settings, or choose another --out"
        )
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} holds another model ({str(error).splitlines()[-1].strip()[:100]}); choose another --out"
        ) from None
    return int(state["step"])


def _same_on_all_devices(step: int, checkpoint: Path | None, fabric: Fabric) -> None:
    if fabric.world_size == 1:
        return
    steps = cast(Tensor, fabric.all_gather(torch.tensor(step))).flatten().tolist()
    if len(set(steps)) > 1:
        raise UserError(
            f"{checkpoint}: the processes see checkpoints of steps {steps}; the run folder must be on a file "
            "system that all machines share"
        )


def _not_finite(step: int, figures: dict[str, float], checkpoint: Path | None) -> str:
    terms = ", ".join(f"{name} {value:g}" for name, value in figures.items() if name != "loss")
    kept = (
        f"the last good checkpoint is {checkpoint}"
        if checkpoint and checkpoint.exists()
        else "no checkpoint yet"
    )
    return f"the loss is {figures['loss']:g} at step {step + 1} ({terms}); {kept}; a lower --lr may help"
