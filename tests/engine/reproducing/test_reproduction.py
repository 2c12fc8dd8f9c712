"""Every protocol from end to end on a miniature of its data: what it reads, keeps and says."""

import json
from dataclasses import replace

import pytest

from tai_engine.errors import UserError
from tai_engine.evaluation.truth import load_truth
from tai_engine.reproducing.miniatures import PICTURES, miniature_of, write_captions, write_miniature
from tai_engine.reproducing.picture_sets import pictures_of, training_sentences, words_of
from tai_engine.reproducing.reproduction import check_needs, reproduce
from tai_engine.reproducing.row_protocol import load_protocol, protocol_names

CLASSES = {
    "taidpt-voc2007": 20,
    "taidpt-coco2014": 80,
    "taidpt-nuswide": 81,
    "taidpt-voc-mlt": 20,
    "taidpt-coco-lt": 80,
    "taidpt-coco-16-novel": 16,
    "taidpt-dualcoop-voc2007-10": 20,
    "taidpt-dualcoop-coco2014-10": 80,
}


@pytest.mark.parametrize(
    "name", [name if name == "taidpt-voc2007" else pytest.param(name, marks=pytest.mark.slow) for name in CLASSES]
)
def test_from_end_to_end(name, tmp_path):
    whole = load_protocol(name)
    data, out = tmp_path / "data", tmp_path / "out"
    write_miniature(whole, data)
    assert all((data / need.path).exists() for need in whole.needs)  # the miniature has all that the whole one needs
    protocol = miniature_of(whole, data)
    stages = set()
    result = reproduce(protocol, data, out, device="cpu", progress=lambda what, *_: stages.add(what))
    assert (result.pictures, result.classes) == (PICTURES, CLASSES[name])
    assert result.digest == whole.digest
    assert result.published == whole.published.map
    assert 0 < result.map == result.seeds[0].map <= 1
    assert "no label of a test picture was looked at" in str(result.remarks)
    more = {"labelled pictures", "pictures, once more", "labelled pictures, tuning"} if whole.partial else set()
    assert stages == {"pictures", "sentences", "seed 1, tuning", "seed 1, tagging"} | more
    if whole.partial:
        coarse, fine = (whole.model.image_size, whole.partial.model.image_size)
        assert (coarse, fine, whole.partial.recipe.known, whole.partial.share) == (224, 448, 0.1, 0.9)
        assert (out / "seed-1" / "together.parquet").exists()
    written = json.loads((out / "result.json").read_text())
    assert written["map"] == result.map
    groups = [group.name for group in result.seeds[0].groups]
    assert groups == (["head", "medium", "tail", "all groups"] if whole.pictures.splits else [])
    assert "not the published ones" not in str(result.remarks)
    if name == "taidpt-voc2007":  # what is difficult stays so on its way through the table
        truth = load_truth(out / "truth.jsonl", words_of(whole.pictures).names)
        assert (truth.labels == 0).sum() == 1
        # Nothing is done twice, and the folder is not another protocol's.
        chunks = {path: path.stat().st_mtime_ns for path in (out / "pictures.zarr").rglob("c.*")}
        assert chunks
        assert reproduce(protocol, data, out, device="cpu").map == result.map
        assert all(path.stat().st_mtime_ns == time for path, time in chunks.items())
        with pytest.raises(UserError, match="a run of another protocol, model or data"):
            reproduce(replace(protocol, digest="other"), data, out, device="cpu")


def test_every_protocol_is_run_here():
    assert sorted(CLASSES) == list(protocol_names())


def test_sentences_about_tested_pictures_do_not_teach(tmp_path):
    protocol = load_protocol("taidpt-coco2014")
    write_miniature(protocol, tmp_path)
    tested = pictures_of(protocol.pictures, tmp_path)
    leaking, other = 1, 999
    assert f"COCO_val2014_{leaking:012d}.jpg" in tested.ids
    captions = [(leaking, "a dog"), (other, "a cat"), (other, "another cat")]
    write_captions(tmp_path / protocol.sentences.files[0], captions)
    corpus = training_sentences(miniature_of(protocol, tmp_path), tmp_path, tested)
    assert [one.text for one in corpus] == ["a cat"]  # and one an image
    assert corpus.report.excluded == 1


def test_only_sentences_about_the_listed_pictures_teach(tmp_path):
    protocol = miniature_of(load_protocol("taidpt-coco-lt"), tmp_path)
    write_miniature(protocol, tmp_path)
    listed, other = 16, 17
    write_captions(tmp_path / protocol.sentences.files[0], [(listed, "a dog"), (other, "a cat")])
    corpus = training_sentences(protocol, tmp_path, pictures_of(protocol.pictures, tmp_path))
    assert [one.text for one in corpus] == ["a dog"]


def test_other_classes_compounds_are_not_the_novel_ones(tmp_path):
    words = words_of(load_protocol("taidpt-coco-16-novel").pictures)
    assert len(words) == 16
    assert "wine glass" in words.other_names
    assert "snowboard" in words.names


def test_what_is_missing_is_named_with_its_place(tmp_path):
    protocol = load_protocol("taidpt-voc-mlt")
    with pytest.raises(UserError) as error:
        check_needs(protocol, tmp_path)
    for need in protocol.needs:
        assert f"'{tmp_path / need.path}' from {need.origin}" in str(error.value)
    with pytest.raises(UserError, match=r"Unknown protocol 'taidpt-voc'; did you mean"):
        load_protocol("taidpt-voc")


def test_another_list_than_the_published_one_is_said(tmp_path):
    protocol = load_protocol("taidpt-voc2007")
    write_miniature(protocol, tmp_path / "data")
    mini = miniature_of(protocol, tmp_path / "data")
    mini = replace(mini, pictures=protocol.pictures)
    result = reproduce(mini, tmp_path / "data", tmp_path / "out", device="cpu")
    assert any("is of 4,952 pictures, this one of 6: they cannot be compared" in remark for remark in result.remarks)
