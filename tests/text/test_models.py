"""Sentence and image-text models of random weights, saved to folders: no weights can be downloaded where tests run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fastzsl.errors import UserError
from fastzsl.text import describe_classes, describe_like, open_encoder

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "striped",
    "horse",
    "zebra",
    "forest",
    "giraffe",
    "photo",
    "of",
    ".",
]


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer and 16 numbers, mean-pooled."""
    reason = "needs pip install 'fastzsl[sentences]'"
    pytest.importorskip("sentence_transformers", reason=reason)
    transformers = pytest.importorskip("transformers", reason=reason)
    folder = tmp_path_factory.mktemp("sentence")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    parts = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(parts)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.fixture(scope="module")
def image_text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of one layer in each tower and 16 numbers."""
    open_clip = pytest.importorskip("open_clip", reason="needs pip install 'fastzsl[image-text]'")
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    model = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    torch.manual_seed(0)
    built = open_clip.model.CLIP(**model)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    save_file(
        {k: v.contiguous() for k, v in built.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder


def test_sentences_of_a_class_are_averaged(sentence_model: Path) -> None:
    encoder = open_encoder("sentences", str(sentence_model))
    texts = ["a striped horse", "a forest giraffe"]
    single = encoder.encode(texts)
    described = describe_classes({"zebra": texts, "okapi": texts[1:]}, encoder)
    np.testing.assert_allclose(described.embeddings[0], single.mean(0), atol=1e-6)
    np.testing.assert_allclose(described.embeddings[1], single[1], atol=1e-6)
    assert np.abs(single[0] - single[1]).max() > 1e-3
    assert described.record["encoder"] == "sentences"


def test_the_text_tower_with_templates(image_text_model: Path) -> None:
    encoder = open_encoder("image-text", str(image_text_model))
    templates = ["a photo of a {}.", "a {}."]
    described = describe_classes({"zebra": ["zebra"]}, encoder, templates)
    single = encoder.encode(["a photo of a zebra.", "a zebra."])
    np.testing.assert_allclose(np.linalg.norm(single, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(described.embeddings[0], single.mean(0), atol=1e-6)


def test_a_model_with_other_weights_is_not_mixed(
    sentence_model: Path, image_text_model: Path, tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    described = describe_classes({"zebra": ["zebra"]}, open_encoder("sentences", str(sentence_model)))
    again = describe_like(described.record, {"zebra": ["zebra"], "horse": ["horse"]})
    np.testing.assert_allclose(again.embeddings[0], described.embeddings[0], atol=1e-6)
    assert again.columns == described.columns
    other = tmp_path / "other"
    shutil.copytree(sentence_model, other)
    weights = load_file(other / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][5, 0] += 0.001
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="embeddings of two models cannot be mixed"):
        describe_like(described.record, {"horse": ["horse"]}, str(other))
    with pytest.raises(UserError, match="it made the embeddings of the other classes"):
        describe_like({**described.record, "model": str(tmp_path / "gone")}, {"horse": ["horse"]})
    clip = describe_classes({"zebra": ["zebra"]}, open_encoder("image-text", str(image_text_model)))
    assert not set(clip.columns) & set(described.columns)


def test_weights_that_would_be_unpickled_are_refused(
    sentence_model: Path, image_text_model: Path, tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import load_file

    copy = tmp_path / "copy"
    shutil.copytree(sentence_model, copy)
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        open_encoder("sentences", str(copy))
    clip = tmp_path / "clip"
    shutil.copytree(image_text_model, clip)
    torch.save(load_file(clip / "open_clip_model.safetensors"), clip / "open_clip_pytorch_model.bin")
    (clip / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no \.safetensors file"):
        open_encoder("image-text", str(clip))
    weights = tmp_path / "weights.pt"
    torch.save({}, weights)
    with pytest.raises(UserError, match=r"wanted a \.safetensors file; nothing is unpickled"):
        open_encoder("image-text", "RN50", str(weights))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("sentences", None), "needs --model"),
        (("sentences", "./none"), "no folder ./none"),
        (("image-text", None), "needs --model"),
        (("image-text", "ViT-B-323"), 'did you mean "ViT-B-32"'),
        (("image-text", "ViT-B-32"), "needs --weights: one of"),
        (("image-text", "ViT-B-32", "opena"), 'did you mean "openai"'),
        (("words", "glove-6b-50d", "openai"), "only for --encoder image-text"),
        (("letters", None), "unknown encoder letters"),
    ],
)
def test_wrong_names(call: tuple[str, ...], message: str) -> None:
    for library in ("sentence_transformers", "open_clip"):
        pytest.importorskip(library, reason="needs pip install 'fastzsl[sentences,image-text]'")
    with pytest.raises(UserError, match=message):
        open_encoder(*call)


def test_a_missing_extra_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UserError, match=r"pip install 'fastzsl\[sentences\]'"):
        open_encoder("sentences", "name")
    with pytest.raises(UserError, match=r"pip install 'fastzsl\[image-text\]'"):
        open_encoder("image-text", "ViT-B-32", "random")
