"""Classes described by texts: their embeddings, and the record of what made them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastzsl.errors import UserError
from fastzsl.files.atomic import write_text_atomically
from fastzsl.text.opening import Encoder, open_encoder

FORMAT = "fastzsl descriptions 1"
SLOT = "{}"


@dataclass(frozen=True)
class Described:
    """Class embeddings from texts.

    Attributes:
        texts: class name -> the texts that describe it, before templates.
        embeddings: (C, k) float32, the mean over the texts and templates of a class.
        record: what made them, as `Described.save` writes it: encoder, model, its digest, templates, texts.
        notes: one line for each thing that the user should know, for example words that were left out.
    """

    texts: Mapping[str, tuple[str, ...]]
    embeddings: np.ndarray
    record: dict[str, Any]
    notes: tuple[str, ...] = field(default=())

    @property
    def names(self) -> tuple[str, ...]:
        """C class names."""
        return tuple(self.texts)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the k numbers. They name the model, so that embeddings of two models cannot be mixed."""
        return column_names(self.record)

    def vectors(self) -> dict[str, dict[str, float]]:
        """{class: {column: number}}, as `Recogniser.predict` takes new classes."""
        return {n: dict(zip(self.columns, row.tolist())) for n, row in zip(self.names, self.embeddings)}

    def save(self, table: Path, seen: Sequence[str] | None = None) -> None:
        """Write `table`, columns class,<number>..., and beside it the record, with the ending .json.

        Args:
            seen: names of the seen classes; then the table also has the column `split`, in which all others are
                unseen. Default: no such column.

        Raises:
            UserError: the table does not end in .csv, or such a file exists that this program did not write.
        """
        if table.suffix != ".csv":
            raise UserError(f"{table}: wanted a name that ends in .csv")
        if table.exists() and read_record(table) is None:
            raise UserError(f"{table} exists and was not made by this command; choose another name")
        beside = table.with_suffix(".json")
        if beside.exists() and _load(beside) is None:
            raise UserError(
                f"{beside} exists and was not made by this command; choose another name for {table}"
            )
        text = io.StringIO()
        writer = csv.writer(text)
        splits = [] if seen is None else ["split"]
        writer.writerow(["class", *splits, *self.columns])
        for name, row in zip(self.names, self.embeddings.tolist()):
            split = [] if seen is None else ["seen" if name in seen else "unseen"]
            writer.writerow([name, *split, *(f"{v:.9g}" for v in row)])
        write_text_atomically(table, text.getvalue())
        write_record(table, self.record)


def describe_classes(
    texts: Mapping[str, Sequence[str]], encoder: Encoder, templates: Sequence[str] = ()
) -> Described:
    """Embed the texts of classes.

    Args:
        texts: class name -> one text or several; their embeddings are averaged.
        encoder: as `fastzsl.text.open_encoder` opens it.
        templates: each text is put into each template in place of `{}`, for example "a photo of a {}."; default: the
            texts as they are.

    Raises:
        UserError: no class, a class without text, a template without `{}`, or a text that cannot be embedded.
    """
    if not texts:
        raise UserError("no classes to describe")
    for template in templates:
        if template.count(SLOT) != 1:
            raise UserError(f'the template "{template}" has {template.count(SLOT)} places {SLOT}; wanted one')
    flat: list[str] = []
    ends = []
    for name, own in texts.items():
        said = [text.strip() for text in own if text.strip()]
        if not name.strip() or not said:
            raise UserError(f'class "{name}" has no text')
        flat += [template.replace(SLOT, text) for text in said for template in (templates or (SLOT,))]
        ends.append(len(flat))
    rows = encoder.encode(flat)
    if not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows).all(1))[0])
        raise UserError(f'{encoder.model} gives no finite numbers for "{flat[bad]}"')
    means = np.stack([part.mean(0) for part in np.split(rows, ends[:-1])]).astype(np.float32)
    record = {
        "made_by": FORMAT,
        "encoder": encoder.kind,
        **encoder.settings(),
        "digest": encoder.digest,
        "numbers": int(means.shape[1]),
        "templates": list(templates),
        "texts": {name: list(own) for name, own in texts.items()},
    }
    return Described({n: tuple(t) for n, t in texts.items()}, means, record, tuple(encoder.notes))


def describe_like(
    record: Mapping[str, Any], texts: Mapping[str, Sequence[str]], model: str | None = None
) -> Described:
    """Embed new texts with the model and templates of a record.

    Args:
        record: of earlier descriptions, from `read_record` or a run.
        texts: as for `describe_classes`.
        model: where the model is now, if it was moved.

    Raises:
        UserError: the model is not there, or is not the one that made the record.
    """
    try:
        encoder = open_encoder(record["encoder"], model or record["model"], record.get("weights"))
    except UserError as error:
        raise UserError(f"{error}; it made the embeddings of the other classes") from None
    if encoder.digest != record["digest"]:
        raise UserError(
            f"{encoder.model} is not the model that made the embeddings of the other classes "
            f"(digest {encoder.digest[:8]}, wanted {record['digest'][:8]}); embeddings of two models cannot be mixed"
        )
    return describe_classes(texts, encoder, record["templates"])


def column_names(record: Mapping[str, Any]) -> tuple[str, ...]:
    """`model@digest:0` and so on."""
    short = re.sub(r"[^\w.-]+", "-", Path(str(record["model"])).name)[:40]
    return tuple(f"{short}@{record['digest'][:8]}:{i}" for i in range(record["numbers"]))


def read_record(path: Path, columns: Sequence[str] | None = None) -> dict[str, Any] | None:
    """The record of a table of descriptions or of a run folder; None if it has none.

    Args:
        path: the table, its .json file, or the run folder.
        columns: names of the table's numbers; a record of others, of an older table for example, does not count.
    """
    file = path / RECORD_OF_RUN if path.is_dir() else path.with_suffix(".json")
    record = _load(file)
    if record is None or (columns is not None and tuple(columns) != column_names(record)):
        return None
    return record


def write_record(table: Path, record: Mapping[str, Any]) -> None:
    """Write a record beside its table."""
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_text_atomically(table.with_suffix(".json"), text)


RECORD_OF_RUN = "descriptions.json"
"""The record's name in a run folder."""

_KEYS = {"encoder": str, "model": str, "digest": str, "numbers": int, "templates": list, "texts": dict}


def _load(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text("utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("made_by") != FORMAT:
        return None
    whole = all(isinstance(found.get(key), kind) for key, kind in _KEYS.items())
    return found if whole and 0 < found["numbers"] <= 1_000_000 else None
