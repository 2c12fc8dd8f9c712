"""Class vectors by shared prefix against the plain way, written out here: every prompt at the tower's full length."""

from __future__ import annotations

import copy
import logging
from functools import cache
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from golden_set import TOLERANCE, golden_set
from tai_engine.encoders import load_encoder
from tai_engine.errors import UserError
from tai_engine.prompts.tokens import POSITIONS, Prompt, PromptTokens, pack, plan_prompts, tokenize_prompts, word_ids
from tai_engine.prompts.tower import PromptTower
from tiny_models import build_tiny_model, tiny_config

NAMES = ["dog", "potted plant", "hair drier", "motorcycle helmet on a shelf", "cat", "zebra"]
N_CONTEXTS = 5
PLAIN_RESULTS: dict[Any, tuple[Tensor, Tensor]] = {}


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return open_clip.SimpleTokenizer()


def tiny_model(text: dict[str, Any] | None = None, *, custom_text: bool = False, quick_gelu: bool = False) -> nn.Module:
    """A CLIP whose text tower is as told; one for all tests, so it must not be changed."""
    return _tiny_model(tuple((text or {}).items()), custom_text, quick_gelu)


@cache
def _tiny_model(text: tuple[tuple[str, Any], ...], custom_text: bool, quick_gelu: bool) -> nn.Module:
    config = tiny_config("vit")
    config["text_cfg"] = config["text_cfg"] | dict(text)
    config |= {"custom_text": custom_text, "quick_gelu": quick_gelu}
    model = build_tiny_model(config)
    part = model.text if custom_text else model
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        for block in part.transformer.resblocks:  # fresh biases are zero and fresh scales one: both hide mistakes
            for name, parameter in block.named_parameters():
                if name.endswith("bias") or "ln_" in name or "gamma" in name:
                    parameter.copy_(torch.rand_like(parameter))
    return model


def random_contexts(tower: PromptTower, seed: int = 0) -> Tensor:
    return torch.randn(tower.context_shape, generator=torch.Generator().manual_seed(seed))


def plain_class_vectors(model: Any, contexts: Tensor, tokenizer: Any, names: list[str], position: str) -> Tensor:
    """As published: "X X X name.", the embeddings of the X's replaced and moved, all 77 positions through the tower."""
    part = model.text if hasattr(model, "text") else model
    n = contexts.shape[-2]
    text_rows = []
    tokens = tokenizer([" ".join(["X"] * n) + f" {name}." for name in names])
    for c, name in enumerate(names):
        embedded = part.token_embedding(tokens[c]).detach()
        own = contexts[c] if contexts.ndim == 3 else contexts
        n_name = len(tokenizer.encode(name))
        start, words, rest = embedded[:1], embedded[1 + n : 1 + n + n_name], embedded[1 + n + n_name :]
        half = {"end": n, "middle": n // 2, "front": 0}[position]
        text_rows.append(torch.cat([start, own[:half], words, own[half:], rest]))
    x = torch.stack(text_rows) + part.positional_embedding.detach()
    x = part.ln_final(part.transformer(x, attn_mask=part.attn_mask))
    x = x[torch.arange(len(names)), tokens.argmax(dim=1)]
    projection = part.text_projection
    return projection(x) if isinstance(projection, nn.Linear) else x @ projection


def with_gradient(compute: Any, contexts: Tensor) -> tuple[Tensor, Tensor]:
    """Class vectors, and the gradient of a fixed weighting of them."""
    contexts = contexts.clone().requires_grad_()
    vectors = compute(contexts)
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(9))
    (normalize(vectors, dim=1) * weights).sum().backward()
    assert contexts.grad is not None
    return vectors.detach(), contexts.grad


def assert_equal_to_plain(tower: PromptTower, model: nn.Module, tokenizer: Any, names: list[str]) -> None:
    contexts = random_contexts(tower)
    vectors, gradient = with_gradient(tower, contexts)
    key = (id(model), tuple(names), tower.position, tower.context_shape)
    if key not in PLAIN_RESULTS:  # the models live as long as the process, so their ids are their own
        PLAIN_RESULTS[key] = with_gradient(
            lambda c: plain_class_vectors(model, c, tokenizer, names, tower.position), contexts
        )
    expected, expected_gradient = PLAIN_RESULTS[key]
    assert vectors.shape == (len(names), 24)
    assert vectors.dtype == torch.float32
    assert (vectors - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert (gradient - expected_gradient).norm() <= 1e-4 * expected_gradient.norm()
    assert expected_gradient.norm() > 0


MODELS = {
    "clip": {},
    "clip-quick-gelu": {"quick_gelu": True},
    "custom-text": {"custom_text": True, "text": {"proj_bias": True}},
    "layer-scale": {"text": {"ls_init_value": 0.5}},
    "eos-pool": {"text": {"pool_type": "eos", "eos_id": 49407}},
}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("class_specific", [False, True], ids=["shared-contexts", "class-specific"])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("way", ["shared", "cut", "full"])
def test_every_way_equals_the_plain_one(kind: str, position: str, class_specific: bool, way: str, tokenizer: Any):
    model = tiny_model(**MODELS[kind])
    tower = PromptTower(
        model,
        tokenize_prompts(tokenizer, NAMES),
        n_contexts=N_CONTEXTS,
        class_specific=class_specific,
        position=position,
        way=way,
    )
    assert_equal_to_plain(tower, model, tokenizer, NAMES)


@pytest.mark.parametrize("n_contexts", [1, 2, 16])
@pytest.mark.parametrize("names", [["dog"], NAMES], ids=["one class", "several"])
def test_few_and_many_contexts(n_contexts: int, names: list[str], tokenizer: Any):
    model = tiny_model()
    for position in POSITIONS:
        tower = PromptTower(model, tokenize_prompts(tokenizer, names), n_contexts=n_contexts, position=position)
        assert tower.way == "shared"
        assert_equal_to_plain(tower, model, tokenizer, names)


@pytest.mark.parametrize("way", ["shared", "cut", "full"])
@pytest.mark.parametrize("class_specific", [False, True])
def test_chunks_with_recomputation_change_nothing(way: str, class_specific: bool, tokenizer: Any):
    model = tiny_model()
    names = [f"{a} {b}" for a in ("dog", "polka dot", "x") for b in ("house", "motor bike", "ice cream cone", "x")]
    options: dict[str, Any] = {"n_contexts": N_CONTEXTS, "class_specific": class_specific, "way": way}
    tokens = tokenize_prompts(tokenizer, names)
    whole = PromptTower(model, tokens, **options)
    expected, expected_gradient = with_gradient(whole, random_contexts(whole))
    for memory_bytes in (0, 200_000):  # one prompt at a time, and some
        chunked = PromptTower(model, tokens, memory_bytes=memory_bytes, **options)
        assert len(chunked._chunks) > (10 if memory_bytes == 0 else 1)
        vectors, gradient = with_gradient(chunked, random_contexts(whole))
        torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gradient, expected_gradient, atol=1e-5, rtol=1e-4)


def kept_bytes(tower: PromptTower) -> int:
    """What autograd keeps of one forward pass, weights apart."""
    weights = {p.untyped_storage().data_ptr() for p in tower._model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = tower(random_contexts(tower).requires_grad_()).sum()
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("way", ["shared", "cut", "full"])
def test_memory_of_one_chunk_is_within_its_bound(way: str, quick_gelu: bool, tokenizer: Any):
    """Were the estimate per token too low, chunks would take more than they may."""
    config = {"width": 64, "layers": 6}  # deep enough for what does not scale with the blocks to be small
    model = tiny_model(config, quick_gelu=quick_gelu)
    tokens = tokenize_prompts(tokenizer, [f"{a} {b}" for a in NAMES[:4] for b in NAMES])
    bound = 10_000_000
    tower = PromptTower(model, tokens, way=way, memory_bytes=bound)
    sizes = [len(chunk.ids) for chunk in tower._chunks]
    whole = PromptTower(model, tokens, way=way, memory_bytes=1 << 40)
    assert len(whole._chunks) == 1
    share = max(sizes) / len(whole._chunks[0].ids)
    assert kept_bytes(whole) * share <= bound
    if len(sizes) > 1:
        assert kept_bytes(tower) < kept_bytes(whole) / 2  # the rest is computed again


def test_no_gradient_reaches_the_frozen_tower(tokenizer: Any):
    model = tiny_model()
    tower = PromptTower(model, tokenize_prompts(tokenizer, NAMES), n_contexts=N_CONTEXTS)
    with_gradient(tower, random_contexts(tower))
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert not tower(random_contexts(tower)).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tower_gives_fp32_vectors_close_to_the_exact_ones(dtype: torch.dtype, tokenizer: Any):
    model = tiny_model()
    tokens = tokenize_prompts(tokenizer, NAMES)
    exact = PromptTower(model, tokens, n_contexts=N_CONTEXTS)
    contexts = random_contexts(exact)
    expected = normalize(exact(contexts), dim=1)
    rounded = PromptTower(copy.deepcopy(model).to(dtype), tokens, n_contexts=N_CONTEXTS)
    vectors, gradient = with_gradient(rounded, contexts)
    assert vectors.dtype == torch.float32
    assert gradient.dtype == torch.float32
    cosines = (normalize(vectors, dim=1) * expected).sum(dim=1)
    assert bool((cosines > (0.9999 if dtype == torch.float16 else 0.998)).all())


# Towers that allow less


def full_length_vectors(model: Any, tokens: PromptTokens, contexts: Tensor, position: str) -> Tensor:
    """Every prompt alone through ``encode_text``, its placeholders standing for rows of a larger embedding table."""
    part = model.text if hasattr(model, "text") else model
    table = part.token_embedding.weight
    rows = []
    for c in range(len(tokens.names)):
        ids, slots = tokens.prompts(contexts.shape[-2], position)[c]
        own = contexts[c] if contexts.ndim == 3 else contexts
        ids = [len(table) + slot if slot >= 0 else i for i, slot in zip(ids, slots, strict=True)]
        ids += [tokens.padding] * (tokens.context_length - len(ids))
        larger = nn.Embedding.from_pretrained(torch.cat([table, own]), freeze=False)
        larger.weight = nn.Parameter(larger.weight)  # a leaf would cut the gradient; values are all that is wanted
        part.token_embedding = larger
        rows.append(model.encode_text(torch.tensor([ids]), normalize=False)[0].detach())
        part.token_embedding = nn.Embedding.from_pretrained(table)
    return torch.stack(rows)


@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize(
    ("kind", "reason"), [("siglip-text", "not causal"), ("coca", "extra class token")], ids=["siglip", "coca"]
)
def test_other_towers_take_the_full_way_and_say_so(
    kind: str, reason: str, class_specific: bool, caplog: pytest.LogCaptureFixture
):
    config = tiny_config(kind)
    model = build_tiny_model(config)
    length = config["text_cfg"]["context_length"]
    # CoCa's mask knows the padding, so no context may look like it.
    tokens = tokenize_prompts(open_clip.SimpleTokenizer(context_length=length), ["dog", "potted plant"])
    with caplog.at_level(logging.WARNING):
        tower = PromptTower(model, tokens, n_contexts=N_CONTEXTS, class_specific=class_specific, position="middle")
    assert tower.way == "full"
    assert reason in caplog.text
    contexts = random_contexts(tower)
    if class_specific:
        contexts[1] += 1
    vectors, gradient = with_gradient(tower, contexts)
    expected = full_length_vectors(model, tokens, contexts, "middle")
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-4)
    assert torch.linalg.vector_norm(gradient) > 0
    with pytest.raises(UserError, match=reason):
        PromptTower(model, tokens, n_contexts=N_CONTEXTS, way="shared")


def test_gradient_of_the_full_way_is_that_of_differences():
    model = build_tiny_model(tiny_config("siglip-text")).double()
    tokens = tokenize_prompts(open_clip.SimpleTokenizer(context_length=16), ["dog"])
    tower = PromptTower(model, tokens, n_contexts=2)
    contexts = random_contexts(tower).double()
    _, gradient = with_gradient(tower, contexts)
    direction = torch.randn(contexts.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = 1e-3  # vectors leave in fp32
    ends = [with_gradient_value(tower, contexts + sign * step * direction) for sign in (1, -1)]
    assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-3)


def with_gradient_value(tower: PromptTower, contexts: Tensor) -> float:
    vectors = tower(contexts)
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(9))
    return float((normalize(vectors, dim=1) * weights).sum())


def test_unknown_blocks_are_cut_but_not_shared(tokenizer: Any, caplog: pytest.LogCaptureFixture):
    model = tiny_model({"qk_norm": True, "scale_attn_inner": True})
    tokens = tokenize_prompts(tokenizer, NAMES)
    with caplog.at_level(logging.WARNING):
        tower = PromptTower(model, tokens, n_contexts=N_CONTEXTS)
    assert tower.way == "cut"
    assert "CustomResidualAttentionBlock" in caplog.text
    assert_equal_to_plain(tower, model, tokenizer, NAMES)


def test_a_pooling_that_reads_another_position_is_not_cut(tokenizer: Any):
    model = tiny_model({"pool_type": "last"}, custom_text=True)
    tokens = tokenize_prompts(tokenizer, ["dog", "potted plant"])
    tower = PromptTower(model, tokens, n_contexts=N_CONTEXTS)
    assert tower.way == "full"
    contexts = random_contexts(tower)
    torch.testing.assert_close(
        tower(contexts), full_length_vectors(model, tokens, contexts, "end"), atol=1e-5, rtol=1e-4
    )


def test_a_sharing_tower_stays_silent(tokenizer: Any, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        assert PromptTower(tiny_model(), tokenize_prompts(tokenizer, NAMES)).way == "shared"
    assert caplog.text == ""


# Tokens


def test_tokens_by_hand(tokenizer: Any):
    tokens = tokenize_prompts(tokenizer, ["dog", "potted_plant", "St."])
    start, end, stop = tokenizer.sot_token_id, tokenizer.eot_token_id, tokenizer.encode(".")[0]
    assert tokens.start == (start,)
    assert tokens.names[:2] == (tuple(tokenizer.encode("dog")), tuple(tokenizer.encode("potted plant")))
    assert tokens.ends[:2] == ((stop, end), (stop, end))
    # The name's own stop and ours are one token ".."; the prompt is still that of "St..".
    assert tokens.names[2] + tokens.ends[2] == (*tokenizer.encode("st.."), end)
    assert (tokens.padding, tokens.context_length) == (0, 77)
    name = tokens.names[0][0]
    x = tokens.placeholder
    assert tokens.prompts(3, "end")[0] == ([start, x, x, x, name, stop, end], [-1, 0, 1, 2, -1, -1, -1])
    assert tokens.prompts(3, "middle")[0] == ([start, x, name, x, x, stop, end], [-1, 0, -1, 1, 2, -1, -1])
    assert tokens.prompts(3, "front")[0] == ([start, name, x, x, x, stop, end], [-1, -1, 0, 1, 2, -1, -1])


def test_a_tokenizer_without_a_start_that_fills_with_its_end_token():
    """As SigLIP's: no start, one id both ends and fills."""

    def tokenize(texts: list[str]) -> Tensor:
        rows = [[100 + ord(ch) for ch in text if ch != " "] for text in texts]
        return torch.tensor([row + [1] * (12 - len(row)) for row in rows])

    tokens = tokenize_prompts(tokenize, ["ab", "c"])
    assert tokens.start == ()
    assert tokens.names == ((197, 198), (199,))
    assert tokens.ends == ((146,), (146,))
    assert tokens.padding == 1
    assert word_ids(tokenize, tokens, "a b").tolist() == [197, 198]


def test_word_ids(tokenizer: Any):
    tokens = tokenize_prompts(tokenizer, ["dog"])
    assert word_ids(tokenizer, tokens, "a photo of a").tolist() == tokenizer.encode("a photo of a")
    with pytest.raises(UserError, match="initial words"):
        word_ids(tokenizer, tokens, " ")


@pytest.mark.parametrize(
    ("names", "n_contexts", "message"),
    [
        ([], 16, "no class"),
        (["dog", "  "], 16, "'  ' holds nothing"),
        (["very " * 80], 16, "fills all 77 tokens"),
        (["dog", "very " * 60], 16, "takes 79 tokens but the text tower has 77"),
        (["dog"], 0, "is 0"),
        (["dog"], 74, "takes 78 tokens"),
    ],
)
def test_bad_names_and_counts(names: list[str], n_contexts: int, message: str, tokenizer: Any):
    with pytest.raises(UserError, match=message):
        PromptTower(tiny_model(), tokenize_prompts(tokenizer, names), n_contexts=n_contexts)


def test_the_longest_prompt_that_fits(tokenizer: Any):
    model = tiny_model()
    tower = PromptTower(model, tokenize_prompts(tokenizer, ["dog"]), n_contexts=73)  # start, name, stop, end: 77
    assert_equal_to_plain(tower, model, tokenizer, ["dog"])


def test_unknown_choices_and_shapes(tokenizer: Any):
    tokens = tokenize_prompts(tokenizer, NAMES)
    with pytest.raises(UserError, match="did you mean 'middle'"):
        PromptTower(tiny_model(), tokens, position="midle")
    with pytest.raises(UserError, match="'shared'"):
        PromptTower(tiny_model(), tokens, way="share")
    tower = PromptTower(tiny_model(), tokens, n_contexts=4)
    with pytest.raises(ValueError, match=r"\(4, 32\)"):
        tower(torch.zeros(5, 32))


def test_packing_by_hand():
    model, (start, end) = tiny_model(), (49406, 49407)

    def classes_of(lengths: list[int], max_tokens: int) -> list[list[int]]:
        """Names of so many tokens, each with the end-of-text token behind it, after a shared start and context."""
        names = tuple((9,) * length for length in lengths)
        tokens = PromptTokens((start,), names, ((end,),) * len(names), 9, 0, 77, tuple(map(str, names)))
        options: dict[str, Any] = {"n_contexts": 1, "class_specific": False, "position": "end", "way": "shared"}
        plan = plan_prompts(model, tokens, max_tokens=max_tokens, device=torch.device("cpu"), **options)
        assert plan.prefix.ids.tolist() == [start, 9]
        return [chunk.classes.tolist() for chunk in plan.chunks]

    assert classes_of([3, 1, 2, 1], 11) == [[1, 3, 2, 0]]
    assert classes_of([3, 1, 2, 1, 3, 3, 3], 22) == [[1, 3], [2], [0], [4], [5], [6]]  # 23 tokens in pieces of 5
    assert classes_of([5, 5], 0) == [[0], [1]]
    prompts = [Prompt([7, 8, 9], [-1, 0, -1]), Prompt([4], [-1]), Prompt([5, 6, 1], [1, -1, -1])]
    chunk = pack([1, 0, 2], prompts, 10, 2, torch.device("cpu"))
    assert chunk.ids.tolist() == [4, 7, 8, 9, 5, 6, 1]
    assert chunk.positions.tolist() == [10, 10, 11, 12, 10, 11, 12]
    assert (chunk.rows.tolist(), chunk.contexts.tolist()) == ([2, 4], [0, 5])
    assert chunk.ends.tolist() == [0, 3, 6]
    assert chunk.groups == ((slice(0, 1), 1, 1), (slice(1, 7), 2, 3))


# The published code's numbers


def golden_tokens() -> PromptTokens:
    """From "X … X name." as the published code has it."""
    golden = golden_set()
    rows, ends = golden["prompt_tokens"], golden["prompt_tokens"].argmax(dim=1).tolist()
    first = 1 + golden.n_ctx
    return PromptTokens(
        start=(int(rows[0, 0]),),
        names=tuple(tuple(row[first : end - 1].tolist()) for row, end in zip(rows, ends, strict=True)),
        ends=tuple(tuple(row[end - 1 : end + 1].tolist()) for row, end in zip(rows, ends, strict=True)),
        placeholder=int(rows[0, 1]),
        padding=int(rows[0, -1]),
        context_length=rows.shape[1],
        labels=tuple(f"class {c}" for c in range(len(rows))),
    )


@pytest.mark.golden
@pytest.mark.parametrize("way", ["shared", "cut", "full"])
def test_golden_class_vectors(way: str, golden_model: str):
    golden = golden_set()
    model = load_encoder(golden_model, device="cpu", precision="fp32").model
    tower = PromptTower(
        model, golden_tokens(), n_contexts=golden.n_ctx, class_specific=golden.class_specific_contexts, way=way
    )
    for kind in ("global", "local"):
        difference = tower(golden[f"ctx_{kind}"]) - golden[f"class_{kind}"]
        assert difference.abs().max() <= TOLERANCE
