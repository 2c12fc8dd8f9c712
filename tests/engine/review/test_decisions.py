import pytest
from hypothesis import given
from hypothesis import strategies as st

from tai_engine.review.decisions import UNDECIDED, Change, Decisions, parse_favourites


def decide(decisions, *changes, by="anna", at="2030-01-01T00:00:00+00:00"):
    entry = {"revision": decisions.revision + 1, "by": by, "at": at, "act": "decide", "changes": list(changes)}
    return decisions.apply(entry)


def again(decisions, act, of):
    return decisions.apply({"revision": decisions.revision + 1, "by": "anna", "at": "", "act": act, "of": of})


def test_verdicts_add_up_in_the_order_of_deciding():
    decisions = Decisions()
    assert decide(decisions, {"ids": ["a", "b"], "accept": ["dog"], "reject": ["cat"]}) == ["a", "b"]
    decide(decisions, {"ids": ["a"], "add": ["puppy"]}, by="ben", at="2030-01-02T00:00:00+00:00")
    assert dict(decisions["a"].verdicts) == {"dog": "accept", "cat": "reject", "puppy": "add"}
    assert decisions["a"].present == ("dog", "puppy")
    assert (decisions["a"].by, decisions["a"].at) == ("ben", "2030-01-02T00:00:00+00:00")
    assert decisions["b"].by == "anna"
    assert [decisions["b"].verdict(tag) for tag in ("dog", "cat", "car")] == [True, False, None]
    decide(decisions, {"ids": ["a"], "reject": ["dog"]})
    assert dict(decisions["a"].verdicts) == {"cat": "reject", "puppy": "add", "dog": "reject"}
    assert decisions["a"].present == ("puppy",)


def test_none_of_these_takes_all_verdicts_away_until_a_tag_is_accepted():
    decisions = Decisions()
    decide(decisions, {"ids": ["a"], "accept": ["dog"], "add": ["puppy"]})
    decide(decisions, {"ids": ["a"], "none": True})
    assert decisions["a"].is_none
    assert decisions["a"].present == ()
    assert decisions["a"].verdict("dog") is False
    decide(decisions, {"ids": ["a"], "reject": ["car"]})
    assert decisions["a"].is_none
    decide(decisions, {"ids": ["a"], "add": ["bird"]})
    assert not decisions["a"].is_none
    assert decisions["a"].verdict("dog") is None
    decide(decisions, {"ids": ["a"], "clear": ["bird", "car"]})
    assert "a" not in decisions
    assert decisions.of("a") is UNDECIDED


def test_taking_none_of_these_back():
    decisions = Decisions()
    decide(decisions, {"ids": ["a"], "none": True})
    decide(decisions, {"ids": ["a"], "none": False})
    assert dict(decisions) == {}


def test_undo_and_redo_are_a_stack_that_a_new_act_cuts_off():
    decisions = Decisions()
    decide(decisions, {"ids": ["a", "b"], "accept": ["dog"]})
    decide(decisions, {"ids": ["b"], "none": True})
    assert decisions.next_undo.summary == "none of these, 1 picture"
    assert again(decisions, "undo", 2) == ["b"]
    assert decisions["b"].present == ("dog",)
    assert again(decisions, "undo", 1) == ["a", "b"]
    assert dict(decisions) == {}
    assert decisions.next_undo is None
    assert decisions.next_redo.summary == "accept dog, 2 pictures"
    again(decisions, "redo", 1)
    assert decisions["a"].present == ("dog",)
    again(decisions, "undo", 1)
    again(decisions, "redo", 1)
    again(decisions, "redo", 2)
    assert decisions["b"].is_none
    again(decisions, "undo", 2)
    decide(decisions, {"ids": ["c"], "reject": ["dog"]})
    assert decisions.next_redo is None
    assert decisions.revision == 10


@pytest.mark.parametrize(
    "entry",
    [
        {"revision": 2, "act": "decide", "changes": [{"ids": ["a"], "none": True}]},
        {"revision": 1, "act": "guess"},
        {"revision": 1, "act": "undo", "of": 0},
        {"revision": 1, "act": "redo", "of": None},
        {"revision": 1, "act": "decide", "changes": []},
        {"revision": 1, "act": "decide", "changes": [{"ids": []}]},
        {"revision": 1, "act": "decide", "changes": [{"ids": ["a"]}]},
        {"revision": 1, "act": "decide", "changes": [{"ids": ["a"], "accept": ["x"], "reject": ["x"]}]},
        {"revision": 1, "act": "decide", "changes": [{"ids": ["a"], "accept": ["x"], "none": True}]},
        {"revision": 1, "act": "decide", "changes": [{"ids": ["a"], "accept": [" x"]}]},
        {"revision": 1, "act": "decide", "changes": [{"ids": ["a"], "accept": ["x" * 201]}]},
        {"revision": 1, "act": "decide", "changes": [{"ids": ["a"], "accept": ["x\ny"]}]},
        {"revision": 1, "act": "decide", "changes": [{"ids": ["a"], "accept": "dog"}]},
        {"revision": 1, "act": "decide", "changes": [{"ids": ["\ud800"], "none": True}]},
        {"revision": 1, "act": "decide", "changes": [{"ids": ["a"], "none": 1}]},
        {"revision": 1, "act": "decide", "changes": [{"ids": ["a"], "path": "/etc/passwd", "none": True}]},
        {"revision": 1, "act": "favourites", "tags": list("abcdefghij")},
    ],
)
def test_entries_that_cannot_follow_change_nothing(entry):
    decisions = Decisions()
    with pytest.raises(ValueError):
        decisions.apply(entry)
    assert (decisions.revision, dict(decisions)) == (0, {})


def test_favourites_are_nine_tags_at_most():
    assert parse_favourites(["dog", "hot dog"]) == ("dog", "hot dog")
    with pytest.raises(ValueError, match="nine different"):
        parse_favourites(["dog", "dog"])


TAGS = ("cat", "dog", "owl")
CHANGES = st.one_of(
    st.builds(lambda ids: {"ids": ids, "none": True}, st.lists(st.sampled_from("abc"), min_size=1, unique=True)),
    st.builds(
        lambda ids, key, tag: {"ids": ids, key: [tag]},
        st.lists(st.sampled_from("abc"), min_size=1, unique=True),
        st.sampled_from(("accept", "add", "reject", "clear")),
        st.sampled_from(TAGS),
    ),
)


@given(st.lists(st.one_of(st.lists(CHANGES, min_size=1, max_size=2), st.sampled_from(("undo", "redo"))), max_size=20))
def test_undo_and_redo_equal_a_history_of_whole_states(acts):
    decisions, states, place = Decisions(), [{}], 0
    for act in acts:
        if act == "undo":
            if place:
                again(decisions, "undo", decisions.next_undo.revision)
                place -= 1
        elif act == "redo":
            if place + 1 < len(states):
                again(decisions, "redo", decisions.next_redo.revision)
                place += 1
        else:
            decide(decisions, *act)
            place += 1
            states[place:] = [{i: (dict(d.verdicts), d.is_none) for i, d in decisions.items()}]
        assert {i: (dict(d.verdicts), d.is_none) for i, d in decisions.items()} == states[place]
        assert (decisions.next_undo is None) == (place == 0)
        assert (decisions.next_redo is None) == (place + 1 == len(states))


def test_none_of_these_counts_for_the_whole_vocabulary():
    decisions = Decisions()
    decide(
        decisions,
        {"ids": ["a"], "accept": ["dog"], "reject": ["cat"], "add": ["unlisted"]},
        {"ids": ["b"], "none": True},
    )
    decide(decisions, {"ids": ["b"], "reject": ["dog"]})
    assert [decisions["a"].verdict(tag) for tag in ("cat", "dog", "unlisted", "car")] == [False, True, True, None]
    assert [decisions["b"].verdict(tag) for tag in ("cat", "dog", "car")] == [False, False, False]


def test_a_change_goes_to_json_and_back():
    for change in (
        Change(("a", "b"), accept=("dog",), clear=("x",)),
        Change(("a",), none=False),
        Change(("a",), none=True),
    ):
        assert Change.from_json(change.to_json()) == change
    assert Change(("a",), reject=("dog",)).to_json() == {"ids": ["a"], "reject": ["dog"]}
