import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import normalize

from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.prompts.prompt_set import PromptSet, ScoringConstants, zero_shot_prompts
from tai_engine.tagging.scoring import ScoringConfig, score
from tai_engine.vocabulary import Vocabulary


class LetterEncoder:
    """Every text becomes the unit vector of (its length, its number of a's, 1)."""

    space_key = "letters:1"
    logit_scale = 50.0

    def encode_class_texts(self, texts):
        return normalize(torch.tensor([[len(t), t.count("a"), 1.0] for t in texts]), dim=1)


def make_prompts(**changes) -> PromptSet:
    rows = torch.eye(3)[:2]
    fields = {
        "class_names": ("cat", "Straßenbahn"),
        "global_vectors": rows,
        "local_vectors": rows.flip(0).contiguous(),
        "space_key": "letters:1",
        "logit_scale": 99.99999,
        "method": "tuned",
        "metadata": {"vocabulary": "two"},
    }
    return PromptSet(**(fields | changes))


def test_one_template_is_the_text_itself():
    prompts = zero_shot_prompts(LetterEncoder(), Vocabulary.from_names(["cat", "banana"]), ["a {}."])
    expected = normalize(torch.tensor([[6.0, 2.0, 1.0], [9.0, 4.0, 1.0]]), dim=1)
    assert torch.allclose(prompts.global_vectors, expected, atol=1e-7)
    assert torch.equal(prompts.local_vectors, prompts.global_vectors)
    assert prompts.class_names == ("cat", "banana")
    assert prompts.logit_scale == 50.0
    assert json.loads(prompts.metadata["templates"]) == ["a {}."]


def test_several_templates_are_averaged_after_normalising():
    prompts = zero_shot_prompts(LetterEncoder(), Vocabulary.from_names(["x"]), ["{}", "a{}aaaaaa"])
    a, b = normalize(torch.tensor([[1.0, 0, 1], [8.0, 7, 1]]), dim=1)
    assert torch.allclose(prompts.global_vectors[0], normalize((a + b) / 2, dim=0), atol=1e-7)


@pytest.mark.parametrize("template", ["a photo", "{} and {}"])
def test_a_template_needs_one_place_for_the_name(template: str):
    with pytest.raises(UserError, match="exactly once"):
        zero_shot_prompts(LetterEncoder(), Vocabulary.from_names(["x"]), [template])


def test_at_least_one_template():
    with pytest.raises(UserError, match="At least one template"):
        zero_shot_prompts(LetterEncoder(), Vocabulary.from_names(["x"]), [])


def test_a_saved_set_comes_back_to_the_bit(tmp_path: Path):
    prompts = make_prompts()
    prompts.save(tmp_path / "p.safetensors")
    back = PromptSet.load(tmp_path / "p.safetensors")
    assert back.class_names == prompts.class_names
    assert torch.equal(back.global_vectors, prompts.global_vectors)
    assert torch.equal(back.local_vectors, prompts.local_vectors)
    assert (back.space_key, back.logit_scale, back.method) == ("letters:1", 99.99999, "tuned")
    assert back.metadata == {"vocabulary": "two"}


def test_what_is_no_prompt_set_is_refused_in_a_sentence(tmp_path: Path):
    with pytest.raises(UserError, match="There is no prompt set"):
        PromptSet.load(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(UserError, match="is damaged"):
        PromptSet.load(tmp_path / "text.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="is no prompt set"):
        PromptSet.load(tmp_path / "other.safetensors")
    make_prompts().save(tmp_path / "cut.safetensors")
    whole = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-10])
    with pytest.raises(UserError, match="is damaged"):
        PromptSet.load(tmp_path / "cut.safetensors")


def test_rows_are_checked():
    with pytest.raises(ValueError, match="unit length"):
        make_prompts(global_vectors=torch.ones(2, 3))
    with pytest.raises(ValueError, match="expected float32"):
        make_prompts(local_vectors=torch.eye(3))
    with pytest.raises(ValueError, match="differ in shape"):
        make_prompts(local_vectors=torch.eye(2))


def tuned_prompts() -> PromptSet:
    contexts = {"global_contexts": torch.arange(6.0).view(2, 3), "local_contexts": torch.ones(2, 2, 3)}
    return make_prompts(contexts=contexts, constants=ScoringConstants(3.5, 12.25))


def test_tuned_prompts_come_back_with_contexts_and_constants(tmp_path: Path):
    prompts = tuned_prompts()
    prompts.save(tmp_path / "p.safetensors")
    back = PromptSet.load(tmp_path / "p.safetensors")
    assert set(back.contexts) == {"global_contexts", "local_contexts"}
    for name, rows in prompts.contexts.items():
        assert torch.equal(back.contexts[name], rows)
    assert back.constants == ScoringConstants(scale=3.5, image_temperature=12.25)
    make_prompts().save(tmp_path / "plain.safetensors")
    plain = PromptSet.load(tmp_path / "plain.safetensors")
    assert (dict(plain.contexts), plain.constants) == ({}, None)


def test_vectors_that_share_memory_can_be_saved(tmp_path: Path):
    rows = torch.eye(3)[:2]
    make_prompts(global_vectors=rows, local_vectors=rows).save(tmp_path / "p.safetensors")
    assert torch.equal(PromptSet.load(tmp_path / "p.safetensors").local_vectors, rows)


def test_contexts_are_both_or_none():
    with pytest.raises(ValueError, match=r"expected .*global_contexts"):
        make_prompts(contexts={"global_contexts": torch.zeros(2, 3)})


def test_constants_that_make_no_sense_are_damage(tmp_path: Path):
    tuned_prompts().save(tmp_path / "p.safetensors")
    whole = (tmp_path / "p.safetensors").read_bytes()
    (tmp_path / "p.safetensors").write_bytes(whole.replace(b"image_temperature", b"image_temperamant"))
    with pytest.raises(UserError, match="is damaged"):
        PromptSet.load(tmp_path / "p.safetensors")


# Files that others may have made


def write_file(path: Path, header: dict | None = None, **tensors: torch.Tensor) -> None:
    """A prompt set of two classes with other entries in its header, or other tensors."""
    tuned_prompts().save(path)
    with safe_open(path, "pt") as file:
        content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        content = {name: rows for name, rows in (content | tensors).items() if rows is not None}
        save_file(content, path, file.metadata() | (header or {}))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"class_names": "[]"}, "class names are no list with something in it"),
        ({"class_names": "[1, 2]"}, "hold something else than text"),
        ({"class_names": '["cat", ""]'}, "hold something else than text"),
        ({"class_names": '["cat", "cat"]'}, "a class name occurs twice"),
        ({"class_names": '["cat"]'}, r"expected float32 \[1, D\]"),
        ({"class_names": '{"cat": 1, "dog": 2}'}, "class names are no list"),
        ({"class_names": "7"}, "class names are no list"),
        ({"class_names": "[" * 100_000}, "nested too deep"),
        ({"class_names": f"[{'1' * 6000}, 2]"}, "digit"),
        ({"logit_scale": "inf"}, "the logit scale is inf"),
        ({"logit_scale": "nan"}, "the logit scale is nan"),
        ({"logit_scale": "-1"}, "the logit scale is -1"),
        ({"logit_scale": "x"}, "could not convert"),
        ({"method": "magic"}, "the method is 'magic'"),
        ({"metadata": "[1]"}, "the metadata is not a table of texts"),
        ({"metadata": '{"seed": 1}'}, "the metadata is not a table of texts"),
        ({"metadata": '{"recipe": {"a": "b"}}'}, "the metadata is not a table of texts"),
        ({"metadata": "{"}, "is damaged"),
        ({"constants": '{"scale": Infinity, "image_temperature": 4}'}, "holds Infinity, which is no number"),
        ({"constants": '{"scale": 1e999, "image_temperature": 4}'}, "too large a number"),
        ({"constants": '{"scale": 0, "image_temperature": 4}'}, "the scale is 0, expected a number above 0"),
        ({"constants": '{"scale": 4, "image_temperature": "40"}'}, "the image_temperature is '40'"),
        ({"constants": '{"scale": true, "image_temperature": 4}'}, "the scale is True"),
        ({"constants": '{"scale": 4}'}, "is damaged"),
        ({"constants": "[4, 40]"}, "is damaged"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_headers_of_another_form_are_damage(tmp_path: Path, header: dict, expected: str):
    write_file(tmp_path / "p.safetensors", header)
    with pytest.raises(UserError, match=r"The prompt set .*p.safetensors' is damaged") as caught:
        PromptSet.load(tmp_path / "p.safetensors")
    assert re.search(expected, str(caught.value))
    assert len(str(caught.value)) < 400


NAN, INFINITY = torch.tensor(float("nan")), torch.tensor(float("inf"))


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"global_vectors": torch.eye(3)}, r"global_vectors are torch.float32 \(3, 3\)"),
        ({"global_vectors": torch.eye(4)[:2]}, "differ in shape"),
        ({"local_vectors": torch.zeros(2, 0)}, r"\(2, 0\), expected float32"),
        ({"local_vectors": torch.eye(3)[:2].half()}, "local_vectors are torch.float16"),
        ({"local_vectors": torch.eye(3)[0]}, r"local_vectors are torch.float32 \(3,\)"),
        ({"local_vectors": None}, "is damaged"),
        ({"global_vectors": torch.eye(3)[:2] * NAN}, "not of unit length"),
        ({"global_vectors": torch.eye(3)[:2] * 2}, "not of unit length"),
        ({"global_vectors": torch.zeros(3, 1 << 16)}, "too large for 2 classes"),
        ({"global_contexts": torch.zeros(2, 3) * INFINITY}, "global_contexts hold something that is no number"),
        ({"global_contexts": torch.zeros(3, 2, 3)}, r"global_contexts are torch.float32 \(3, 2, 3\)"),
        ({"local_contexts": torch.zeros(2, 0, 3)}, "local_contexts are"),
        ({"local_contexts": torch.zeros(3)}, "local_contexts are"),
        ({"local_contexts": torch.zeros(2, 3, dtype=torch.int64)}, "local_contexts are torch.int64"),
        ({"local_contexts": None}, "expected .*global_contexts"),
    ],
    ids=lambda value: str(value)[:50].replace("\n", " "),
)
def test_tensors_of_another_form_are_damage(tmp_path: Path, tensors: dict, expected: str):
    write_file(tmp_path / "p.safetensors", **tensors)
    with pytest.raises(UserError, match="is damaged") as caught:
        PromptSet.load(tmp_path / "p.safetensors")
    assert re.search(expected, str(caught.value))


def test_what_no_file_can_be_is_not_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name in ("pipe.safetensors", "."):
        with pytest.raises(UserError, match="There is no prompt set"):
            PromptSet.load(tmp_path / name)


def test_templates_are_encoded_a_thousand_sentences_at_a_time():
    class Counting(LetterEncoder):
        def __init__(self):
            self.calls = []

        def encode_class_texts(self, texts):
            self.calls.append(len(texts))
            return super().encode_class_texts(texts)

    names = Vocabulary.from_names([f"x{'a' * (n % 7)} {n}" for n in range(30)])
    templates = [f"{'a' * n} {{}}" for n in range(100)]
    encoder = Counting()
    found = zero_shot_prompts(encoder, names, templates).global_vectors
    assert encoder.calls == [1000, 1000, 1000]
    texts = [template.replace("{}", name) for name in names.names for template in templates]
    whole = LetterEncoder().encode_class_texts(texts).view(30, 100, 3).mean(dim=1)
    assert torch.equal(found, normalize(whole, dim=1))
    few, many = Counting(), [f"{'a' * n} {{}}" for n in range(1500)]
    zero_shot_prompts(few, Vocabulary.from_names(["x", "y"]), many)
    assert few.calls == [1500, 1500]  # never less than a class


def test_prompts_of_another_size_than_the_features_are_refused():
    """Both say that they are of one space, and one of them does not say the truth."""
    features = FeatureBatch(("a",), torch.eye(4)[:1], torch.eye(4)[:0], torch.tensor([0, 0]), "letters:1")
    with pytest.raises(UserError, match=r"the features have 4 numbers and those of the prompt set 3, though both say"):
        score(features, make_prompts(), ScoringConfig(which="coarse"))
    with pytest.raises(UserError, match=r"is of the embedding space 'letters:1' but .* is of 'others'"):
        score(features, make_prompts(space_key="others"), ScoringConfig(which="coarse"))
