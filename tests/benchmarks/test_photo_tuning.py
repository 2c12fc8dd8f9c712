"""The table of what tuning does for photographs, and how its settings are chosen; by hand where figures matter."""

import numpy as np
import pytest
import torch

from tai_benchmarks.photo_clip.captions import CaptionedPhotographs
from tai_benchmarks.photo_tuning import (
    SHUFFLED,
    LabelledFeatures,
    PhotoTuning,
    negatives_of,
    parse_changes,
    ready_photographs,
    recipe,
    table,
    with_shuffled_labels,
)
from tai_benchmarks.photo_tuning_choice import choice_table, shown_classes, with_start
from tai_engine.encoders.embedded import constants_of
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.tagging.scoring import SCORES
from tai_engine.tuning import NegativeConfig
from tai_engine.tuning.sentence_table import SentenceTable
from tai_engine.vocabulary import Vocabulary, load_vocabulary


def sentence_table():
    """Five sentences that hold {0}, {1, 2}, {}, {2} and {0, 1, 2}."""
    offsets, classes = torch.tensor([0, 1, 3, 3, 4, 7]), torch.tensor([0, 1, 2, 2, 0, 1, 2])
    return SentenceTable(None, torch.arange(5) * 10, torch.arange(5), offsets, classes, 3)


def test_shuffled_labels_are_those_of_other_sentences():
    plain = sentence_table()
    shuffled = with_shuffled_labels(plain, seed=3)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(3))
    assert order.tolist() != list(range(5))
    assert torch.equal(shuffled.labels(torch.arange(5)), plain.labels(order))
    assert torch.equal(shuffled.positions, plain.positions)
    assert torch.equal(shuffled.class_counts(), plain.class_counts())


def test_the_ready_photographs_and_their_labels():
    judge = ready_photographs(load_vocabulary("coco80"))
    assert judge.labels.shape == (152, 80)
    assert (judge.labels == 1).any(axis=0).sum() == 78
    row = judge.features.ids.index("000000000632.jpg")
    names = load_vocabulary("coco80").names
    assert [names[c] for c in np.flatnonzero(judge.labels[row] == 1)] == ["chair", "potted plant", "bed", "book"]


@pytest.fixture
def judge():
    """Four pictures, of which the first two show class 0 and the last two class 1."""
    labels = np.array([[1, -1], [1, -1], [-1, 1], [-1, 1]], dtype=np.int8)
    batch = FeatureBatch(tuple("abcd"), torch.eye(4), torch.eye(4), torch.arange(5), "space")
    return LabelledFeatures(batch, labels)


def scores_of(rows):
    return dict.fromkeys(SCORES, np.array(rows, dtype=np.float32))


def test_the_table(judge):
    right = scores_of([[3, 0], [2, 1], [1, 2], [0, 3]])  # every positive before every negative
    wrong = scores_of([[0, 3], [1, 2], [2, 1], [3, 0]])  # positives at ranks 3 and 4: (1/3 + 2/4) / 2
    asked = []

    def tuned(negatives, seed):
        asked.append((negatives, seed))
        return right if negatives == "hard" else wrong

    lines = list(table(judge, wrong, tuned, ["random", "none", "hard"], [1, 2]))
    kinds = ["random", "none", "hard", SHUFFLED]
    assert asked == [(kind, seed) for kind in kinds for seed in (1, 2)]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[1:3] for row in cells] == [
        ["-", "-"],
        *([kind, seed] for kind in kinds for seed in ("1", "2", "all")),
    ]
    assert cells[0][3:] == ["41.7", "41.7", "41.7", "", "", "", ""]
    by_kind = dict(zip(kinds, zip(*[iter(cells[1:])] * 3, strict=True), strict=True))
    nothing = "+0.0 [0.0, 0.0]"
    for one in by_kind["hard"]:
        assert one[3:6] == ["100.0"] * 3
        assert one[6].startswith("+58.3 [")
        assert one[9].startswith("+58.3 [")  # none is as wrong as zero-shot prompts
    assert [one[6:] for one in by_kind["random"]] == [[nothing] * 3 + [""]] * 3  # before none, so not held against it
    assert [one[6:] for one in by_kind[SHUFFLED]] == [[nothing] * 4] * 3


def test_prompts_are_scored_as_they_want_it_or_as_asked(judge):
    vectors = torch.eye(4)[:2]
    prompts = PromptSet(("x", "y"), vectors, vectors, "space", 10.0)
    plain = judge.scores(prompts, "none")
    assert plain["coarse"].tolist() == [[10, 0], [0, 10], [0, 0], [0, 0]]
    assert judge.scores(prompts)["coarse"].tolist() == plain["coarse"].tolist()  # too few classes to be standardised


def test_the_recipe_is_the_one_beside_the_model():
    for name, value in constants_of("photos").tuning.items():
        assert getattr(recipe(), name) == value


def test_captions_show_a_class_when_enough_of_them_name_it():
    photographs = CaptionedPhotographs(
        tuple(f"{n}.jpg" for n in range(7)),
        (*[("a dog", "dogs run", "grass")] * 5, ("a dog", "a cat", "grass"), ("a cat", "two cats", "a dog")),
    )
    shown = shown_classes(photographs, [0, 1, 2, 3, 4, 5, 6], Vocabulary.from_names(["dog", "cat"]))
    # Two captions name the dog in five photographs; the cat is named by two captions of one alone.
    assert shown.tolist() == [[1, -1]] * 5 + [[-1, -1]] * 2
    assert (shown_classes(photographs, [0, 1, 2, 3], Vocabulary.from_names(["dog"])) == -1).all()


def test_settings_of_a_run():
    assert parse_changes("noise=2 loss=asl class_specific=false") == {
        "noise": 2, "loss": "asl", "class_specific": False,
    }  # fmt: skip
    assert parse_changes("") == {}
    with pytest.raises(UserError, match=r"'noise' is no setting: write NAME=VALUE"):
        parse_changes("noise")


def test_negatives_of_a_run():
    assert negatives_of("none") == NegativeConfig(strategy="none")
    assert negatives_of("hard margin=0.7 skip_top=9") == NegativeConfig(strategy="hard", margin=0.7, skip_top=9)
    with pytest.raises(UserError, match="strategy"):
        negatives_of("soft")


def test_runs_of_a_choice_say_what_they_change_and_average_their_seeds(judge, monkeypatch):
    vectors = torch.eye(4)
    start = PromptSet(("x", "y"), vectors[2:], vectors[2:], "space", 10.0)
    right = PromptSet(("x", "y"), vectors[[0, 2]], vectors[[0, 2]], "space", 10.0)
    asked = []

    def prompts(runs, negatives, seed):
        asked.append((runs.config.noise, runs.config.start_share, negatives, seed))
        return right if seed == 2 else start

    monkeypatch.setattr(PhotoTuning, "prompts", prompts)
    runs = PhotoTuning(None, Vocabulary.from_names(["x", "y"]), None, recipe())
    lines = list(choice_table(judge, runs, start, ["noise=2 negatives hard margin=0.5"], [1, 2]))
    assert asked == [(2, 0.0, "hard margin=0.5", 1), (2, 0.0, "hard margin=0.5", 2)]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[1] for row in cells] == ["1", "0", "0.3", "0.5", "0.7"]
    single = [float(figure) for figure in cells[0][2:]]
    both = [float(figure) for figure in cells[1][2:]]
    mean = [np.mean([judge.precision(judge.scores(one, "none"), which) for one in (start, right)]) for which in SCORES]
    assert both == pytest.approx([*mean, mean[-1]], abs=0.05)
    assert both > single


def test_a_share_of_the_start():
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    mixed = with_start(PromptSet(("x",), one, other, "s", 1.0), PromptSet(("x",), other, other, "s", 1.0), 0.25)
    length = (0.75**2 + 0.25**2) ** 0.5
    torch.testing.assert_close(mixed.global_vectors, torch.tensor([[0.75 / length, 0.25 / length]]))
    assert torch.equal(mixed.local_vectors, other)
