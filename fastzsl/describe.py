"""`python -m fastzsl.describe CLASS... --out words.csv`: class embeddings from class names or sentences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from fastzsl.command.console import open_console
from fastzsl.command.exits import exits_with_message
from fastzsl.command.parsing import parse
from fastzsl.errors import UserError
from fastzsl.text.class_texts import names_of_folders, texts_in_file, texts_of
from fastzsl.text.described import Described, describe_classes, describe_like, read_record
from fastzsl.text.opening import Kind, open_encoder

DESCRIPTION = """Describe classes by texts instead of attributes.

A class is NAME, described by its own name, or NAME=TEXT. With several texts for one name their embeddings are averaged.
OUT is a table class,<number>... that train, make_dataset and predict take. A file beside it, with the ending .json,
records what made it.
Embeddings of two models are never mixed: --like FILE or RUN uses the model of an earlier table or of a run.

  python -m fastzsl.describe zebra "okapi=a forest giraffe with striped legs" --out words.csv
  python -m fastzsl.describe --images data/images --out data/classes.csv
"""


@dataclass(frozen=True)
class Settings:
    """What to describe, and with what.

    Args:
        classes: NAME or NAME=TEXT; the same name again adds a text.
        out: the table, ending in .csv.
        file: text file with NAME or NAME=TEXT a line, instead of classes on the command line or beside them.
        images: folder with a folder of images for each class, whose names are taken; they become the seen classes.
        encoder: "words" averages the vectors of a name's words, "sentences" takes a model of sentence-transformers,
            "image-text" the text tower of a model of open_clip.
        model: of words: glove-6b-50d (default) or a file of GloVe, word2vec or fastText; else a model's name or folder.
        weights: of a model of open_clip: a tag, a .safetensors file, or "random".
        templates: each text is put in place of {} into each template, for example "a photo of a {}."
        like: a table, or a run folder, whose model and templates are used.
    """

    classes: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    out: Path | None = None
    file: Path | None = None
    images: Path | None = None
    encoder: Kind = "words"
    model: str | None = None
    weights: str | None = None
    templates: tuple[str, ...] = ()
    like: Path | None = None

    def __post_init__(self) -> None:
        if self.out is None:
            raise UserError("--out is missing; wanted the table to write, for example --out words.csv")
        if not (self.classes or self.file or self.images):
            raise UserError("no classes given; wanted NAME or NAME=TEXT, --file FILE, or --images DIR")
        if self.like and (self.weights or self.templates or self.encoder != "words"):
            raise UserError(
                "--like takes encoder, weights and templates of the earlier table; leave these flags out"
            )


def describe(settings: Settings, console: Console | None = None) -> Described:
    """Embed the classes and write the table.

    Raises:
        UserError: anything wrong with classes, model or place.
    """
    console = console or open_console()
    texts = texts_in_file(settings.file) if settings.file else {}
    texts |= texts_of(settings.classes)
    folders = names_of_folders(settings.images) if settings.images else []
    texts = {name: texts.get(name) or texts_of([name])[name] for name in folders} | texts
    if settings.like:
        record = read_record(settings.like)
        if record is None:
            raise UserError(f"--like {settings.like}: no record of what described its classes")
        described = describe_like(record, texts, settings.model)
    else:
        encoder = open_encoder(settings.encoder, settings.model, settings.weights)
        described = describe_classes(texts, encoder, settings.templates)
    assert settings.out is not None
    described.save(settings.out, folders if settings.images else None)
    for note in described.notes:
        console.print(f"- {note}", soft_wrap=True)
    C, k = described.embeddings.shape
    console.print(
        f"{settings.out}: {C} classes, {k} numbers each, by {described.record['model']}", soft_wrap=True
    )
    return described


@exits_with_message
def main(arguments: list[str] | None = None) -> None:
    describe(parse(Settings, arguments, "python -m fastzsl.describe", DESCRIPTION))


if __name__ == "__main__":
    main()
