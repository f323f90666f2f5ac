"""Recognise images with a trained run, among its own classes or new ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fastzsl.errors import UserError, nearest
from fastzsl.features.backbones import Backbone, load_backbone
from fastzsl.features.engines import Engine, choose_engine, frozen
from fastzsl.features.throughput import in_batches
from fastzsl.features.views import VIEWS, Views, view_of
from fastzsl.methods.method import ClassSet, Model, Scorer
from fastzsl.methods.problem import pool
from fastzsl.prediction.classes import Beside, CandidateClasses, Classes, Missing, OwnClasses
from fastzsl.prediction.images import ImageInput, decode_image, each_image, list_images
from fastzsl.prediction.result import Prediction
from fastzsl.prediction.shots import Shots, ShotTerm, list_shots, read_means, shot_term
from fastzsl.protocol.probabilities import Probabilities, read_probabilities
from fastzsl.protocol.scoring import place_of
from fastzsl.protocol.shots import ClassMeans, ShotWeights, read_shot_weights
from fastzsl.text import describe_like, read_record
from fastzsl.training.finetuning import load_trunk
from fastzsl.training.opened import open_run


class _Recognised(NamedTuple):
    scores: Tensor
    attention: Tensor | None
    attributes: Mapping[str, Tensor]


class _Read(NamedTuple):
    name: str
    error: str | None


class Recogniser:
    """A trained model, its backbone and its classes; made by `load`.

    Args:
        model: scores region features, or images if it contains its own trained backbone.
        backbone: for images; the model's own backbone if it was trained.
        own: the run's classes and gamma.
        device: where both run.
        half: round the backbone's features to float16, because the model was trained on features stored so.
        record: what made the class embeddings from texts, as the run keeps it; None if they are not from texts.
        probabilities: chosen with gamma, for a choice "among_all" and "among_unseen" classes.
        views: of an image, over which the scores are averaged, as in the run's evaluation.
        means, shot_weights: for a few images of new classes; None for a run without.
    """

    def __init__(
        self,
        model: Model,
        backbone: Backbone,
        own: OwnClasses,
        device: torch.device,
        half: bool = False,
        record: Mapping[str, Any] | None = None,
        probabilities: Mapping[str, Probabilities] | None = None,
        views: Views = "one",
        means: ClassMeans | None = None,
        shot_weights: ShotWeights | None = None,
    ) -> None:
        self.model, self.backbone = model.eval(), backbone.eval().to(device)
        self._maps_of = frozen(self.backbone)
        self.own, self.device, self.half, self.record = own, device, half, record
        self.probabilities = dict(probabilities or {})
        self.views = views
        self.means, self.shot_weights = means, shot_weights

    @property
    def class_names(self) -> tuple[str, ...]:
        """The run's own classes, seen and unseen."""
        return self.own.names

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The attributes that describe a new class, in this order."""
        return self.own.attributes

    @property
    def gamma(self) -> float:
        """Calibration of equation 9, chosen when the run was trained."""
        return self.own.gamma

    @property
    def has_attention(self) -> bool:
        """Whether the run's method has attention to show."""
        device, dtype = place_of(self.model)
        shape = (1, 4) if self.model.reads == "regions" else (1,)
        features = torch.zeros(*shape, self.backbone.feature_dim, device=device, dtype=dtype)
        with torch.no_grad():
            return self.model.attention(features, self.own.embeddings[:1].to(device, dtype)) is not None

    def describe(
        self, texts: Mapping[str, str | Sequence[str]], model: str | None = None
    ) -> dict[str, dict[str, float]]:
        """New classes from texts, by the model that described the run's own classes. `predict` takes the result.

        Args:
            texts: class name -> one text or several.
            model: where that model is now, if it was moved.

        Raises:
            UserError: the run's classes are not described by texts, or the model is not there or is another.
        """
        if self.record is None:
            raise UserError(
                "the run's classes are not described by texts (python -m fastzsl.describe); describe new ones by "
                f"their attributes: {', '.join(self.attribute_names[:3])} ..."
            )
        several = {name: (said,) if isinstance(said, str) else tuple(said) for name, said in texts.items()}
        return describe_like(self.record, several, model).vectors()

    def predict(
        self,
        images: ImageInput | Iterable[ImageInput],
        classes: Classes = "all",
        *,
        beside: Beside | None = None,
        missing: Missing = "error",
        shots: Shots | None = None,
        batch_size: int = 32,
        attention_top: int = 0,
        attributes: Sequence[str] = (),
        on_bad: Literal["raise", "keep"] = "raise",
    ) -> list[Prediction]:
        """Recognise images.

        Args:
            images: one image or several: files, folders (all images below), their content as bytes or binary file
                objects, Pillow images or uint8 arrays (H, W, 3).
            classes: "all" (the run's seen and unseen classes, gamma on the unseen ones), "unseen" or "seen",
                the path of a table `class,<attribute>...` of new classes, or {name: attributes} of new
                classes, attributes being m numbers in the order of `attribute_names` or {attribute: number}.
            beside: "seen" or "all": new classes are candidates together with the run's seen classes, or with all its
                classes, and gamma is added to the scores of every class that the run was not trained on.
            missing: attributes of new classes that are not given are an error, or become the "mean" of the seen
                classes, or "zero".
            shots: a few images of classes without training images, which count beside the descriptions: a folder with a
                folder for each class, or {name: images}. Probabilities are then None.
            batch_size: images in a step of the backbone.
            attention_top: number of best classes whose attention is returned for each image.
            attributes: names of attributes whose attention is returned for each image, for a method that has
                attention of single attributes (dazle).
            on_bad: raise for an image that cannot be read, or return a `Prediction` with `error`.

        Returns:
            A `Prediction` for each image, in order.

        Raises:
            UserError: classes or attributes that do not fit the run; with on_bad="raise" an image that cannot be read.
        """
        found = []
        candidates = self.own.candidates(classes, beside, missing)
        term = None if shots is None else self.shots(candidates, shots)
        for prediction in self.stream(
            images,
            candidates,
            batch_size=batch_size,
            attention_top=attention_top,
            attributes=attributes,
            term=term,
        ):
            if prediction.error is not None and on_bad == "raise":
                raise UserError(prediction.error)
            found.append(prediction)
        return found

    def stream(
        self,
        images: ImageInput | Iterable[ImageInput],
        candidates: CandidateClasses,
        *,
        batch_size: int = 32,
        attention_top: int = 0,
        attributes: Sequence[str] = (),
        term: ShotTerm | None = None,
    ) -> Iterator[Prediction]:
        """As `predict`, batch by batch in limited memory; unreadable images give predictions with `error`."""
        shown = self._places_of(attributes)
        with torch.inference_mode():
            device, dtype = place_of(self.model)
            descriptions = candidates.embeddings.to(device, dtype)
            scorer = self.model.classifier(ClassSet(descriptions, candidates.training_ids.to(device)))
            bias = candidates.bias.to(self.device)
        calibrated = self.probabilities_for(candidates) if term is None else None

        def recognise(pixels: Tensor) -> list[_Recognised]:
            maps = [self._round(self._maps_of(view)) for view in pixels.unbind(1)]
            added = bias if term is None else bias + term(_pool_views(maps))
            return self._recognise(maps, scorer, descriptions, added, attention_top, shown)

        numbered = enumerate(each_image(images))
        for reads, found in in_batches(numbered, self._read, recognise, batch_size, self.device):
            results = iter(found or [])
            for name, error in reads:
                result = _Recognised(torch.empty(0), None, {}) if error else next(results)
                yield _prediction(name, candidates, result, error, calibrated)

    def shots(self, candidates: CandidateClasses, shots: Shots) -> ShotTerm:
        """What a few images of some of the candidates add to the scores; `stream` takes it.

        Raises:
            UserError: a class is no candidate or was trained on, an image cannot be read, or the run has no weights.
        """
        features = {}
        for name, images in list_shots(shots).items():
            rows = []
            pooled = in_batches(
                enumerate(each_image(images)), self._read,
                lambda pixels: _pool_views([self._round(self._maps_of(v)) for v in pixels.unbind(1)]).cpu(),
                32, self.device,
            )  # fmt: skip
            for reads, found in pooled:
                for _, error in reads:
                    if error is not None:
                        raise UserError(f"shots of class {name}: {error}")
                assert found is not None
                rows.append(found)
            features[name] = torch.cat(rows)
        return shot_term(candidates, features, self.means, self.shot_weights)

    def probabilities_for(self, candidates: CandidateClasses) -> Probabilities | None:
        """What turns these candidates' scores into probabilities; None for a run without."""
        new_only = bool((candidates.training_ids < 0).all())
        return self.probabilities.get("among_unseen" if new_only else "among_all")

    def _round(self, maps: Tensor) -> Tensor:
        return rounded if self.half and torch.isfinite(rounded := maps.half()).all() else maps

    def _places_of(self, attributes: Sequence[str]) -> dict[str, int]:
        """Positions of attributes named by the user."""
        if attributes and not self.model.shows_attributes:
            raise UserError(
                "the run's model has no attention of single attributes; wanted a run of --method dazle with at least "
                "as many --attributes as the classes have"
            )
        places = {name: place for place, name in enumerate(self.own.attributes)}
        for name in attributes:
            if name not in places:
                raise UserError(
                    f'"{name}" is no attribute of the run; wanted names among its {len(places)} attributes'
                    + nearest(name, list(places))
                )
        return {name: places[name] for name in attributes}

    def _recognise(
        self,
        maps: list[Tensor],
        scorer: Scorer,
        descriptions: Tensor,
        bias: Tensor,
        attention_top: int,
        attributes: Mapping[str, int],
    ) -> list[_Recognised]:
        """Scores, the mean over the views' `maps`, and the attention on the first view."""
        views = [view.flatten(2).transpose(1, 2) for view in maps]
        if self.model.reads == "pooled":
            views = [torch.stack([pool(view) for view in views]).mean(0)]
        features = views[0]
        scores = (torch.stack([scorer(view).float() for view in views]).mean(0) + bias).cpu()
        if not torch.isfinite(scores).all():
            raise UserError("the scores are not finite; the run's weights do not fit the backbone's features")
        of_attributes: list[Mapping[str, Tensor]] = [{}] * len(scores)
        if attributes:
            places = torch.tensor(list(attributes.values()), device=self.device)
            looked = self.model.attribute_attention(features)[:, places].float().cpu()
            of_attributes = [dict(zip(attributes, own.unflatten(1, maps[0].shape[2:]))) for own in looked]
        if not attention_top:
            return [_Recognised(row, None, own) for row, own in zip(scores, of_attributes)]
        best = scores.topk(min(attention_top, scores.shape[1])).indices.to(self.device)
        shown = []
        for own, classes in zip(features, best):
            attention = self.model.attention(own[None], descriptions[classes])
            if attention is None:
                raise UserError("the run's method has no attention to show; leave --heatmap out")
            shown.append(attention[0])
        grids = torch.stack(shown).float().cpu().unflatten(2, maps[0].shape[2:])
        return [_Recognised(*found) for found in zip(scores, grids, of_attributes)]

    def _read(self, numbered: tuple[int, ImageInput]) -> tuple[_Read, Tensor | None]:
        position, image = numbered
        name = str(image) if isinstance(image, str | Path) else f"image {position}"
        try:
            decoded = decode_image(image, name)
            views = [self.backbone.preprocess(view_of(decoded, view)) for view in VIEWS[self.views]]
            return _Read(name, None), torch.stack(views)
        except UserError as error:
            return _Read(name, str(error)), None


def load(
    run: str | Path,
    *,
    accelerator: str | None = None,
    backbone: str | None = None,
    backbone_weights: str | Path | None = None,
    engine: Engine = "auto",
) -> Recogniser:
    """Open the folder of a finished run for prediction.

    Args:
        run: folder that `python -m fastzsl.train` wrote.
        accelerator: "cpu", "cuda", "mps" or "auto"; default: as the run was trained.
        backbone, backbone_weights: for a run trained on a file of features, the backbone that made them;
            default: the run's own.
        engine: what computes the features: "torch", "openvino", or "auto" for OpenVINO on a CPU if it is installed.
            Their features differ by less than 1e-4.

    Raises:
        UserError: no finished run, a damaged file, a backbone that gives other features, or a device that this
            machine does not have.

    >>> predictor = fastzsl.load("runs/shapes")                       # doctest: +SKIP
    >>> predictor.predict("photo.jpg", classes="unseen")[0].top(3)    # doctest: +SKIP
    """
    opened = open_run(Path(run), accelerator)
    features = opened.settings.features
    own = OwnClasses(opened.classes, opened.gamma)
    trunk = opened.backbone
    if trunk is None or backbone is not None:
        weights = backbone_weights or (None if backbone else features.backbone_weights)
        trunk = load_backbone(backbone or features.backbone, weights, features.image_size)
        if opened.finetuned and not (backbone or backbone_weights):
            load_trunk(trunk, opened.finetuned)
        trunk.engine = choose_engine(engine, opened.fabric.device)
    feature_dim = opened.feature_dim
    if trunk.feature_dim != feature_dim:
        raise UserError(
            f"{opened.folder.model} was trained on features of d={feature_dim} but backbone {trunk.name} gives "
            f"d={trunk.feature_dim}; name the backbone that made the features with --backbone"
        )
    record = read_record(opened.folder.path, own.attributes)
    chosen, where = opened.folder.load_json(opened.folder.gamma), str(opened.folder.gamma)
    return Recogniser(
        opened.model,
        trunk,
        own,
        opened.fabric.device,
        opened.stored_as_half,
        record,
        read_probabilities(chosen.get("probabilities"), where),
        features.views,
        read_means(opened.folder.class_means),
        read_shot_weights(chosen.get("shots"), where),
    )


def _pool_views(maps: Sequence[Tensor]) -> Tensor:
    """Pooled features (B, d): the mean over the regions of all views, as evaluation pools."""
    return torch.stack([pool(view.flatten(2).transpose(1, 2)) for view in maps]).mean(0)


def _prediction(
    name: str,
    candidates: CandidateClasses,
    result: _Recognised,
    error: str | None,
    calibrated: Probabilities | None,
) -> Prediction:
    scores, attention, attributes = result
    if error is not None or calibrated is None:
        return Prediction(
            name, candidates.names, scores, attention, error, attribute_attention=attributes
        )  # fmt: skip
    rejected = calibrated.none_of_these(scores)
    return Prediction(
        name, candidates.names, scores, attention, None, calibrated.of(scores),
        None if rejected is None else bool(rejected), attributes,
    )  # fmt: skip


__all__: Sequence[str] = ("Prediction", "Recogniser", "list_images", "load")
