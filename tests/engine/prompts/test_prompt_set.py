import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from tai_engine.errors import UserError
from tai_engine.prompts.prompt_set import PromptSet, ScoringConstants, zero_shot_prompts
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
