"""The paper's model: an autoencoder of class embeddings whose code is a query that attends to the image."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastzsl import losses
from fastzsl.features.stored import Stored
from fastzsl.methods.attended.attention import FusedDenseAttention, as_regions
from fastzsl.methods.attended.dropout import random_channels, random_regions
from fastzsl.methods.attended.encoder import SemanticEncoder
from fastzsl.methods.engines.normalisation import Normalisation, fit_columns, span, whitening
from fastzsl.methods.engines.parts import BatchPart
from fastzsl.methods.method import ClassSet, Model, Scorer
from fastzsl.ops import attended_scores, prepare_regions
from fastzsl.ops.linear import linear

SPARSE = 4
"""Class embeddings with at least this many numbers a dimension that they span are reduced to that span."""


class AttendedAutoencoder(Model):
    """Encoder h_e, dense attention and decoder h_d; the decoder is also the visual-semantic mapping g.

    A class embedding k is encoded to a query h = h_e(k). The query pools the image's regions to the class's attended
    feature x~ (equation 3), and the decoder maps x~ to an embedding h_d(x~). The predicted class is the one whose
    h_d(x~) is most similar to its k (equation 8). `attended_scores` computes the scores without building x~ for every
    class.

    Args:
        feature_dim: d, size of a region's feature.
        embedding_dim: m, size of a class embedding.
        hidden: size of the encoder's hidden sigmoid layer.
        query_length: length given to every query h; with 0, h is the encoder's output.
        similarity: "cosine" or "dot".
        temperature: the classification loss sees `temperature · score`; cosine hardly trains at 1.
        attention_scale: factor on the logits X^T H. The regions have unit RMS length and L_MA keeps |h| near 1,
            so this decides how sharp the attention can be.
        coupled: g = h_d (equation 7). With False the mapping g has its own weights.
        feature_power: exponent on the absolute value of every feature. A few channels dominate the inner products of a
            rectified conv map, and 0.5 reduces their influence; 1 changes nothing.
        feature_dropout: share of feature channels set to zero for a whole image in training.
        region_dropout: share of regions dropped in training, so that no single region decides.
        embedding_normalisation: of the class embeddings, see `fastzsl.methods.engines.normalisation`.
        backbone: images to feature maps, or None when region features are given.
        backend: backend of the ops.
    """

    feature_scale: Tensor
    embedding_shift: Tensor
    embedding_factor: Tensor
    embedding_basis: Tensor

    def __init__(
        self,
        feature_dim: int,
        embedding_dim: int,
        *,
        hidden: int = 512,
        query_length: float = 0.0,
        similarity: Literal["cosine", "dot"] = "cosine",
        temperature: float = 10.0,
        attention_scale: float = 10.0,
        coupled: bool = True,
        feature_power: float = 0.5,
        feature_dropout: float = 0.4,
        region_dropout: float = 0.5,
        embedding_normalisation: Normalisation = "centre",
        backbone: nn.Module | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.encoder = SemanticEncoder(embedding_dim, feature_dim, hidden, query_length, backend)
        self.decoder = nn.Linear(feature_dim, embedding_dim)
        self.own_mapping = None if coupled else nn.Linear(feature_dim, embedding_dim)
        self.dense_attention = FusedDenseAttention(attention_scale, backend)
        self.similarity, self.temperature = similarity, temperature
        self.feature_power = feature_power
        self.feature_dropout, self.region_dropout = feature_dropout, region_dropout
        self.embedding_normalisation = embedding_normalisation
        self.backbone = backbone
        self.register_buffer("feature_scale", torch.ones(()))
        self.register_buffer("embedding_shift", torch.zeros(embedding_dim))
        self.register_buffer("embedding_factor", torch.ones(embedding_dim))
        if embedding_normalisation == "whiten":
            self.register_buffer("embedding_whitening", torch.eye(embedding_dim))
        self.register_fitted("embedding_basis")
        self._asked_for_scaling = False

    @property
    def mapping(self) -> nn.Linear:
        """The visual-semantic mapping g: the decoder h_d itself where they are coupled."""
        return self.decoder if self.own_mapping is None else self.own_mapping

    def _ask_for_scaling(self) -> None:
        """Warn, once, if a loss is computed before `fit_scaling` or loaded weights gave the inputs their scale."""
        if self._asked_for_scaling or torch.compiler.is_compiling():
            return
        self._asked_for_scaling = True
        if bool(self.feature_scale == 1):
            warnings.warn(
                "AttendedAutoencoder is trained without fit_scaling: call fit_scaling(regions, seen_embeddings) once, "
                "on training data, before the first loss; otherwise losses can be hundreds of times too large",
                stacklevel=3,
            )

    @torch.no_grad()
    def fit_scaling(self, regions: Tensor, seen_embeddings: Tensor) -> None:
        """Fix the scale of the inputs from training data only.

        Regions are compressed by `feature_power`, then divided by the root mean square of their lengths.
        The statistics of K's columns that `embedding_normalisation` needs are those of the seen classes. They are saved
        with the weights, so that new classes are normalised in the same way.

        Args:
            regions: (B, T, d) of training images, or (N, d).
            seen_embeddings: (C_s, m).
        """
        compressed = prepare_regions(regions.reshape(1, -1, regions.shape[-1]), power=self.feature_power)
        self.feature_scale = compressed.square().sum(-1).mean().rsqrt()
        self.embedding_shift, self.embedding_factor = fit_columns(
            seen_embeddings, self.embedding_normalisation
        )
        if self.embedding_normalisation == "whiten":
            rows = F.normalize(seen_embeddings.to(self.embedding_shift) - self.embedding_shift, dim=-1)
            self.embedding_whitening = whitening(rows)

    @torch.no_grad()
    def fit_span(self, class_embeddings: Tensor) -> None:
        """Express class embeddings by their coordinates in the space that those of the training span.

        C classes span at most C dimensions. If m is at least four times that number r (a sentence embedding, for
        example), the encoder and the decoder get new weights for r coordinates instead of m. Inner products of the
        given class embeddings stay the same; all products with the decoder cost r instead of m; and the decoder has no
        outputs that no class has, which would only lengthen its output in the cosine. A new class is projected.

        Call it after `fit_scaling`, and before an optimizer takes the parameters. It does nothing if 4 r > m: the
        coordinates have other axes, and where each attribute has its own meaning, the encoder generalises better along
        the attributes themselves (`shapes`: T1 .78 with its 20 attributes, .70 with 17 coordinates).

        Args:
            class_embeddings: (C, m), all that training reads.
        """
        basis = span(self._normalised(class_embeddings))
        if SPARSE * basis.shape[1] <= len(basis):
            self._take_basis(basis)

    def _take_basis(self, basis: Tensor) -> None:
        """Use the coordinates of `basis` (m, r), with new weights of that size."""
        self.embedding_basis = basis
        r, (d, old) = basis.shape[1], (self.decoder.in_features, self.decoder.weight)
        encoder = self.encoder
        self.encoder = SemanticEncoder(r, d, encoder.hidden.out_features, encoder.length, encoder.backend).to(
            old
        )
        self.decoder = nn.Linear(d, r).to(old)
        self.own_mapping = None if self.own_mapping is None else nn.Linear(d, r).to(old)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:  # type: ignore[override]
        # Weights of models that were trained before there was a basis have none.
        basis = state_dict.setdefault(prefix + "embedding_basis", torch.empty(0))
        if isinstance(basis, Tensor) and basis.ndim == 2 and basis.shape != self.embedding_basis.shape:
            self._take_basis(torch.empty_like(basis, device=self.embedding_shift.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def embed(self, class_embeddings: Tensor) -> Tensor:
        """K normalised as it was fitted, (C, m) -> (C, m); coordinates (C, r) after `fit_span`."""
        scaled = self._normalised(class_embeddings)
        if not self.embedding_basis.numel():
            return scaled
        inside = scaled @ self.embedding_basis.to(scaled)
        return inside if self.embedding_normalisation == "none" else F.normalize(inside, dim=-1)

    def _normalised(self, class_embeddings: Tensor) -> Tensor:
        """K normalised by `embedding_normalisation`, (C, m) -> (C, m)."""
        own_type = class_embeddings.to(self.embedding_shift.dtype)
        scaled = (own_type - self.embedding_shift) * self.embedding_factor
        if self.embedding_normalisation == "none":
            return scaled
        rows = F.normalize(scaled, dim=-1)
        return (
            rows
            if self.embedding_normalisation != "whiten"
            else F.normalize(rows @ self.embedding_whitening, dim=-1)
        )

    def regions(self, inputs: Tensor | Stored, part: BatchPart | None = None) -> Tensor:
        """X (B, T, d) at unit RMS length from images, feature maps (B, d, h, w), regions (B, T, d) or stored ones."""
        stored = Stored(as_regions(self._encoded(inputs))) if isinstance(inputs, Tensor) else inputs
        if not self.training:
            return self._prepare(stored, None, self.feature_scale)
        part = part or BatchPart(slice(None), stored.shape[0])
        kept = self._kept_regions(stored, part) if self.region_dropout else None
        return self._prepare(stored, kept, self._channel_factor(stored, part))

    def _encoded(self, inputs: Tensor) -> Tensor:
        """Feature maps of images; features pass through."""
        if self.backbone is None or inputs.ndim != 4 or inputs.shape[1] != 3:
            return inputs
        maps: Tensor = self.backbone(inputs)
        return maps

    def _prepare(self, stored: Stored, kept: Tensor | None, factor: Tensor) -> Tensor:
        return stored.prepare(
            kept=kept, power=self.feature_power, factor=factor, dtype=self.feature_scale.dtype,
            backend=self.dense_attention.backend,
        )  # fmt: skip

    def _kept_regions(self, regions: Stored, part: BatchPart) -> Tensor:
        """A random part of every image's regions, (B, T')."""
        T = regions.shape[1]
        kept = max(1, round((1 - self.region_dropout) * T))
        return random_regions(part.whole, T, kept, regions.device)[part.rows]

    def _channel_factor(self, regions: Stored, part: BatchPart) -> Tensor:
        """The scale, with a random part of every image's channels zero and the others larger in return, (B, 1, d)."""
        if not self.feature_dropout:
            return self.feature_scale
        alive = random_channels(part.whole, regions.shape[2], 1 - self.feature_dropout, regions.device)
        return alive[part.rows, None] * (self.feature_scale / (1 - self.feature_dropout))

    def forward(self, inputs: Tensor, class_embeddings: Tensor) -> Tensor:
        """Scores s(h_d(x~^c), k^c) of every image and class, equation 8's argument.

        Args:
            inputs: images (B, 3, H, W) if there is a backbone, feature maps (B, d, h, w) or regions (B, T, d).
            class_embeddings: raw K (C, m) of any classes, seen or not.

        Returns:
            scores (B, C): cosines, or dot products, without the temperature.
        """
        embeddings = self.embed(class_embeddings)
        return self.score(self.regions(inputs), self.encoder(embeddings), embeddings)

    def score(self, regions: Tensor, queries: Tensor, embeddings: Tensor) -> Tensor:
        """Scores (B, C) from scaled regions, queries H (C, d) and embedded classes (C, m)."""
        weight, bias = self.mapping.weight, self.mapping.bias
        return attended_scores(
            regions, queries, weight, bias, embeddings,
            similarity=self.similarity, scale=self.dense_attention.scale, backend=self.dense_attention.backend,
        )  # fmt: skip

    def classifier(self, classes: ClassSet) -> Scorer:
        """Scores as `forward` gives them, with the queries computed once."""
        embeddings = self.embed(classes.descriptions)
        queries = self.encoder(embeddings)
        return lambda features: self.score(self.regions(features), queries, embeddings)

    def attention(self, features: Tensor, descriptions: Tensor) -> Tensor | None:
        """A (B, C, T) of equation 3."""
        return self.attend(features, descriptions)[1]

    def attend(self, inputs: Tensor, class_embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Attended features X~ (B, C, d) and attention A (B, C, T) of equation 3."""
        queries = self.encoder(self.embed(class_embeddings))
        return self.dense_attention(self.regions(inputs), queries, need_weights=True)

    def loss(
        self,
        inputs: Tensor | Stored,
        labels: Tensor,
        class_embeddings: Tensor,
        seen: Tensor,
        *,
        alpha: float = 0.02,
        eta: float = 1.0,
        reduction: str = "mean",
        reconstruct: Literal["all", "seen"] = "all",
        part: BatchPart | None = None,
    ) -> dict[str, Tensor]:
        """Equation 7: L = L_CLS + alpha · L_MA + eta · L_SR.

        Args:
            inputs: a batch, as in `forward`.
            labels: (B,) class ids among 0..C-1, all seen.
            class_embeddings: raw K (C, m) of all classes.
            seen: (C_s,) ids of the seen classes; equations 4 and 5 run over these.
            alpha, eta: weights; a term with weight 0 is not computed.
            reduction: "mean" or "sum" in L_MA and L_SR, see `losses`.
            reconstruct: classes of equation 6: "all" as in the paper, which needs the unseen classes' descriptions
                (not their images) while training, or "seen".
            part: which of a batch's images these are, if several devices share it.

        Returns:
            {"loss", "classification", "manifold_alignment", "semantic_reconstruction"}, scalars.
        """
        self._ask_for_scaling()
        embeddings = self.embed(class_embeddings)
        queries = self.encoder(embeddings)
        own, known = queries[seen], embeddings[seen]
        scores = self.score(self.regions(inputs, part), own, known)
        terms = {"classification": losses.classification(self.temperature * scores, _position(labels, seen))}
        total = terms["classification"]
        if alpha:
            terms["manifold_alignment"] = losses.manifold_alignment(
                own, known, reduction=reduction, backend=self.encoder.backend
            )
            total = total + alpha * terms["manifold_alignment"]
        if eta:
            classes = slice(None) if reconstruct == "all" else seen
            decoded = linear(queries[classes], self.decoder.weight, self.decoder.bias, self.encoder.backend)
            terms["semantic_reconstruction"] = losses.semantic_reconstruction(
                decoded, embeddings[classes], reduction=reduction
            )
            total = total + eta * terms["semantic_reconstruction"]
        return {"loss": total, **terms}


def _position(labels: Tensor, seen: Tensor) -> Tensor:
    """Positions of class ids in the sorted list `seen`."""
    return torch.searchsorted(seen, labels)
