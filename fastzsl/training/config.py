"""Every setting of a run as one flat dataclass; its fields are the flags and the keys of the YAML file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml

from fastzsl.errors import UserError, first_line, nearest
from fastzsl.methods.attended.normalisation import Normalisation
from fastzsl.training.values import plain_value


@dataclass(frozen=True)
class Config:
    """Settings of a training run.

    Args:
        dataset: "shapes" is drawn on the fly and tests the binding of attributes; "folder" is your own
            pictures; "awa1" to "flo" are the benchmarks in their proposed splits; "hdf5" is a file of feature
            maps.
        root: folder of the data set. Of "folder": ROOT/images/<class>/* and ROOT/classes.csv with columns
            class,split,<attribute>... Of a benchmark: what xlsa17.zip unpacks to, with
            ROOT/CUB/att_splits.mat and ROOT/CUB/res101.mat.
        images: folder of a benchmark's own pictures; default: the pooled features of res101.mat.
        features: file of feature maps, as `python -m fastzsl.extract` makes it.
        class_embeddings: "att", "original_att", or a .csv, .npz or .mat file of one's own (word vectors).
        distractors: other objects in each picture of "shapes".
        data_seed: classes, pictures and splits of "shapes"; split of the seen pictures of "folder".
        class_split: draw which classes are unseen from this seed, instead of the data set's own split.
        skip_bad_images: leave out pictures that cannot be read, and count them, instead of stopping.
        backbone: efficientnet_lite0 (weights come with pip), any torchvision name, or timm/NAME.
        backbone_weights: file with the backbone's weights, or "random"; default: the published ones.
        train_backbone: put the backbone in the graph and train it too, on pictures instead of cached
            features.
        backbone_lr: learning rate of the backbone where it is trained.
        hidden: size of the encoder's hidden sigmoid layer.
        query_length: length given to every query, 0 for the encoder's own (for experiments on alpha).
        similarity: measure s between decoded feature and class embedding.
        temperature: factor on the scores in the classification loss.
        attention_scale: factor on the attention's logits: 0 averages, large picks one region.
        pooling: "average" replaces the attention by the mean of the regions, for comparison.
        coupled: the decoder is also the visual-semantic mapping (equation 7).
        embedding_normalisation: of the class embeddings, fitted on the seen classes: "centre" subtracts their
            mean (word vectors need it), "standardise" also divides every attribute by its deviation, "range" makes
            it run from 0 to 1; these and "unit" give each class unit length, "none" leaves the numbers.
        alpha: weight of the manifold alignment loss (equation 5).
        eta: weight of the semantic reconstruction loss (equation 6).
        reduction: of the two losses above: "mean", or "sum" as the paper prints them.
        reconstruct: classes of the semantic reconstruction: "all" as in the paper, which reads the unseen
            classes' descriptions (not their pictures) in training, or "seen" for classes not known in advance.
        feature_power: exponent on the features' absolute values; 0.5 tames dominant channels, 1 changes
            nothing.
        feature_dropout: share of feature channels dropped in training.
        region_dropout: share of regions hidden from the attention in training.
        epochs: passes over the training pictures, at whose end the learning rate is 0.
        choose_epochs: choose the epochs among these on held-out seen classes, before the training; each costs
            gamma_folds trainings, which then choose gamma too.
        batch_size: pictures in a step, over all devices.
        lr: highest learning rate; it warms up and decays along a cosine.
        weight_decay: of AdamW, times the learning rate: 1 keeps a long training from fitting the seen classes only.
        gamma_folds: problems of held-out seen classes trained to choose gamma; 0 leaves it at 0.
        seed: initial weights, order of the pictures, held-out classes.
        out: run folder; default runs/<dataset>.
        resume: go on with the run in the run folder, or start it if there is none.
        checkpoint_steps: a checkpoint is written after every epoch, and after this many steps within one.
        accelerator: "auto", "cpu", "cuda" or "mps".
        devices: number of devices.
        precision: Lightning Fabric's precision.
        backend: backend of the fused ops.
    """

    dataset: Literal["shapes", "folder", "hdf5", "awa1", "awa2", "cub", "sun", "apy", "flo"] = "shapes"
    root: Path | None = None
    images: Path | None = None
    features: Path | None = None
    class_embeddings: str = "att"
    distractors: int = 2
    data_seed: int = 0
    class_split: int | None = None
    skip_bad_images: bool = False
    backbone: str = "efficientnet_lite0"
    backbone_weights: str | None = None
    train_backbone: bool = False
    backbone_lr: float = 1e-5
    hidden: int = 512
    query_length: float = 0.0
    similarity: Literal["cosine", "dot"] = "cosine"
    temperature: float = 10.0
    attention_scale: float = 10.0
    pooling: Literal["attention", "average"] = "attention"
    coupled: bool = True
    embedding_normalisation: Normalisation = "centre"
    alpha: float = 0.02
    eta: float = 1.0
    reduction: Literal["mean", "sum"] = "mean"
    reconstruct: Literal["all", "seen"] = "all"
    feature_power: float = 0.5
    feature_dropout: float = 0.4
    region_dropout: float = 0.5
    epochs: int = 30
    choose_epochs: tuple[int, ...] = ()
    batch_size: int = 64
    lr: float = 3e-3
    weight_decay: float = 1.0
    gamma_folds: int = 3
    seed: int = 0
    out: Path | None = None
    resume: bool = False
    checkpoint_steps: int = 500
    accelerator: str = "auto"
    devices: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"] = "32-true"
    backend: Literal["auto", "eager", "native", "triton"] = "auto"

    def __post_init__(self) -> None:
        positive = (
            "hidden",
            "temperature",
            "feature_power",
            "epochs",
            "batch_size",
            "lr",
            "checkpoint_steps",
            "devices",
        )
        for name in positive:
            if not getattr(self, name) > 0:
                raise UserError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}; wanted a number above 0"
                )
        not_negative = (
            "distractors", "data_seed", "alpha", "eta", "weight_decay", "gamma_folds", "seed", "backbone_lr",
            "attention_scale", "query_length",
        )  # fmt: skip
        for name in not_negative:
            if not getattr(self, name) >= 0:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; wanted 0 or more")
        for name in ("feature_dropout", "region_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}; wanted a share from 0 to below 1"
                )
        if any(not epochs > 0 for epochs in self.choose_epochs):
            raise UserError(f"--choose-epochs is {self.choose_epochs}; wanted numbers above 0")
        if self.choose_epochs and self.train_backbone:
            raise UserError(
                "--choose-epochs works on cached features, without --train-backbone; give --epochs"
            )
        if self.dataset == "hdf5" and self.features is None:
            raise UserError("--dataset hdf5 needs --features FILE")
        if self.dataset not in ("shapes", "hdf5") and self.root is None:
            raise UserError(f"--dataset {self.dataset} needs --root DIR")

    @property
    def run_folder(self) -> Path:
        return self.out or Path("runs") / self.dataset

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in YAML."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {k: str(v) if isinstance(v, Path) else v for k, v in plain.items()}

    def training_settings(self) -> dict[str, Any]:
        """The values that decide the result: two runs that agree on these may continue each other."""
        return {k: v for k, v in self.as_dict().items() if k not in ("out", "resume", "checkpoint_steps")}


def save_config(config: Config, path: Path) -> None:
    """Write the YAML that `--config` and `load_config` read."""
    path.write_text(yaml.safe_dump(config.as_dict(), sort_keys=False), encoding="utf-8")


def load_config(path: Path) -> Config:
    """Read a run's configuration.

    Raises:
        UserError: no such file, not YAML, a field that there is not, or a value of another type.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no file {path}; wanted the configuration of a run") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({first_line(error)})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: wanted a mapping of settings, found {type(values).__name__}")
    known = [f.name for f in fields(Config)]
    for name in values:
        if name not in known:
            raise UserError(f"{path}: unknown setting {name}{nearest(str(name), known)}")
    types = get_type_hints(Config)
    return Config(**{k: plain_value(v, types[k], f"{path}: {k}") for k, v in values.items()})
