import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize

from tai_benchmarks.photo_clip import text_tower as module
from tai_benchmarks.photo_clip.captions import mentions
from tai_benchmarks.photo_clip.image_tower import ARCHITECTURE
from tai_benchmarks.photo_clip.model_files import export_model, finish_model
from tai_benchmarks.photo_clip.projection import Projection
from tai_benchmarks.photo_clip.text_batches import TextBatches, Words, padded, tokenise_caption
from tai_benchmarks.photo_clip.text_tower import (
    KeptVocabulary,
    bag_of_words,
    ends,
    new_model,
    pick,
    text_parameters,
    token_rows,
)
from tai_benchmarks.photo_clip.text_training import PhotographVectors, TextTrainer, TextTraining, contrast, soft_pooled

DIM = 16


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return new_model(DIM, 64).eval()


@pytest.fixture(scope="module")
def words():
    return Words()


def targets():
    rows = normalize(torch.randn(4, DIM, generator=torch.Generator().manual_seed(3)), dim=1)
    return dict(zip(("cat", "dog", "hot dog", "man"), rows, strict=True))


def test_words_and_sentences_are_clips_own_ids(words):
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    texts = ["a photo of a hot dog.", "two T-shirts on a trampoline .", ""]
    ids = padded([words.sentence(text) for text in texts])
    assert torch.equal(ids, tokenizer(texts)[:, : ids.shape[1]])


def test_the_places_of_nouns_are_their_last_tokens(words, nouns):
    caption = "A man eats a hot dog by the trampoline, dogs watch"
    found = tokenise_caption(caption, mentions(caption, nouns), words, targets())
    assert [noun for _, noun in found.nouns] == ["man", "hot dog", "dog"]
    assert [found.ids[place] for place, _ in found.nouns] == [
        words.ids("man")[-1],
        words.ids("dog")[-1],
        words.ids("dogs")[-1],
    ]
    assert found.ids[0] == words.start
    assert found.ids[-1] == words.end


def test_long_captions_are_cut_with_their_nouns(words, nouns):
    caption = "dog " * 60
    found = tokenise_caption(caption, mentions(caption, nouns), words, targets())
    assert len(found.ids) == 40
    assert len(found.nouns) == 38
    assert all(found.ids[place] == words.ids("dog")[0] for place, _ in found.nouns)


def captions(words, nouns):
    told = [["a man and a cat", "the cat"], ["a dog"], ["a hot dog for a man"], ["dogs"]]
    return [[tokenise_caption(text, mentions(text, nouns), words, targets()) for text in texts] for texts in told]


def test_batches_are_the_same_for_a_seed_and_carry_their_targets(words, nouns):
    batches, again = (TextBatches(targets(), captions(words, nouns), seed=5) for _ in range(2))
    first, second = batches.names(8), again.names(8)
    assert torch.equal(first.ids, second.ids)
    known = torch.stack(list(targets().values()))
    assert ((first.targets @ known.T).max(dim=1).values > 0.999).all()
    told = batches.captions(4)
    assert sorted(told.photographs.tolist()) == [0, 1, 2, 3]
    assert len(told.noun_rows) == len(told.noun_places) == len(told.noun_targets)
    for row, place, target in zip(told.noun_rows, told.noun_places, told.noun_targets, strict=True):
        assert place < ends(told.ids)[row]
        assert float((known @ target).max()) > 0.999
    assert 0 not in batches.trained_ids
    assert {words.start, words.end, words.ids("cat")[0], words.ids("photo")[0]} <= set(batches.trained_ids)


def test_the_tower_is_open_clips(model, words):
    ids = padded([words.sentence("a photo of a cat."), words.sentence("dogs")])
    full = torch.nn.functional.pad(ids, (0, 77 - ids.shape[1]))
    with torch.no_grad():
        found = pick(token_rows(model, ids), ends(ids))
        torch.testing.assert_close(found, model.encode_text(full), atol=1e-6, rtol=1e-5)


def test_a_shift_moves_all_but_the_first_token(model, words):
    ids = padded([words.sentence("a cat")])
    with torch.no_grad():
        moved = token_rows(model, ids, shift=5)
        positions = model.positional_embedding[torch.tensor([0, 6, 7, 8])]
        x = model.transformer(model.token_embedding(ids) + positions, attn_mask=model.attn_mask[:4, :4])
        torch.testing.assert_close(moved, model.ln_final(x) @ model.text_projection)


def test_a_new_tower_is_a_bag_of_words_when_later_blocks_add_nothing(words, monkeypatch):
    monkeypatch.setattr(module, "_LATER_BLOCKS", 0.0)
    torch.manual_seed(2)
    model = new_model(DIM, 64).eval()
    ids = padded([words.sentence("a photo of a cat on a sofa"), words.sentence("dog")])
    with torch.no_grad():
        full = pick(token_rows(model, ids), ends(ids))
        torch.testing.assert_close(bag_of_words(model, ids), full, atol=1e-5, rtol=1e-4)


def test_a_cut_vocabulary_keeps_order_and_rows():
    cut = KeptVocabulary([3, 7, 49407])
    assert cut.rows(torch.tensor([[49407, 3, 7, 0]])).tolist() == [[3, 1, 2, 0]]
    table = torch.arange(8.0).reshape(4, 2)
    grown = cut.grown(table, 49408)
    assert grown.shape == (49408, 2)
    assert torch.equal(grown[[0, 3, 7, 49407]], table)
    assert float(grown.abs().sum()) == float(table.sum())


def test_the_losses_by_hand():
    scores = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    torch.testing.assert_close(contrast(scores), torch.log(1 + torch.exp(torch.tensor(-2.0))))
    text, fine = torch.tensor([[1.0, 0]]), torch.tensor([[[1.0, 0], [0, 1]], [[0, 1], [0, 1]]])
    weight = 1 / (1 + torch.exp(torch.tensor(-3.0)))
    torch.testing.assert_close(soft_pooled(text, fine, 3.0), torch.tensor([[float(weight), 0.0]]))


def tiny_trainer(words, nouns, steps=4):
    torch.manual_seed(4)
    options = TextTraining(bag_steps=steps, steps=steps, names=4, captions=3, pooled=2)
    coarse = normalize(torch.randn(4, DIM, generator=torch.Generator().manual_seed(6)), dim=1)
    photographs = PhotographVectors(coarse, coarse.unsqueeze(1).repeat(1, 2, 1).half())
    return TextTrainer(new_model(DIM, 64), TextBatches(targets(), captions(words, nouns), 1), photographs, options)


def test_training_goes_on_from_its_checkpoint_and_leaves_the_image_tower_alone(words, nouns, tmp_path):
    trainer = tiny_trainer(words, nouns)
    image = {name: value.clone() for name, value in trainer.model.visual.state_dict().items()}
    before = {name: value.clone() for name, value in text_parameters(trainer.model).items()}
    trainer.train(tmp_path / "text.pt", lambda _: None)
    assert trainer.step == 8
    changed = [name for name, value in text_parameters(trainer.model).items() if not torch.equal(value, before[name])]
    assert len(changed) == len(before)
    assert float(trainer.model.token_embedding.weight[0].abs().sum()) == 0
    assert all(torch.equal(value, image[name]) for name, value in trainer.model.visual.state_dict().items())
    resumed = tiny_trainer(words, nouns)
    resumed.load(tmp_path / "text.pt")
    assert resumed.step == 8
    for name, value in text_parameters(resumed.model).items():
        assert torch.equal(value, text_parameters(trainer.model)[name])
    other = tiny_trainer(words, nouns, steps=5)
    other.load(tmp_path / "text.pt")
    assert other.step == 0


def test_the_exported_model_is_what_open_clip_loads(words, nouns, tmp_path):
    import timm

    torch.manual_seed(5)
    tower, model = timm.create_model(ARCHITECTURE).eval(), new_model(DIM, 64).eval()
    projection = Projection(torch.randn(DIM, 1280) * 0.1, torch.rand(1280))
    finish_model(model, tower, projection, 25.0)
    export_model(model, DIM, 64, tmp_path / "model")
    loaded, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'model'}")
    loaded.eval()
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = projection(tower.forward_features(pixels).mean(dim=(2, 3)))
        found = normalize(loaded.encode_image(pixels), dim=1)
        assert float((found * expected).sum()) > 0.999  # weights are halves
        ids = torch.nn.functional.pad(padded([words.sentence("a cat")]), (0, 73))
        torch.testing.assert_close(loaded.encode_text(ids), model.encode_text(ids), atol=2e-2, rtol=0)
    assert float(loaded.logit_scale.detach().exp()) == pytest.approx(25, rel=1e-5)
    assert preprocess.transforms[-1].mean == [127 / 255] * 3
    state = load_file(tmp_path / "model" / "open_clip_model.safetensors")
    assert {str(value.dtype) for name, value in state.items() if "running" in name} == {"torch.float32"}
    assert state["token_embedding.weight"].dtype == torch.float16
