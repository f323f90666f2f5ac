"""The settings of a run, in five groups: data, features, method, protocol, run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

import torch
import yaml

from fastzsl.errors import UserError, first_line, nearest
from fastzsl.features.engines import Engine, choose_engine
from fastzsl.features.views import Views
from fastzsl.files.atomic import write_text_atomically
from fastzsl.methods.attended.method import Attended
from fastzsl.methods.catalogue import find_method
from fastzsl.methods.method import Method
from fastzsl.methods.settings import check_settings
from fastzsl.training.values import plain_value

FORMAT = 2
"""Format number of config.yaml. Version 0.1.0 wrote one flat mapping without a format."""
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True)
class DataSettings:
    """Which data set, and where it is.

    Args:
        dataset: "shapes" is drawn by the package and tests whether attributes are found at one place; "folder" is
            your own images; "awa1" to "flo" are the benchmarks with their proposed splits; "hdf5" is a file of
            feature maps.
        root: folder of the data set. Of "folder": ROOT/images/<class>/* and ROOT/classes.csv with columns
            class,split,<attribute>... Of a benchmark: what xlsa17.zip unpacks to, with
            ROOT/CUB/att_splits.mat and ROOT/CUB/res101.mat.
        images: folder of a benchmark's own images; default: the pooled features of res101.mat.
        features: file of feature maps, as `python -m fastzsl.extract` makes it.
        class_embeddings: "att", "original_att", or your own .csv, .npz or .mat file (word vectors, for example).
        distractors: other objects in each image of "shapes".
        data_seed: classes, images and splits of "shapes"; split of the seen images of "folder".
        class_split: seed that draws which classes are unseen, instead of the data set's own split.
        skip_bad_images: leave out images that cannot be read, and count them, instead of stopping.
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

    def __post_init__(self) -> None:
        check_settings(
            self,
            not_negative=("distractors", "data_seed", "class_split"),
            largest={"distractors": 64, "data_seed": LARGEST_SEED, "class_split": LARGEST_SEED},
        )
        if self.dataset == "hdf5" and self.features is None:
            raise UserError("--dataset hdf5 needs --features FILE")
        if self.dataset not in ("shapes", "hdf5") and self.root is None:
            raise UserError(f"--dataset {self.dataset} needs --root DIR")


@dataclass(frozen=True)
class FeatureSettings:
    """The backbone, which computes region features from images.

    Args:
        backbone: efficientnet_lite0 (weights come with pip), any torchvision name, or timm/NAME.
        backbone_weights: file with the backbone's weights, or "random"; default: the published ones.
        image_size: side in pixels of the square images that the backbone gets; default: that of its weights. Twice
            the side gives four times the regions.
        engine: "openvino" is 2 to 3 times as fast as "torch" on the CPU and needs `pip install 'fastzsl[openvino]'`;
            "auto" uses it if it is installed.
        views: "flip" also extracts the mirror images and "crops" also the middle of both; a step of training draws one
            view of each image, and test scores are the mean over the views. Takes 2 or 4 times the space and time.
        finetune_epochs: above 0, the second half of the backbone is first trained for so many passes over the training
            images, to tell the seen classes apart. Each problem of held-out classes gets a backbone of its own.
    """

    backbone: str = "efficientnet_lite0"
    backbone_weights: str | None = None
    image_size: int | None = None
    engine: Engine = "auto"
    views: Views = "one"
    finetune_epochs: int = 0

    def __post_init__(self) -> None:
        check_settings(self, not_negative=("finetune_epochs",), largest={"finetune_epochs": 100_000})
        if self.image_size is not None and not 16 <= self.image_size <= 4096:
            raise UserError(f"--image-size is {self.image_size}; wanted 16 to 4096 pixels")


@dataclass(frozen=True)
class ProtocolSettings:
    """Choices on held-out seen classes.

    Args:
        gamma_folds: number of problems of held-out seen classes on which gamma is chosen; with 0, gamma is 0.
        choose_epochs: numbers of epochs, one of which is chosen on held-out seen classes before the training. Each
            needs gamma_folds trainings, which are then also used to choose gamma.
        choose_image_size: sizes of the images in pixels, one of which is chosen in the same way. Features of every size
            are extracted.
        recipe: "auto" compares the method's recipes for the training with its defaults on the problems that choose
            gamma, unless the epochs, the learning rate or the temperature were given; the name of a recipe takes it;
            "given" compares nothing. Other settings that were given stay.
    """

    gamma_folds: int = 3
    choose_epochs: tuple[int, ...] = ()
    choose_image_size: tuple[int, ...] = ()
    recipe: str = "auto"

    def __post_init__(self) -> None:
        check_settings(self, not_negative=("gamma_folds",), largest={"gamma_folds": 1000})
        if any(not epochs > 0 for epochs in self.choose_epochs):
            raise UserError(f"--choose-epochs is {self.choose_epochs}; wanted numbers above 0")


@dataclass(frozen=True)
class RunSettings:
    """Where and how it runs.

    Args:
        seed: decides initial weights, order of the images and held-out classes.
        out: run folder; default runs/<dataset>.
        resume: continue the run in the run folder, or start it if there is none.
        logger: where the figures of the training go beside metrics.jsonl: "tensorboard", "wandb" (Weights & Biases) or
            "mlflow".
        checkpoint_steps: a checkpoint is written after every epoch, and after this many steps within one.
        accelerator: "auto", "cpu", "cuda" or "mps".
        devices: number of devices.
        precision: Lightning Fabric's precision.
    """

    seed: int = 0
    out: Path | None = None
    resume: bool = False
    logger: Literal["tensorboard", "wandb", "mlflow"] = "tensorboard"
    checkpoint_steps: int = 500
    accelerator: str = "auto"
    devices: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"] = "32-true"

    def __post_init__(self) -> None:
        check_settings(
            self,
            positive=("checkpoint_steps", "devices"),
            not_negative=("seed",),
            largest={"seed": LARGEST_SEED, "devices": 1_000_000},
        )


@dataclass(frozen=True)
class Settings:
    """All settings of a run. No two groups have a setting of the same name."""

    data: DataSettings = field(default_factory=DataSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    method: Method = field(default_factory=Attended)
    protocol: ProtocolSettings = field(default_factory=ProtocolSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        if self.features.views != "one" and (self.method.trains_backbone or self.data.features is not None):
            raise UserError(
                f"--views {self.features.views} works on features that are extracted from images, "
                "without --train-backbone and --features"
            )
        if self.features.finetune_epochs and (self.method.trains_backbone or self.data.features is not None):
            raise UserError(
                f"--finetune-epochs {self.features.finetune_epochs} works on images, "
                "without --train-backbone and --features"
            )
        recipes = ("auto", "given", *self.method.recipes)
        if self.protocol.recipe not in recipes:
            raise UserError(
                f"--recipe {self.protocol.recipe}: the method {self.method.name} has no such recipe; "
                f"wanted one of {', '.join(recipes)}"
            )
        self._check_choices()

    def _check_choices(self) -> None:
        protocol = self.protocol
        if protocol.choose_image_size and self.data.features is not None:
            raise UserError("--choose-image-size extracts features, without --features")
        if protocol.choose_image_size and self.features.image_size is not None:
            raise UserError("--choose-image-size and --image-size: wanted one of them")
        for size in protocol.choose_image_size:
            replace(self.features, image_size=size)  # raises for a wrong one
        for flag in ("epochs", "image_size"):
            words = flag.replace("_", "-")
            if getattr(protocol, f"choose_{flag}") and self.method.trains_backbone:
                raise UserError(
                    f"--choose-{words} works on cached features, without --train-backbone; give --{words}"
                )
        if not protocol.choose_epochs:
            return
        if not hasattr(self.method, "epochs"):
            raise UserError(f"--choose-epochs: the method {self.method.name} has no epochs")

    @property
    def run_folder(self) -> Path:
        return self.run.out or Path("runs") / self.data.dataset

    def changed(self, **values: Any) -> Settings:
        """A copy in which the named settings, of whatever group, have these values.

        Raises:
            UserError: there is no such setting.
        """
        groups: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            groups.setdefault(self.group_of(name), {})[name] = value
        return replace(self, **{g: replace(getattr(self, g), **v) for g, v in groups.items()})

    def group_of(self, name: str) -> str:
        """The group that holds a setting.

        Raises:
            UserError: there is no such setting.
        """
        places = {f.name: g.name for g in fields(self) for f in fields(getattr(self, g.name))}
        if name not in places:
            raise UserError(
                f"there is no setting {name} of the method {self.method.name}{nearest(name, list(places))}"
            )
        return places[name]

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, as written to config.yaml."""
        plain: dict[str, Any] = {"format": FORMAT}
        for group in fields(self):
            values = getattr(self, group.name)
            plain[group.name] = {"name": values.name} if isinstance(values, Method) else {}
            plain[group.name] |= {f.name: _plain(getattr(values, f.name)) for f in fields(values)}
        return plain

    def decisive(self) -> dict[str, Any]:
        """The settings that decide the result, without groups. A run can be resumed only if they are the same."""
        values = {"method": self.method.name}
        for group in fields(self):
            own = getattr(self, group.name)
            values |= {f.name: _plain(getattr(own, f.name)) for f in fields(own)}
        return {k: v for k, v in values.items() if k not in ("out", "resume", "logger", "checkpoint_steps")}

    def with_absolute_paths(self) -> Settings:
        """The same with absolute paths of the data, so that the run can be opened from another folder."""
        data = self.data
        paths = {
            name: value.absolute()
            for name in ("root", "images", "features")
            if (value := getattr(data, name)) is not None
        }
        if data.class_embeddings not in ("att", "original_att"):
            paths["class_embeddings"] = str(Path(data.class_embeddings).absolute())  # type: ignore[assignment]
        weights = self.features.backbone_weights
        features = self.features
        if weights not in (None, "random"):
            features = replace(features, backbone_weights=str(Path(str(weights)).absolute()))
        return replace(self, data=replace(data, **paths), features=features)

    def with_recipe(self) -> Settings:
        """The same with the settings of the recipe that `--recipe` names written out, so that config.yaml keeps them.

        A later version may have another recipe of that name.
        """
        name = self.protocol.recipe
        if name not in self.method.recipes:
            return self
        return self.changed(**self.method.recipe(name), recipe="given")

    def with_engine(self, device: torch.device) -> Settings:
        """The same with the engine that "auto" means here, if features are extracted.

        Raises:
            UserError: an engine that cannot work on the device.
        """
        if self.data.features is not None or self.method.trains_backbone:
            return self
        return replace(
            self, features=replace(self.features, engine=choose_engine(self.features.engine, device))
        )


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def save_settings(settings: Settings, path: Path) -> None:
    """Write the YAML that `--config` and `load_settings` read."""
    write_text_atomically(path, yaml.safe_dump(settings.as_dict(), sort_keys=False))


def load_settings(path: Path) -> Settings:
    """Read a run's configuration.

    Raises:
        UserError: no such file, not YAML, of version 0.1.0, an unknown setting, or a value of another type.
    """
    values = _read_yaml(path)
    if "format" not in values and "dataset" in values:
        raise UserError(
            f"{path} was written by fastzsl 0.1.0; train again with this version, or open the run with 0.1.0"
        )
    if values.get("format", FORMAT) != FORMAT:
        raise UserError(
            f"{path} has format {values['format']}; this version reads {FORMAT}: a newer fastzsl wrote it"
        )
    groups = {f.name for f in fields(Settings)}
    for name in values:
        if name not in groups | {"format"}:
            raise UserError(f"{path}: unknown group {name}{nearest(str(name), sorted(groups))}")
    method = dict(_mapping(values.get("method"), path, "method"))
    method_class = find_method(str(method.pop("name", Attended.name)))
    classes = {
        "data": DataSettings, "features": FeatureSettings, "protocol": ProtocolSettings, "run": RunSettings,
    }  # fmt: skip
    read = {g: read_group(c, _mapping(values.get(g), path, g), str(path)) for g, c in classes.items()}
    return Settings(method=read_group(method_class, method, str(path)), **read)


def read_group(cls: Any, values: Mapping[str, Any], where: str) -> Any:
    """An instance of a settings dataclass from plain values.

    Raises:
        UserError: `where`, and the setting that is unknown or of another type.
    """
    known = [f.name for f in fields(cls)]
    for name in values:
        if name not in known:
            raise UserError(f"{where}: unknown setting {name}{nearest(str(name), known)}")
    types = get_type_hints(cls)
    return cls(**{k: plain_value(v, types[k], f"{where}: {k}") for k, v in values.items()})


def _read_yaml(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():  # a folder, a device that never ends, a pipe that waits
        raise UserError(f"{path} is no regular file; wanted the config.yaml of a run")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no file {path}; wanted the configuration of a run") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({first_line(error)})") from None
    except (RecursionError, ValueError) as error:
        raise UserError(f"{path}: not the settings of a run ({type(error).__name__})") from None
    return _mapping(values, path, "the file")


def _mapping(value: Any, path: Path, what: str) -> dict[str, Any]:
    if value is None and what != "the file":
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: {what} is {type(value).__name__}; wanted a mapping of settings")
    return value
