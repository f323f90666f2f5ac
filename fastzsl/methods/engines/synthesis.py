"""The model of the generative methods: make features of classes without images, then fit a classifier to them."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastzsl.methods.context import Context
from fastzsl.methods.engines.normalisation import Normalisation
from fastzsl.methods.engines.scaled import ScaledModel, TrainingData
from fastzsl.methods.engines.scaling import FeatureNorm
from fastzsl.methods.engines.softmax import fit_softmax_by_adam
from fastzsl.methods.method import ClassSet, Scorer
from fastzsl.methods.problem import Problem

KEPT_SCORERS = 4
"""Number of class sets whose classifiers are cached."""
CHUNK = 4096
"""Number of features synthesised at a time."""


class SynthesisModel(ScaledModel):
    """A generator of features, and classifiers fitted to the features that it makes for a set of classes.

    The noise is the same for every class, so that a class's features do not depend on the other classes. The classifier
    of a set of classes is fitted once and cached; the last few sets are kept.

    Args:
        feature_dim, embedding_dim: d and m.
        noise_dim: size of z.
        feature_norm: scaling of the features that the generator imitates.
        embedding_normalisation: of the class embeddings.
        synthetic: features made for a class.
    """

    depends_on_class_set = True
    noise_seed: Tensor

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        noise_dim: int,
        *,
        feature_norm: FeatureNorm,
        embedding_normalisation: Normalisation,
        synthetic: int,
    ) -> None:
        super().__init__(feature_dim, embedding_dim, feature_norm, embedding_normalisation)
        self.noise_dim, self.synthetic = noise_dim, synthetic
        self.register_buffer("noise_seed", torch.zeros((), dtype=torch.long))
        self._scorers: dict[bytes, Scorer] = {}

    @abstractmethod
    def generate(self, noise: Tensor, descriptions: Tensor) -> Tensor:
        """z (B, noise_dim) and normalised a (B, m) -> scaled features (B, d)."""

    @abstractmethod
    def fit_scorer(self, classes: ClassSet) -> Scorer:
        """A scorer of unscaled features for these classes."""

    def classifier(self, classes: ClassSet) -> Scorer:
        key = hashlib.sha256(
            classes.descriptions.cpu().numpy().tobytes() + classes.training_ids.cpu().numpy().tobytes()
        ).digest()
        if key not in self._scorers:
            with torch.no_grad():
                scorer = self.fit_scorer(classes)
            while len(self._scorers) >= KEPT_SCORERS:
                del self._scorers[next(iter(self._scorers))]
            self._scorers[key] = scorer
        return self._scorers[key]

    @torch.no_grad()
    def synthesise(self, descriptions: Tensor) -> Tensor:
        """Scaled features of the classes, (C, m) -> (C, synthetic, d)."""
        embedded = self.describe(descriptions)
        random = torch.Generator().manual_seed(int(self.noise_seed))
        noise = torch.randn(self.synthetic, self.noise_dim, generator=random).to(embedded)
        parts = [
            self.generate(noise.repeat(len(some), 1), some.repeat_interleave(len(noise), 0))
            for some in embedded.split(max(1, CHUNK // self.synthetic))
        ]
        return torch.cat(parts).view(len(embedded), self.synthetic, -1)

    def fit_scales(self, problem: Problem, context: Context) -> TrainingData:
        """As `ScaledModel`; the noise of the synthesis is that of the training's seed."""
        self._scorers.clear()
        self.noise_seed.fill_(context.seed)
        return super().fit_scales(problem, context)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        self._scorers.clear()
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> SynthesisModel:
        self._scorers.clear()  # the cached scorers are on the old device
        super()._apply(fn, recurse)
        return self


class FinalSoftmax(NamedTuple):
    """How the last classifier is fitted.

    Attributes:
        epochs: passes over its features.
        lr: of Adam.
        betas: of Adam.
        batch_size: features in a step; 0 uses the number that is synthesised for a class, as f-CLSWGAN does.
    """

    epochs: int
    lr: float
    betas: tuple[float, float] = (0.5, 0.999)
    batch_size: int = 0


class SynthesisThenSoftmax(SynthesisModel):
    """A softmax over all classes, fitted to real features of classes with training images, synthetic ones of others.

    The scaled training features are part of the model, because the softmax is fitted again for every set of
    classes. They are saved in float16: 2 N d bytes.

    Args:
        final: how the softmax is fitted.
    """

    real_features: Tensor
    real_labels: Tensor

    def __init__(self, *sizes: int, final: FinalSoftmax, **kwargs: Any) -> None:
        super().__init__(*sizes, **kwargs)
        self.final = final
        self.register_fitted("real_features", "real_labels")

    def keep_real(self, features: Tensor, labels: Tensor) -> None:
        """Keep the scaled training features (N, d) and labels (N,)."""
        self.real_features, self.real_labels = features.half(), labels.clone()

    def fit_scorer(self, classes: ClassSet) -> Scorer:
        features, labels = self.training_set(classes)
        found = fit_softmax_by_adam(
            features, labels, len(classes.descriptions), epochs=self.final.epochs,
            batch_size=self.final.batch_size or self.synthetic, lr=self.final.lr, betas=self.final.betas,
            seed=int(self.noise_seed),
        )  # fmt: skip
        return lambda inputs: found.log_probabilities(self.scaling(inputs.to(features)))

    def training_set(self, classes: ClassSet) -> tuple[Tensor, Tensor]:
        """The features (n, d) and their positions among `classes` (n,), to which the softmax is fitted."""
        ids = classes.training_ids
        trained, new = (ids >= 0).nonzero()[:, 0], (ids < 0).nonzero()[:, 0]
        largest = max(int(self.real_labels.max()), int(ids.max()))
        place = torch.full((largest + 1,), -1, device=ids.device)
        place[ids[trained]] = trained
        of_real = place[self.real_labels]
        made = self.synthesise(classes.descriptions[new]).flatten(0, 1) if len(new) else None
        features, labels = [self.real_features[of_real >= 0].float()], [of_real[of_real >= 0]]
        if made is not None:
            features.append(made)
            labels.append(new.repeat_interleave(self.synthetic))
        return torch.cat(features), torch.cat(labels)
