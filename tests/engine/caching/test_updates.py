"""Rerunning a command on a collection that has changed: only what is new or different is decoded."""

import json

import pytest

from dict_source import DictSource, Picture, png
from fake_encoders import FakeEncoder
from tai_engine.caching.images import cache_images
from tai_engine.caching.report import CacheOptions
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore

SIZES = {"group_items": 4, "slice_items": 3, "workers": 2}


class ChangingSource(DictSource):
    """Times are a dictionary of their own; None is an unknown one."""

    def __init__(self, pictures, times=None):
        super().__init__(pictures)
        self.times = dict.fromkeys(pictures, 1000) | (times or {})

    def __iter__(self):
        return (
            Picture(name, name, None if data is None else len(data), self.times.get(name, 1000))
            for name, data in self.pictures.items()
        )


def cache(source, path, **options):
    source.forget()
    return cache_images(source, FakeEncoder(), path, options=CacheOptions(**SIZES, **options))


def live(path):
    """Id, status and colour (of done items) of every item that is not deleted, in the store's order."""
    store = FeatureStore.open(path)
    rows = {}
    for batch in store.iter_batches():
        rows |= dict(zip(batch.ids, batch.coarse.float(), strict=True))
    return [
        (
            item.id,
            item.status,
            (rows[item.id] / rows[item.id][3])[:3].round().int().tolist() if item.id in rows else None,
        )
        for item in store.ledger()
    ]


def counts(report):
    names = ("done", "failed", "skipped", "new", "changed", "retried", "missing", "deleted")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def source(path):
    found = ChangingSource({f"p{n}": png((n, 5, 7)) for n in range(6)} | {"bad": b"no picture"})
    report = cache(found, path)
    assert counts(report) == {"done": 6, "failed": 1, "new": 7}
    return found


def test_a_changed_picture_replaces_its_old_features(path, source):
    source.pictures["p1"], source.times["p1"] = png((99, 5, 7)), 1001
    source.pictures["p7"] = png((7, 5, 7))
    report = cache(source, path)
    assert counts(report) == {"done": 2, "skipped": 6, "new": 1, "changed": 1}
    assert sorted(source.opened) == ["p1", "p7"]
    assert json.loads((path / "commits" / "00000000.json").read_text())["deleted"] == [1]
    assert FeatureStore.open(path).counts() == {"done": 7, "failed": 1}
    found = live(path)
    assert [name for name, _, _ in found] == ["p0", "p2", "p3", "p4", "p5", "bad", "p1", "p7"]
    assert {name: colour for name, _, colour in found}["p1"] == [99, 5, 7]
    assert counts(cache(source, path)) == {"skipped": 8}


@pytest.mark.parametrize(
    ("size", "time", "is_changed"),
    [(True, True, False), (False, True, True), (True, False, True), (None, True, False), (None, False, True),
     (True, None, False), (None, None, False)],
)  # fmt: skip
def test_size_and_time_tell_a_change_as_far_as_they_are_known(path, source, size, time, is_changed):
    old = len(source.pictures["p2"])

    class Said(ChangingSource):
        def __iter__(self):
            for one in super().__iter__():
                if one.id != "p2":
                    yield one
                else:
                    yield Picture(
                        "p2",
                        "p2",
                        {True: old, False: old + 1, None: None}[size],
                        {True: 1000, False: 1001, None: None}[time],
                    )

    assert counts(cache(Said(source.pictures), path)).get("changed", 0) == is_changed


def test_contents_are_compared_on_request(path, source):
    # p1 was touched and is the same; p2 is another picture of the same size and time.
    source.times["p1"] = 2000
    other = png((0, 99, 7))
    assert len(other) == len(source.pictures["p2"])
    source.pictures["p2"] = other
    report = cache(source, path, check="content")
    assert counts(report) == {"done": 1, "skipped": 6, "changed": 1}
    assert {name: colour for name, _, colour in live(path)}["p2"] == [0, 99, 7]
    assert counts(cache(source, path, check="content")) == {"skipped": 7}
    # By size and time it is the other way round.
    assert counts(cache(source, path)) == {"done": 1, "skipped": 6, "changed": 1}


def test_a_picture_that_cannot_be_read_for_the_comparison_keeps_its_features(path, source):
    def read(item):
        if item.id == "p4":
            raise TimeoutError("the server is busy")
        return source.pictures[item.location]

    source.read = read
    assert counts(cache(source, path, check="content")) == {"skipped": 7}
    assert ("p4", "done", [4, 5, 7]) in live(path)


def test_what_is_gone_is_reported_and_deleted_on_request(path, source):
    del source.pictures["p0"], source.pictures["bad"]
    report = cache(source, path)
    assert counts(report) == {"skipped": 5, "missing": 2}
    assert len(live(path)) == 7
    report = cache(source, path, delete_missing=True)
    assert counts(report) == {"skipped": 5, "missing": 2}
    assert report.kept_because.startswith("2 of 7 is more than 20% of what the store has of this source; --delete-many")
    assert len(live(path)) == 7
    report = cache(source, path, delete_missing=True, delete_many=True)
    assert counts(report) == {"skipped": 5, "missing": 2, "deleted": 2}
    assert report.kept_because == ""
    assert [name for name, _, _ in live(path)] == ["p1", "p2", "p3", "p4", "p5"]
    assert counts(cache(source, path, delete_missing=True)) == {"skipped": 5}
    # What comes back is new.
    source.pictures["p0"] = png((0, 5, 7))
    assert counts(cache(source, path)) == {"done": 1, "skipped": 5, "new": 1}
    assert source.opened == ["p0"]


def test_nothing_is_deleted_when_parts_of_the_source_could_not_be_read(path, source):
    del source.pictures["p0"]
    source.left_out = 1
    for more in ({}, {"delete_many": True}):
        report = cache(source, path, delete_missing=True, **more)
        assert counts(report) == {"skipped": 6, "missing": 1}
        assert report.kept_because == "parts of the source could not be read"
    assert len(live(path)) == 7


def test_what_lay_in_a_folder_that_is_empty_now_is_deleted_only_when_that_is_said(path):
    source = DictSource({name: png((n, 5, 7)) for n, name in enumerate(("a", "b", "c", "d", "e", "nas/x", "old/y"))})
    cache(source, path)
    del source.pictures["nas/x"]
    source.empty_folders = ["nas/"]
    report = cache(source, path, delete_missing=True)
    assert counts(report) == {"skipped": 6, "missing": 1}
    assert report.kept_because.startswith("the folder nas/ is empty now, as that of a drive is that is not mounted")
    source.pictures["nas/x"] = png((5, 5, 7))
    cache(source, path)
    del source.pictures["old/y"]  # another folder
    assert counts(cache(source, path, delete_missing=True)) == {"skipped": 6, "missing": 1, "deleted": 1}
    del source.pictures["nas/x"]
    report = cache(source, path, delete_missing=True, delete_many=True)
    assert counts(report) == {"skipped": 5, "missing": 1, "deleted": 1}


def test_a_store_knows_its_sources(path):
    """Pictures of the same names in two folders are two pictures."""
    first = DictSource({f"{n}": png((n, 5, 7)) for n in range(6)})
    second = DictSource({f"{n}": png((n, 50, 70)) for n in range(6)})
    cache(first, path, origin="/x/cam1")
    with pytest.raises(UserError, match=r"holds pictures of /x/cam1, but this run is about /x/cam2.*--id-prefix cam2/"):
        cache(second, path, origin="/x/cam2")
    assert len(live(path)) == 6
    prefixed = DictSource({f"cam2/{name}": data for name, data in second.pictures.items()})
    assert counts(cache(prefixed, path, origin="/x/cam2", id_prefix="cam2/")) == {"done": 6, "new": 6}
    assert [(one.place, one.prefix) for one in FeatureStore.open(path).origins] == [
        ("/x/cam1", ""), ("/x/cam2", "cam2/"),
    ]  # fmt: skip
    # Each has its own deletions: those of the other one are not missed.
    del first.pictures["3"]
    assert counts(cache(first, path, origin="/x/cam1", delete_missing=True)) == {
        "skipped": 5, "missing": 1, "deleted": 1,
    }  # fmt: skip
    del prefixed.pictures["cam2/5"]
    report = cache(prefixed, path, origin="/x/cam2", id_prefix="cam2/", delete_missing=True)
    assert counts(report) == {"skipped": 5, "missing": 1, "deleted": 1}
    assert [name for name, _, _ in live(path)] == ["0", "1", "2", "4", "5", *(f"cam2/{n}" for n in range(5))]
    # An id of the one that looks like one of the other, and a prefix whose source is another one now.
    with pytest.raises(UserError, match=r"The id 'cam2/0' begins like those of another source"):
        cache(DictSource({"cam2/0": png((1, 1, 1))}), path, origin="/x/cam1")
    with pytest.raises(UserError, match=r"holds pictures with the prefix 'cam2/' of /x/cam2, but this run is about /y"):
        cache(prefixed, path, origin="/y", id_prefix="cam2/")
    assert counts(cache(prefixed, path, origin="/y", id_prefix="cam2/", has_moved=True)) == {"skipped": 5}
    assert {one.place for one in FeatureStore.open(path).origins} == {"/x/cam1", "/y"}


@pytest.mark.parametrize("sources", [None, 3, [{"place": 1, "prefix": ""}], [{"where": "x"}], ["/x"]])
def test_a_store_that_says_nothing_sensible_of_its_sources_takes_any(path, source, sources):
    """As those that were made before stores knew them."""
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["tai_engine"]["sources"] = sources
    (path / "zarr.json").write_text(json.dumps(metadata))
    assert FeatureStore.open(path).origins == ()
    assert counts(cache(source, path, origin="/x/cam1")) == {"skipped": 7}
    assert [one.place for one in FeatureStore.open(path).origins] == ["/x/cam1"]


def test_failed_pictures_are_tried_again_on_request_or_when_they_change(path, source):
    assert counts(cache(source, path)) == {"skipped": 7}
    assert source.opened == []
    report = cache(source, path, retry_failed=True)
    assert counts(report) == {"failed": 1, "skipped": 6, "retried": 1}
    assert source.opened == ["bad"]
    source.pictures["bad"] = png((1, 2, 3))
    assert counts(cache(source, path)) == {"done": 1, "skipped": 6, "changed": 1}
    assert live(path)[-1] == ("bad", "done", [1, 2, 3])
    assert FeatureStore.open(path).counts() == {"done": 7, "failed": 0}


def test_a_failed_picture_that_was_not_there_is_tried_when_it_is(path):
    source = ChangingSource({"a": png("red"), "late": None}, {"late": None})
    source.read = lambda item: source.pictures[item.location] or missing()

    def missing():
        raise FileNotFoundError("not there yet")

    assert counts(cache(source, path)) == {"done": 1, "failed": 1, "new": 2}
    assert counts(cache(source, path)) == {"skipped": 2}
    source.pictures["late"], source.times["late"] = png("blue"), 5
    assert counts(cache(source, path)) == {"done": 1, "skipped": 1, "changed": 1}


def test_a_changed_picture_that_is_broken_now_is_a_failed_one(path, source):
    source.pictures["p5"] = b"cut off"
    assert counts(cache(source, path)) == {"failed": 1, "skipped": 6, "changed": 1}
    assert ("p5", "failed", None) in live(path)


def test_old_features_live_until_the_new_ones_are_committed(path, source, monkeypatch):
    source.pictures["p1"], source.times["p1"] = png((99, 5, 7)), 1001

    def refuse(self, record):
        raise UserError("no")

    monkeypatch.setattr(FeatureStore, "commit_group", refuse)
    with pytest.raises(UserError, match="no"):
        cache(source, path)
    monkeypatch.undo()
    assert ("p1", "done", [1, 5, 7]) in live(path)


def test_of_two_with_one_id_the_later_one_is_kept(path, source, monkeypatch):
    source.pictures["p1"], source.times["p1"] = png((99, 5, 7)), 1001
    monkeypatch.setattr(FeatureStore, "delete", lambda self, positions: 0)
    cache(source, path)
    assert [name for name, _, _ in live(path)].count("p1") == 2
    monkeypatch.undo()
    assert counts(cache(source, path)) == {"skipped": 7}
    assert [colour for name, _, colour in live(path) if name == "p1"] == [[99, 5, 7]]


def test_an_old_id_that_comes_twice_is_refused(path, source):
    class Twice(ChangingSource):
        def __iter__(self):
            items = list(super().__iter__())
            return iter([*items, items[0]])

    with pytest.raises(UserError, match="The id 'p0' comes twice"):
        cache(Twice(source.pictures), path)
