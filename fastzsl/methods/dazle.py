"""Attention with attributes as queries, in the manner of DAZLE, through the package's own fused attention.

After Huynh and Elhamifar, "Fine-Grained Generalized Zero-Shot Learning via Dense Attribute-Based Attention", CVPR 2020.
Their attributes are word vectors of the attributes' names. Most data sets have none, so attribute vectors are learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastzsl.methods.context import Context
from fastzsl.methods.engines.descriptions import Descriptions
from fastzsl.methods.engines.loop import minimise
from fastzsl.methods.engines.normalisation import Normalisation
from fastzsl.methods.engines.parts import BatchPart
from fastzsl.methods.method import ClassSet, Method, Model, Scorer
from fastzsl.methods.problem import Problem
from fastzsl.methods.register import register
from fastzsl.methods.settings import check_settings
from fastzsl.ops import dense_attention
from fastzsl.ops.stacked import products

MARGIN = 1.0
"""What the self-calibration adds to the unseen classes' scores."""


class DazleModel(Model):
    """Every attribute attends to the regions with its own query; a class sums the attributes that it has.

    With region x_t of unit length, attribute vectors v_a and matrices W_q, W_e, W_g:

        A_at = softmax_t(scale · (W_q v_a)' x_t),    h_a = sum_t A_at x_t
        e_a = (W_e v_a)' h_a,    g_a = sigmoid((W_g v_a)' h_a),    s_c = sum_a g_a e_a k_ca

    (W_e v_a)' x_t is the value of attribute a in region t, and e_a its attended mean.

    Args:
        feature_dim, embedding_dim: d and m.
        attributes: largest number of attributes; class embeddings with more numbers than that are replaced by
            their coordinates along so many principal directions of the seen classes.
        attribute_dim: size of a learned v_a; with 0, v_a are unit vectors, so that each attribute has its own rows.
        attention_scale: factor on the logits.
        embedding_normalisation: of the class embeddings.
        backend: of the attention.
    """

    directions: Tensor

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        *,
        attributes: int,
        attribute_dim: int,
        attention_scale: float,
        embedding_normalisation: Normalisation,
        backend: str,
    ) -> None:
        super().__init__()
        self.describe = Descriptions(embedding_normalisation, embedding_dim)
        self.attributes = min(attributes, embedding_dim)
        self.reduced = attributes < embedding_dim
        self.attention_scale, self.backend = attention_scale, backend
        directions = torch.zeros(embedding_dim, self.attributes) if self.reduced else torch.empty(0)
        self.register_buffer("directions", directions)
        size = attribute_dim or self.attributes
        self.vectors = nn.Parameter(torch.randn(self.attributes, size) / size**0.5) if attribute_dim else None
        self.query, self.value, self.gate = (
            nn.Parameter(torch.randn(size, feature_dim) / feature_dim**0.5) for _ in range(3)
        )

    @torch.no_grad()
    def fit_descriptions(self, seen: Tensor) -> None:
        """Fit the normalisation and the principal directions on the seen classes' embeddings (C_s, m)."""
        embedded = self.describe.fit(seen)
        if self.reduced:
            _, values, rows = torch.linalg.svd(embedded.double(), full_matrices=False)
            found = rows[: self.attributes] * (values[: self.attributes, None] > 1e-6 * values[0])
            found = found * torch.where(found.sum(1, keepdim=True) < 0, -1.0, 1.0)
            self.directions.zero_()
            self.directions[:, : len(found)] = found.mT.to(self.directions)

    def attributes_of(self, descriptions: Tensor) -> Tensor:
        """k (C, n): how much of each attribute a class has."""
        embedded = self.describe(descriptions)
        return embedded @ self.directions if self.reduced else embedded

    def _rows(self, matrix: Tensor) -> Tensor:
        """W v_a of all attributes, (n, d)."""
        return matrix if self.vectors is None else self.vectors @ matrix

    def evidence(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """g e (B, n), the contribution of each attribute to the scores of the image, and g (B, n)."""
        attended = dense_attention(
            F.normalize(regions.to(self.value.dtype), dim=-1), self._rows(self.query),
            scale=self.attention_scale, backend=self.backend,
        )  # fmt: skip
        value, gate = products(attended, torch.stack([self._rows(self.value), self._rows(self.gate)]))
        gate = gate.sigmoid()
        return gate * value, gate

    def classifier(self, classes: ClassSet) -> Scorer:
        owned = self.attributes_of(classes.descriptions)
        return lambda regions: self.evidence(regions)[0] @ owned.mT

    @property
    def shows_attributes(self) -> bool:
        """Not where the embeddings are reduced: the queries are then those of principal directions."""
        return not self.reduced

    def attribute_attention(self, features: Tensor) -> Tensor:
        """The attention of each attribute, (B, n, T), rows that sum to 1; n = m unless the embeddings are reduced."""
        return dense_attention(
            F.normalize(features.to(self.value.dtype), dim=-1), self._rows(self.query),
            scale=self.attention_scale, return_attention=True, backend=self.backend,
        )[1]  # fmt: skip

    def attention(self, features: Tensor, descriptions: Tensor) -> Tensor:
        """The attributes' attention (B, C, T), weighted in each class by |g_a k_ca|."""
        maps = self.attribute_attention(features)
        weights = self.evidence(features)[1][:, None] * self.attributes_of(descriptions).abs()
        shares = weights / weights.sum(2, keepdim=True).clamp_min(1e-12)
        even = torch.full_like(shares, 1 / shares.shape[2])
        return torch.where(weights.sum(2, keepdim=True) > 0, shares, even) @ maps


class DazleObjective(nn.Module):
    """Cross-entropy over the seen classes and self-calibration towards the unseen ones.

    Args:
        model: scores.
        seen: (C_s, m) descriptions; unseen: (C_u, m) or None without self-calibration.
        temperature: factor on the scores.
        calibration: weight of the second term.
    """

    def __init__(
        self, model: DazleModel, seen: Tensor, unseen: Tensor | None, temperature: float, calibration: float
    ) -> None:
        super().__init__()
        self.model, self.temperature, self.calibration = model, temperature, calibration
        self.seen = len(seen)
        owned = seen if unseen is None else torch.cat([seen, unseen])
        self.owned = model.attributes_of(owned)

    def forward(self, inputs: Tensor, labels: Tensor, part: BatchPart) -> dict[str, Tensor]:
        scores = self.temperature * (self.model.evidence(inputs)[0] @ self.owned.mT)
        terms = {"classification": F.cross_entropy(scores[:, : self.seen], labels)}
        total = terms["classification"]
        if self.calibration:
            terms["self_calibration"] = self_calibration(scores, self.seen)
            total = total + self.calibration * terms["self_calibration"]
        return {"loss": part.weight * total, **terms}


def self_calibration(scores: Tensor, seen: int) -> Tensor:
    """-mean log sum_{c unseen} softmax(s + 1[c unseen])_c: it keeps some probability for the unseen classes.

    Args:
        scores: (B, C_s + C_u), the seen classes first.
        seen: C_s.
    """
    shifted = torch.cat([scores[:, :seen], scores[:, seen:] + MARGIN], 1)
    return -(shifted[:, seen:].logsumexp(1) - shifted.logsumexp(1)).mean()


@register
@dataclass(frozen=True)
class Dazle(Method):
    """DAZLE-style attention. Every attribute a attends to the regions of unit length with its own query q_a:

        h_a = sum_t softmax_t(scale · q_a' x_t) x_t,    s_c = sum_a sigmoid(w_a' h_a) · (u_a' h_a) · k_ca

    and the cross-entropy over the seen classes is minimised, plus `calibration` times
    -log sum_{c unseen} softmax(s + 1[c unseen])_c, which reads the unseen classes' descriptions while training.

    Args:
        attributes: largest number of attributes; class embeddings with more numbers, such as sentence embeddings,
            are replaced by their coordinates along so many principal directions of the seen classes.
        attribute_dim: size of the learned attribute vectors, of which q_a, w_a and u_a are linear functions; with 0
            these are learned separately for each attribute.
        attention_scale: factor on the attention's logits.
        temperature: factor on the scores in the losses.
        embedding_normalisation: of the class embeddings.
        calibration: weight of the self-calibration; with 0 the unseen classes' descriptions are not read.
        epochs: passes over the training images, at whose end the learning rate is 0.
        batch_size: images in a step, over all devices.
        lr: highest learning rate of AdamW; it warms up and decays along a cosine.
        weight_decay: of AdamW.
        backend: backend of the fused attention.
    """

    name: ClassVar[str] = "dazle"
    label: ClassVar[str] = "DAZLE-style attention"
    reads: ClassVar[Literal["regions", "pooled"]] = "regions"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "attention_scale": (3.0, 10.0, 30.0),
        "calibration": (0.0, 0.1, 1.0),
        "embedding_normalisation": ("unit", "centre", "whiten"),
        "lr": (3e-4, 1e-3, 3e-3),
        "epochs": (5, 15, 30),
    }
    budget: ClassVar[Mapping[str, Any]] = {"attributes": 64, "epochs": 5}

    attributes: int = 400
    attribute_dim: int = 0
    attention_scale: float = 10.0
    temperature: float = 10.0
    embedding_normalisation: Normalisation = "centre"
    calibration: float = 0.1
    epochs: int = 15
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.1
    backend: Literal["auto", "eager", "native", "triton"] = "auto"

    def __post_init__(self) -> None:
        check_settings(
            self,
            positive=("attributes", "temperature", "epochs", "batch_size", "lr"),
            not_negative=("attribute_dim", "attention_scale", "calibration", "weight_decay"),
            largest={"attributes": 1_000_000, "attribute_dim": 1_000_000, "attention_scale": 1e30},
        )

    @property
    def descriptions(self) -> Literal["seen", "all"]:
        return "all" if self.calibration else "seen"

    def build(self, feature_dim: int, embedding_dim: int, backbone: object = None) -> DazleModel:
        return DazleModel(
            feature_dim, embedding_dim, attributes=self.attributes, attribute_dim=self.attribute_dim,
            attention_scale=self.attention_scale, embedding_normalisation=self.embedding_normalisation,
            backend=self.backend,
        )  # fmt: skip

    def fit(self, model: DazleModel, problem: Problem, context: Context) -> None:  # type: ignore[override]
        model.to(context.device)
        seen, unseen = problem.seen_descriptions.to(context.device), None
        model.fit_descriptions(seen)
        if self.calibration and len(problem.unseen_descriptions):
            unseen = problem.unseen_descriptions.to(context.device)
        weight = self.calibration if unseen is not None else 0.0
        objective = DazleObjective(model, seen, unseen, self.temperature, weight)
        optimizer = torch.optim.AdamW(model.parameters(), self.lr, weight_decay=self.weight_decay, fused=True)
        minimise(
            model, objective, optimizer, problem.regions, problem.labels, context,
            epochs=self.epochs, batch_size=self.batch_size,
        )  # fmt: skip
