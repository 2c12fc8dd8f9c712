import logging

import pytest
import torch
import torch.nn.functional as F

from tai_engine.encoders import load_encoder

SENTENCES = [
    "A dog chases a red ball over the wet grass of the park.",
    "dog",
    "",
    "Two people, three bicycles and a very long bench.",
    "word " * 100,
    "a photo of a cat.",
]
IDS = [f"sentence {i}" for i in range(len(SENTENCES))]


def close(actual, expected, atol=2e-6):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


def full_context_tokens(model, tokens):
    """Every position of the full context through ln_final and the projection, the long way."""
    part = model.text if hasattr(model, "text") else model
    x = part.token_embedding(tokens) + part.positional_embedding
    x = part.ln_final(part.transformer(x, attn_mask=part.attn_mask))
    projection = part.text_projection
    return projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection


@pytest.mark.parametrize("kind", ["resnet", "custom-text"])
@pytest.mark.parametrize("batch_size", [0, 1, 4])
def test_causal_towers_cut_at_the_end_and_lose_nothing(tiny_encoder, kind, batch_size):
    encoder = tiny_encoder(kind, batch_size=batch_size)
    batch = encoder.encode_sentences(SENTENCES, IDS)
    tokens = encoder.tokenize(SENTENCES)
    lengths = (tokens != 0).sum(dim=1)
    with torch.no_grad():
        expected_fine = full_context_tokens(encoder.model, tokens)
        expected_coarse = encoder.model.encode_text(tokens, normalize=True)
    assert encoder.sentence_recipe["dense"] == "causal"
    assert batch.ids == tuple(IDS)
    assert batch.counts.tolist() == lengths.tolist()
    assert batch.counts.tolist()[1:3] == [3, 2]  # start, "dog", end; start, end
    assert batch.coarse_clip is None
    close(batch.coarse, expected_coarse)
    for n, length in enumerate(lengths.tolist()):
        close(batch[n : n + 1].fine, F.normalize(expected_fine[n, :length], dim=-1))


def test_a_sentence_that_is_too_long_is_cut_before_its_end(tiny_encoder):
    encoder = tiny_encoder("resnet")
    tokens = encoder.tokenize(["word " * 100])
    assert encoder.context_length == tokens.shape[1] == 77
    assert tokens[0, -1] == 49407
    assert encoder.encode_sentences(["word " * 100], ["a"]).counts.tolist() == [77]


def test_no_sentence_and_one_sentence(tiny_encoder):
    encoder = tiny_encoder("resnet")
    for batch in (encoder.encode_sentences([], []), encoder.encode_tokens(torch.zeros(0, 77, dtype=torch.int64), [])):
        assert len(batch) == 0
        assert batch.coarse.shape == batch.fine.shape == (0, 24)
    assert encoder.encode_class_texts([]).shape == (0, 24)
    one = encoder.encode_sentences(SENTENCES[:1], ["a"])
    close(one.fine, encoder.encode_sentences(SENTENCES, IDS)[:1].fine)


def test_only_the_longest_sentence_of_a_batch_sets_the_work(tiny_encoder):
    encoder = tiny_encoder("resnet", batch_size=2)
    seen = []
    handle = encoder.model.transformer.register_forward_pre_hook(lambda _m, args: seen.append(tuple(args[0].shape)))
    encoder.encode_sentences(SENTENCES, IDS)
    handle.remove()
    lengths = sorted((encoder.tokenize(SENTENCES) != 0).sum(dim=1).tolist())
    assert [shape[:2] for shape in seen] == [(2, lengths[1]), (2, lengths[3]), (2, lengths[5])]


@pytest.mark.parametrize("batch_size", [0, 2])
def test_towers_that_are_not_causal_take_the_plain_way(tiny_encoder, batch_size):
    encoder = tiny_encoder("siglip-text", batch_size=batch_size)
    batch = encoder.encode_sentences(SENTENCES, IDS)
    tokens = encoder.tokenize(SENTENCES)
    lengths = (tokens != 0).sum(dim=1)
    with torch.no_grad():
        coarse = encoder.model.encode_text(tokens, normalize=True)
        fine = full_context_tokens(encoder.model, tokens)
        part = encoder.model.text
        cut = part.token_embedding(tokens[1:2, :3]) + part.positional_embedding[:3]
        cut = part.text_projection(part.ln_final(part.transformer(cut)))
    assert encoder.sentence_recipe["dense"] == "plain"
    assert encoder.context_length == 16
    close(batch.coarse, coarse)
    assert batch.counts.tolist() == lengths.tolist() == [16, 3, 2, 13, 16, 8]
    for n, length in enumerate(lengths.tolist()):
        close(batch[n : n + 1].fine, F.normalize(fine[n, :length], dim=-1))
    # The cut that is exact for a causal tower would be wrong here.
    assert (F.normalize(cut[0], dim=-1) - batch[1:2].fine).abs().max() > 1e-3


def test_one_id_that_both_ends_and_fills():
    from tai_engine.encoders.text import PlainTextTower

    tower = PlainTextTower(None, None, True, padding_id=1, padding_ends_sentence=True)
    tokens = torch.tensor([[5, 6, 1, 1, 1], [1, 1, 1, 1, 1], [5, 6, 7, 8, 9], [5, 1, 7, 1, 1]])
    assert tower.lengths(tokens).tolist() == [3, 1, 5, 4]


def test_a_text_tower_with_an_appended_class_token_gives_coarse_only(model_folder, caplog):
    with caplog.at_level(logging.WARNING):
        encoder = load_encoder(model_folder("coca"), device="cpu")
    assert "coarse vectors only for sentences" in caplog.text
    assert not encoder.has_fine_sentences
    batch = encoder.encode_sentences(SENTENCES, IDS)
    with torch.no_grad():
        close(batch.coarse, encoder.model.encode_text(encoder.tokenize(SENTENCES), normalize=True))
    assert batch.fine.shape == (0, 24)
    assert batch.counts.tolist() == [0] * len(SENTENCES)


@pytest.mark.parametrize("kind", ["resnet", "custom-text", "siglip-text", "coca"])
def test_class_texts_are_the_coarse_vectors(tiny_encoder, kind):
    encoder = tiny_encoder(kind)
    vectors = encoder.encode_class_texts(SENTENCES)
    assert vectors.dtype == torch.float32
    close(vectors, encoder.encode_sentences(SENTENCES, IDS).coarse)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near(tiny_encoder, precision):
    actual, expected = (
        tiny_encoder("resnet", precision=p).encode_sentences(SENTENCES, IDS) for p in (precision, "fp32")
    )
    assert actual.fine.dtype == torch.float32
    assert ((actual.fine * expected.fine).sum(-1) > 0.999).all()


def test_out_of_memory_halves_the_batch(model_folder, tiny_encoder):
    encoder = load_encoder(model_folder("resnet"), device="cpu")
    seen = []

    def at_most_two(_module, args):
        seen.append(len(args[0]))
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

    encoder.model.transformer.register_forward_pre_hook(at_most_two)
    close(encoder.encode_sentences(SENTENCES, IDS).fine, tiny_encoder("resnet").encode_sentences(SENTENCES, IDS).fine)
    assert seen == [6, 3, 1, 1, 1, 1, 1, 1]


def test_tokens_of_another_shape_or_outside_the_vocabulary(tiny_encoder):
    encoder = tiny_encoder("resnet")
    with pytest.raises(ValueError, match=r"expected int64 \(N, 77\)"):
        encoder.encode_tokens(torch.zeros(1, 76, dtype=torch.int64), ["a"])
    with pytest.raises(ValueError, match="outside the model's vocabulary of 49408"):
        encoder.encode_tokens(torch.full((1, 77), 49408), ["a"])
    with pytest.raises(ValueError, match="1 items but 2 ids"):
        encoder.encode_sentences(["dog"], ["a", "b"])
