"""The sentences that come with the engine, and the photographs that they are about."""

import json

from tai_engine.sentences.built_in import are_built_in, built_in_captions, captioned_pictures
from tai_engine.sentences.corpus import image_key
from tai_engine.sentences.read import read_sentences


def test_the_captions_are_those_of_the_model_card():
    sentences = list(read_sentences(built_in_captions()))
    assert len(sentences) == 20_213
    assert len({image_key(sentence.image_id) for sentence in sentences}) == 4_040
    assert sentences[0].text == "A big burly grizzly bear is show with grass in the background."


def test_pictures_are_known_by_coco_s_spelling_alone():
    ids = [
        "000000000285.jpg", "285.jpg", "val2017/000000000285.jpg", "COCO_val2014_000000000285.jpg", "000000000285",
        "000000000632.jpg", "999999999999.jpg", "0000000000285.jpg", "dog.jpg", "000000000285.jpg/dog.jpg",
    ]  # fmt: skip
    assert captioned_pictures(ids) == [ids[0], *ids[2:5]]
    assert captioned_pictures([]) == []


def test_no_caption_is_of_a_photograph_whose_features_ship():
    lines = (built_in_captions().parent / "coco_photographs.jsonl").read_text(encoding="utf-8").splitlines()
    names = [json.loads(line)["file_name"] for line in lines]
    assert len(names) == 152
    assert captioned_pictures(names) == []


def test_the_file_is_told_by_its_place(tmp_path):
    copy = tmp_path / "coco_captions.jsonl.gz"
    copy.write_bytes(built_in_captions().read_bytes())
    assert are_built_in([copy, built_in_captions()])
    assert not are_built_in([copy, tmp_path / "missing"])
