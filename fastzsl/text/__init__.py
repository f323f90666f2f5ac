"""Class embeddings from text: word vectors, sentence models, and the text towers of image-text models.

>>> from fastzsl.text import describe_classes, open_encoder
>>> encoder = open_encoder("words")                                                        # doctest: +SKIP
>>> described = describe_classes({"zebra": ["zebra"], "okapi": ["okapi"]}, encoder)        # doctest: +SKIP
>>> described.save(Path("words.csv"))                                                      # doctest: +SKIP
"""

from fastzsl.text.described import Described, describe_classes, describe_like, read_record
from fastzsl.text.opening import open_encoder

__all__ = ["Described", "describe_classes", "describe_like", "open_encoder", "read_record"]
