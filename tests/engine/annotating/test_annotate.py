"""The whole way in one run, whatever was there before, and whenever the run before it was ended."""

import contextlib
import os
import signal
from contextlib import closing
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from fake_encoders import FakeEncoder, unit
from review_samples import write_pictures
from tai_engine.annotating.annotate import AnnotateOptions, annotate
from tai_engine.annotating.results_folder import RECORD, ResultsFolder
from tai_engine.caching.report import CacheOptions
from tai_engine.calibration.calibration import Calibration
from tai_engine.calibration.logistic import LogisticCurves
from tai_engine.errors import UserError
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.review.decisions import Change
from tai_engine.review.journal import Journal
from tai_engine.sources import open_source
from tai_engine.tagging.tag_selection import Selection

NAMES = [f"{n}.jpg" for n in range(6)]
WORDS = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
PROMPTS = PromptSet(("red", "green", "blue"), WORDS, WORDS, "space:fake", 10.0)
OPTIONS = AnnotateOptions(CacheOptions(workers=1, group_items=4, slice_items=2))


class Watch:
    """Notes the stages; ``at`` is told of each moment by name."""

    def __init__(self, at=lambda _moment: None):
        self.at = at

    def _stage(self, name):
        @contextlib.contextmanager
        def stage(*_arguments):
            self.at(f"{name} begins")
            yield lambda *_: self.at(name)

        return stage

    @property
    def caching(self):
        return self._stage("caching")

    @property
    def tagging(self):
        return self._stage("tagging")

    @property
    def reporting(self):
        return self._stage("reporting")


@pytest.fixture
def photos(tmp_path):
    return write_pictures(tmp_path / "photos", NAMES)


@pytest.fixture
def results(tmp_path, photos):
    return ResultsFolder.to_fill(tmp_path / "results", str(photos), None, None, ("fake", ""))


def run(results, options=OPTIONS, prompts=PROMPTS, encoder=None, watch=None):
    source = open_source(results.about.images)
    return annotate(source, encoder or FakeEncoder(), prompts, results, options, watch or Watch())


def rows_of(results):
    return [(row["id"], row["tag"], round(row["score"], 4)) for row in pq.read_table(results.tags).to_pylist()]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


WHOLE = [RECORD, "features.zarr", "prompts.safetensors", "report", "tags.parquet"]


def test_features_tags_and_page(results, photos):
    report = run(results)
    assert (report.caching.done, report.tagging.items, report.tagging.tags, report.decisions) == (6, 6, 18, 0)
    assert report.page.pictures == 6
    assert names_in(results.path) == WHOLE
    # By hand: three words are too few to standardise, so a score is the scale times half of coarse and fine cosines.
    with Image.open(photos / "0.jpg") as picture:
        r, g, b = np.asarray(picture.convert("RGB"), dtype=float).reshape(-1, 3).mean(axis=0)
    vector = unit(torch.tensor([[r, g, b, 1.0]]))[0]
    expected = {name: 10 * float(vector[n]) for n, name in enumerate(PROMPTS.class_names)}
    found = {tag: score for item, tag, score in rows_of(results) if item == "0.jpg"}
    assert found == pytest.approx(expected, rel=0.02)


def test_a_second_run_encodes_what_is_new_and_leaves_decisions(results, photos):
    run(results)
    before = rows_of(results)
    with closing(Journal(results.journal, tags_file="t", tags_sha256="0" * 64, by="anna")) as journal:
        journal.decide([Change(("0.jpg",), reject=("red",))])
    decided = results.journal.read_bytes()
    write_pictures(photos, ["new.jpg"])
    encoder = FakeEncoder()
    report = run(results, replace(OPTIONS, selection=Selection(top_k=1)), encoder=encoder)
    assert (report.caching.done, report.caching.skipped, encoder.batches, report.decisions) == (1, 6, [1], 1)
    assert results.journal.read_bytes() == decided
    best = {item: max(score for other, _, score in before if other == item) for item in NAMES}
    assert {item: score for item, _, score in rows_of(results) if item in best} == best
    assert b'"reject"' in (results.report / "data" / "decisions.js").read_bytes()


def test_other_words_make_other_tags_from_the_same_features(results):
    run(results)
    encoder = FakeEncoder()
    other = replace(PROMPTS, class_names=("a", "b", "c"))
    assert run(results, prompts=other, encoder=encoder).caching.done == 0
    assert encoder.batches == []
    assert {tag for _, tag, _ in rows_of(results)} == {"a", "b", "c"}
    assert PromptSet.load(results.prompts).class_names == ("a", "b", "c")


def test_no_page_where_none_is_wanted_or_nothing_is_tagged(results):
    assert run(results, replace(OPTIONS, has_report=False)).page is None
    assert "report" not in names_in(results.path)
    report = run(results, replace(OPTIONS, selection=Selection(threshold=99.0)))
    assert (report.tagging.tags, report.page) == (0, None)


def test_a_calibration_of_other_words_is_refused_before_anything_is_made(results):
    calibration = Calibration(
        ("red", "green", "blue"), "0" * 64, {}, "labels", 9, (3, 3, 3), LogisticCurves(np.zeros(3), np.ones(3))
    )
    for options, said in (
        (replace(OPTIONS, calibration=calibration), "for other prompts"),
        (replace(OPTIONS, selection=Selection(min_precision=0.9)), "--min-precision needs --calibration"),
        (replace(OPTIONS, calibration=calibration, selection=Selection(min_precision=0.9)), "has no thresholds for"),
    ):
        with pytest.raises(UserError, match=said):
            run(results, options)
    assert not results.path.exists()


def test_a_broken_picture_is_counted_and_the_rest_is_done(results, photos):
    (photos / "bad.jpg").write_bytes(b"no picture")
    report = run(results)
    assert (report.caching.failed, report.tagging.items) == (1, 6)
    assert report.page.failed[0][0] == "bad.jpg"


def test_something_of_a_person_in_the_place_of_the_page_is_refused_first(results):
    results.save()
    results.report.mkdir()
    (results.report / "mine").touch()
    with pytest.raises(UserError, match="is no report"):
        run(results)
    assert names_in(results.path) == [RECORD, "report"]


MOMENTS = {
    "caching begins": 1,
    "caching": 4,  # all is encoded, but a group of two is not committed
    "tagging begins": 1,
    "tagging": 1,  # the part of one group is there
    "reporting begins": 1,
    "reporting": 3,
}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_is_gone_on_with(moment, results, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads of torch would not survive a fork
    seen = []

    def kill(now):
        seen.append(now)
        if seen.count(moment) == MOMENTS[moment]:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        pid = os.fork()
        if not pid:
            try:
                run(results, watch=Watch(kill))
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    finally:
        torch.set_num_threads(threads)
    for path in results.path.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)  # a while ago
    undisturbed = replace(results, path=tmp_path / "undisturbed")
    assert run(undisturbed).caching.done == 6
    report = run(results)
    assert (report.caching.done == 0) == (moment not in ("caching begins", "caching"))
    assert rows_of(results) == rows_of(undisturbed)
    assert names_in(results.path) == WHOLE
    files = [sorted(str(p.relative_to(one.report)) for p in one.report.rglob("*")) for one in (results, undisturbed)]
    assert files[0] == files[1]
