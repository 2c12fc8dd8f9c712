"""Words that the model has never read are said when it is asked for them."""

from tai_engine.encoders.embedded import embedded_folder


def test_tagging_says_so_in_a_line(tai, tmp_path):
    words, store = tmp_path / "words.txt", embedded_folder("photos") / "coco_photographs.zarr"
    words.write_text("dog\nastronaut\nramen\n")
    outcome = tai("tag", store, "--vocabulary", words, "--top-k", "1", "--out", tmp_path / "tags.parquet")
    assert outcome.status == 0
    said = " ".join(outcome.stderr.split())
    assert "The model has never read words of 2 of 3 names ('astronaut', 'ramen'): it knows nothing of them" in said
    words.write_text("dog\ncat\n")
    outcome = tai("tag", store, "--vocabulary", words, "--top-k", "1", "--out", tmp_path / "tags.parquet")
    assert "never read" not in outcome.stderr
