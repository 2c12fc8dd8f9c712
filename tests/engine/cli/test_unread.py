"""Words that the model has hardly read are said when it is asked for them."""

from tai_engine.encoders.embedded import embedded_folder


def test_tagging_says_so_in_a_line(tai, tmp_path):
    words, store = tmp_path / "words.txt", embedded_folder("photos") / "coco_photographs.zarr"
    words.write_text("dog\nastronaut\ntemple\n")

    def said(vocabulary):
        outcome = tai("tag", store, "--vocabulary", vocabulary, "--top-k", "1", "--out", tmp_path / "tags.parquet")
        assert outcome.status == 0
        return " ".join(outcome.stderr.split())

    assert (
        "The model has never or hardly read words of 2 of 3 names ('astronaut', 'temple'): it knows nothing of them, "
        "or little; call them otherwise, or take another model."
    ) in said(words)
    words.write_text("dog\ncat\n")
    assert "hardly read" not in said(words)
    assert "hardly read" not in said("everyday")  # nobody asked for each of these
