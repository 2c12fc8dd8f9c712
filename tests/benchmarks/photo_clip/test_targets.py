import json

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tai_benchmarks.photo_clip.clip_vectors import plain_name, read_clip_vectors
from tai_benchmarks.photo_clip.noun_labels import CaptionLabels, ImageNetSynsets
from tai_benchmarks.photo_clip.targets import (
    OwnTargets,
    combine_own,
    map_vectors,
    own_targets,
    target_names,
    targets_by_name,
)
from tai_engine.errors import UserError
from tai_engine.vocabulary import load_vocabulary


def unit(*numbers):
    return normalize(torch.tensor(numbers, dtype=torch.float32), dim=0)


def labels(names, shares):
    return CaptionLabels(tuple((name,) for name in names), tuple(range(len(names))), len(names), shares)


def test_own_targets_point_to_where_the_photographs_are():
    generator = torch.Generator().manual_seed(1)
    axes = torch.eye(3)
    rows = normalize(axes.repeat(40, 1) + 0.05 * torch.randn(120, 3, generator=generator), dim=1)
    shares = axes.repeat(40, 1)
    synsets = ImageNetSynsets((7, 8), torch.tensor([[1.0, 0], [1, 0], [0, 1]]), {})
    own = own_targets(rows, labels(["a", "b", "c"], shares), rows, shares, synsets)
    assert own.captions.argmax(dim=1).tolist() == [0, 1, 2]
    assert own.counts.tolist() == [40, 40, 40]
    assert (own.imagenet[0] @ unit(1, 1, 0)) > (own.imagenet[0] @ unit(0, 0, 1)) + 0.9
    torch.testing.assert_close(own.captions.norm(dim=1), torch.ones(3))


def test_captions_count_the_more_the_more_photographs_they_have():
    synsets = ImageNetSynsets((5,), torch.ones(1, 1), {"dog": 0, "wolf": 0})
    own = OwnTargets(torch.stack([unit(1, 0), unit(0, 1)]), torch.tensor([30.0, 10.0]), unit(0, 1).unsqueeze(0))
    found = combine_own(own, labels(["dog", "T-shirt"], torch.ones(1, 2)), synsets)
    torch.testing.assert_close(found["dog"], torch.tensor([30 / 40, 0.5]))
    torch.testing.assert_close(found["t shirt"], torch.tensor([0, 10 / 20]))
    torch.testing.assert_close(found["wolf"], torch.tensor([0.0, 1.0]))


def test_a_linear_map_is_found_and_carried_to_names_that_have_no_target():
    generator = torch.Generator().manual_seed(2)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    vectors = {f"n{number}": torch.randn(6, generator=generator) for number in range(400)}
    targets = {name: vector @ turn for name, vector in list(vectors.items())[:300]}
    mapped = map_vectors(vectors, targets)
    assert mapped.keys() == vectors.keys()
    closeness = [float(mapped[name] @ normalize(vectors[name] @ turn, dim=0)) for name in list(vectors)[300:]]
    assert min(closeness) > 0.95


def test_targets_are_own_mapped_or_both_and_of_unit_length():
    synsets = ImageNetSynsets((5,), torch.ones(1, 1), {"cat": 0})
    own = OwnTargets(torch.stack([unit(1, 0), unit(1, 1)]), torch.tensor([10.0, 10.0]), unit(0, 1).unsqueeze(0))
    vectors = {"dog": torch.tensor([1.0, 0, 0]), "cat": torch.tensor([0.0, 1, 0]), "yak": torch.tensor([0.9, 0.1, 0])}
    concepts = labels(["dog", "only captions"], torch.ones(1, 2))
    found = targets_by_name(own, concepts, synsets, vectors)
    mapped = map_vectors(vectors, combine_own(own, concepts, synsets))
    assert list(found) == ["cat", "dog", "only captions", "yak"]
    assert target_names(concepts, synsets, vectors) == set(found)
    torch.testing.assert_close(found["yak"], mapped["yak"])
    torch.testing.assert_close(found["only captions"], unit(1, 1))
    torch.testing.assert_close(found["cat"], normalize(unit(0, 1) + 0.7 * mapped["cat"], dim=0))
    torch.testing.assert_close(found["dog"], normalize(0.5 * unit(1, 0) + 0.7 * mapped["dog"], dim=0))


def test_plain_names():
    assert plain_name("Bow_(decorative_ribbons)") == "bow"
    assert plain_name("flip-flop_(sandal)") == "flip flop"
    assert plain_name(" Street  Lights") == "street lights"


@pytest.fixture
def published(tmp_path):
    """The files of published vectors, of few names where the format allows it."""
    detic, clip_lt = tmp_path / "detic", tmp_path / "clip_lt"
    detic.mkdir()
    clip_lt.mkdir()
    generator = np.random.default_rng(1)

    def vectors(path, count):
        np.save(path, generator.normal(size=(count, 512)).astype(np.float16))

    vectors(detic / "coco_clip_a+cname.npy", len(load_vocabulary("coco80").names))
    vectors(detic / "lvis_v1_clip_a+cname.npy", 2)
    vectors(detic / "o365_clip_a+cnamefix.npy", 2)
    vectors(detic / "oid_clip_a+cname.npy", 2)
    (detic / "lvis_v1_train_cat_info.json").write_text(json.dumps([{"name": "bat_(animal)"}, {"name": "yak"}]))
    (detic / "Objects365_names_fix.csv").write_text("1,Person,Person\n2,Handbag/Satchel,Handbag/Satchel\n")
    (detic / "oid.py").write_text(
        "import os\ncategories = [{'id': 1, 'name': 'Flute'}, {'id': 2, 'name': 'Sea turtle'}]\n"
    )
    (clip_lt / "labels_names.py").write_text("labels_names = {0: 'tench, Tinca tinca', 1: 'goldfish'}\n")
    torch.save(torch.randn(2, 512, generator=torch.Generator().manual_seed(1)), clip_lt / "text_features2.pt")
    return tmp_path


def test_published_vectors_are_read_by_plain_name(published):
    found = read_clip_vectors(published)
    assert {"bat", "yak", "handbag", "satchel", "sea turtle", "tinca tinca", "goldfish", "potted plant"} <= found.keys()
    torch.testing.assert_close(torch.stack(list(found.values())).norm(dim=1), torch.ones(len(found)))
    # Two vectors, centred, are opposites.
    torch.testing.assert_close(found["bat"], -found["yak"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found["tench"], found["tinca tinca"], atol=1e-5, rtol=0)


def test_published_vectors_that_do_not_fit_are_refused(published):
    np.save(published / "detic" / "oid_clip_a+cname.npy", np.ones((3, 512), dtype=np.float16))
    with pytest.raises(UserError, match=r"2 names and 3 CLIP vectors in .* do not belong together"):
        read_clip_vectors(published)
    (published / "detic" / "oid.py").write_text("names = []\n")
    with pytest.raises(UserError, match=r"oid\.py assigns nothing to categories"):
        read_clip_vectors(published)
    (published / "detic" / "Objects365_names_fix.csv").unlink()
    with pytest.raises(UserError, match=r"A file of CLIP's vectors is missing: .*Objects365_names_fix\.csv"):
        read_clip_vectors(published)
