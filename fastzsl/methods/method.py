"""The interface between a zero-shot method and the rest of the package: settings, training, trained model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from fastzsl.methods.context import Context
    from fastzsl.methods.problem import Problem


class ClassSet(NamedTuple):
    """The classes that an image can be assigned to.

    Attributes:
        descriptions: (C, m) float32 class embeddings in the units of the data set.
        training_ids: (C,) int64, the class's position among the training classes, -1 for a class without training
            images.
    """

    descriptions: Tensor
    training_ids: Tensor


Scorer = Callable[[Tensor], Tensor]
"""Features of B images -> scores (B, C): regions (B, T, d) or pooled features (B, d), as the method reads them."""


class Model(nn.Module):
    """A trained method. A run saves only its state_dict.

    Attributes:
        reads: the input of a scorer, copied from the method by `new_model`.
        depends_on_class_set: whether a class's score depends on the other classes of the set, for example because a
            classifier is fitted to synthetic features. T1 then uses a classifier of the unseen classes alone.
        backbone: the trained backbone of a method that trains one; its scorers then take images.
    """

    reads: Literal["regions", "pooled"] = "pooled"
    depends_on_class_set: ClassVar[bool] = False
    backbone: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        self.backbone = None
        self._fitted: tuple[str, ...] = ()

    def register_fitted(self, *names: str) -> None:
        """Declare buffers whose shape is known only after `fit`; they are empty until then.

        Assign tensors to them in `fit`; `load_state_dict` takes whatever shape was saved.
        """
        self._fitted += names
        for name in names:
            self.register_buffer(name, torch.empty(0))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        for name in self._fitted:
            saved = state_dict.get(prefix + name)
            if isinstance(saved, Tensor):
                setattr(self, name, torch.empty_like(saved, device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def classifier(self, classes: ClassSet) -> Scorer:
        """A scorer for these classes. Do here what is needed only once for a set of classes.

        Args:
            classes: seen ones, new ones, or both, on the model's device.
        """
        raise NotImplementedError

    def attention(self, features: Tensor, descriptions: Tensor) -> Tensor | None:
        """The attention of each class, (B, C, T), rows that sum to 1. None for a model without attention.

        Args:
            features: the input of a scorer.
            descriptions: (C, m) class embeddings.
        """
        return None

    @property
    def shows_attributes(self) -> bool:
        """Whether `attribute_attention` shows where the model looks for each single attribute."""
        return False

    def attribute_attention(self, features: Tensor) -> Tensor:
        """The attention of each attribute, (B, m, T), rows that sum to 1. Only where `shows_attributes`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Method:
    """A zero-shot method. The fields of a subclass are its settings; its docstring explains them in `--help`.

    Class attributes:
        name: on the command line and in config.yaml.
        label: name in the tables, and key of the published figures.
        reads: "regions" (B, T, d) or "pooled" features (B, d), the mean over the regions.
        calibrated: whether gamma (equation 9) is chosen for it.
        grid: values that the search on held-out seen classes tries for each setting.
        full_grid: try all combinations of the grid; else one setting after the other.
        budget: settings of the documented cheap variant, for `reproduce --budget`.
        recipes: by name, other settings of the training that suit some data better. `train` compares them with the
            defaults on held-out seen classes.
        version: part of a trial's identity. Raise it when a change makes the same settings give other results.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    reads: ClassVar[Literal["regions", "pooled"]] = "pooled"
    calibrated: ClassVar[bool] = True
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    full_grid: ClassVar[bool] = False
    budget: ClassVar[Mapping[str, Any]] = {}
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    version: ClassVar[int] = 1

    @property
    def descriptions(self) -> Literal["seen", "all"]:
        """Which class descriptions `fit` reads. `Problem` refuses all others."""
        return "seen"

    @property
    def has_idle_parameters(self) -> bool:
        """Whether some parameter gets no gradient; several devices must then check for it in every step."""
        return False

    @property
    def trains_backbone(self) -> bool:
        """Whether `fit` trains the backbone too, on images instead of stored features."""
        return False

    def build(self, feature_dim: int, embedding_dim: int, backbone: nn.Module | None = None) -> Model:
        """An untrained model.

        Args:
            feature_dim: d, size of a region's feature.
            embedding_dim: m, size of a class embedding.
            backbone: only where `trains_backbone`.
        """
        raise NotImplementedError

    def fit(self, model: Model, problem: Problem, context: Context) -> None:
        """Train `model` in place on the data of `problem`.

        The same problem, settings and `context.seed` give the same weights, bit for bit.
        """
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def given(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        defaults = type(self)().settings()
        return {k: v for k, v in self.settings().items() if v != defaults[k]}

    def recipe(self, name: str) -> dict[str, Any]:
        """What the recipe `name` changes. A setting that was given stays: a model without a part stays without it."""
        return {k: v for k, v in self.recipes[name].items() if k not in self.given()}

    def identity(self) -> dict[str, Any]:
        """Everything that decides a result: name, version, and the settings that differ from their defaults.

        So a new setting whose default changes nothing leaves old trials valid.
        """
        return {"method": self.name, "version": self.version, "settings": self.given()}


def new_model(
    method: Method, feature_dim: int, embedding_dim: int, seed: int, backbone: nn.Module | None = None
) -> Model:
    """`method.build` with weights drawn from `seed`; the global random state stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = method.build(feature_dim, embedding_dim, backbone)
    model.reads = method.reads
    return model
