import gzip
import json

from tai_engine.demo.everyday_tags import rates_in_captions
from tai_engine.vocabulary import Vocabulary, VocabularyClass


def test_rates_count_photographs_and_not_captions(tmp_path):
    captions = [(1, "a dog"), (1, "two dogs and a cat"), (2, "a cat"), (3, "nothing to see"), (3, "grass")]
    path = tmp_path / "captions.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for number, caption in captions:
            file.write(json.dumps({"image_id": number, "caption": caption}) + "\n")
    words = Vocabulary("pets", tuple(VocabularyClass(name) for name in ("dog", "cat", "bird")))
    # Of three photographs a dog is on one, a cat on two, a bird on none; half a photograph more of each, and one more.
    assert rates_in_captions(path, words) == {"dog": 1.5 / 4, "cat": 2.5 / 4, "bird": 0.5 / 4}
