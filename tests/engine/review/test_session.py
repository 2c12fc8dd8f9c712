from contextlib import closing

import pytest

from review_samples import sample_collection
from tai_engine.review import session as module
from tai_engine.review.journal import ConflictError, Journal
from tai_engine.review.session import ReviewSession


@pytest.fixture
def session(tmp_path):
    with closing(Journal(tmp_path / "j.jsonl", tags_file="t", tags_sha256="0" * 64, by="anna")) as journal:
        yield ReviewSession(sample_collection(tmp_path), journal)


def verdicts(answer):
    return {int(n): p and (p["verdicts"], p["none"]) for n, p in answer["pictures"].items()}


def test_deciding_undoing_and_what_others_see(session):
    first = session.decide({"changes": [{"pictures": [0, 1], "accept": ["cat"]}, {"pictures": [3], "none": True}]})
    assert verdicts(first) == {0: ({"cat": "accept"}, False), 1: ({"cat": "accept"}, False), 3: ({}, True)}
    assert first["revision"] == 1
    second = session.decide({"changes": [{"pictures": [1], "reject": ["dog"]}]})
    assert verdicts(session.since(0)) == {**verdicts(first), **verdicts(second)}
    assert verdicts(session.since(1)) == {1: ({"cat": "accept", "dog": "reject"}, False)}
    assert session.since(2) == {**session.since(2), "pictures": {}, "all": False, "revision": 2}
    undone = session.undo({"of": 2})
    assert verdicts(undone) == {1: ({"cat": "accept"}, False)}
    assert undone["redo"]["revision"] == 2
    assert verdicts(session.undo({"of": 1})) == {0: None, 1: None, 3: None}
    assert verdicts(session.redo({"of": 1})) == verdicts(first)
    assert verdicts(session.snapshot()) == verdicts(first)
    assert session.snapshot()["all"]


def test_an_answer_says_what_others_did_since(session):
    session.decide({"changes": [{"pictures": [0], "none": True}]})
    session.decide({"changes": [{"pictures": [1], "none": True}]})
    own = session.decide({"changes": [{"pictures": [2], "none": True}], "since": 1})
    assert (own["revision"], set(verdicts(own))) == (3, {1, 2})
    assert set(verdicts(session.undo({"of": 3, "since": 3}))) == {2}
    assert set(verdicts(session.choose_favourites({"tags": ["cat"], "since": 0}))) == {0, 1, 2}
    assert session.redo({"of": 3, "since": 99})["all"]
    assert set(verdicts(session.decide({"changes": [{"pictures": [3], "none": True}], "since": "x"}))) == {3}


def test_an_undo_that_comes_too_late(session):
    session.decide({"changes": [{"pictures": [0], "none": True}]})
    session.decide({"changes": [{"pictures": [1], "none": True}]})
    with pytest.raises(ConflictError):
        session.undo({"of": 1})
    with pytest.raises(ConflictError):
        session.redo({"of": 1})
    assert set(verdicts(session.snapshot())) == {0, 1}


def test_who_is_too_far_behind_gets_all(session, monkeypatch):
    monkeypatch.setattr(module, "_PICTURES_REMEMBERED", 2)
    for number in range(4):
        session.decide({"changes": [{"pictures": [number], "none": True}]})
    assert not session.since(2)["all"]
    assert set(verdicts(session.since(2))) == {2, 3}
    for revision in (1, 0, -1, 5, 99):  # 5 and 99: of a journal that was there before
        assert session.since(revision)["all"]
        assert set(verdicts(session.since(revision))) == {0, 1, 2, 3}


def test_a_journal_that_was_begun_earlier(tmp_path):
    for number in range(2):
        with closing(Journal(tmp_path / "j.jsonl", tags_file="t", tags_sha256="0" * 64, by="anna")) as journal:
            session = ReviewSession(sample_collection(tmp_path), journal)
            assert len(session.since(0)["pictures"]) == number
            session.decide({"changes": [{"pictures": [number], "none": True}]})


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({}, "must be a list"),
        ({"changes": {}}, "must be a list"),
        ({"changes": []}, "at least one"),
        ({"changes": [[]]}, "object with a list of pictures"),
        ({"changes": [{"ids": ["a.jpg"], "none": True}]}, "object with a list of pictures"),
        ({"changes": [{"pictures": [], "none": True}]}, "names no picture"),
        ({"changes": [{"pictures": [5], "none": True}]}, "no picture 5 "),
        ({"changes": [{"pictures": [-1], "none": True}]}, "no picture -1 "),
        ({"changes": [{"pictures": [True], "none": True}]}, "no picture True "),
        ({"changes": [{"pictures": [1.0], "none": True}]}, "no picture 1.0 "),
        ({"changes": [{"pictures": ["../a.jpg"], "none": True}]}, "no picture '../a.jpg' "),
        ({"changes": [{"pictures": [0], "accept": ["yak"]}]}, "'yak' is not in the vocabulary"),
        ({"changes": [{"pictures": [0], "add": ["yak"]}]}, "--free-words"),
        ({"changes": [{"pictures": [0], "accept": [1]}]}, "list of texts"),
        ({"changes": [{"pictures": [0], "path": "/etc"}]}, "expected an object"),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(session, request_, reason):
    with pytest.raises(ValueError, match=reason):
        session.decide(request_)
    assert session.snapshot()["revision"] == 0


@pytest.mark.parametrize("of", [None, "1", 1.0, True])
def test_undo_names_an_act(session, of):
    for act in (session.undo, session.redo):
        with pytest.raises(ValueError, match="'of' is"):
            act({"of": of})


def test_free_words_only_where_they_are_allowed_or_there_already(session):
    session.free_words = True
    session.decide({"changes": [{"pictures": [0], "add": ["yak"]}]})
    assert session.choose_favourites({"tags": ["yak"]})["favourites"] == ("yak",)
    session.free_words = False
    session.decide({"changes": [{"pictures": [0], "reject": ["yak"]}]})
    session.decide({"changes": [{"pictures": [0], "add": ["yak"]}]})
    with pytest.raises(ValueError, match="'yak' is not in the vocabulary"):
        session.decide({"changes": [{"pictures": [0, 1], "add": ["yak"]}]})
    with pytest.raises(ValueError, match="'yak' is not in the vocabulary"):
        session.choose_favourites({"tags": ["yak"]})
    with pytest.raises(ValueError, match="nine different"):
        session.choose_favourites({"tags": ["cat", "cat"]})
