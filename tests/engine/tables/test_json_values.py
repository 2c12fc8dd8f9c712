import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tai_engine.errors import UserError
from tai_engine.tables import json_values
from tai_engine.tables.json_values import MAX_DEPTH, MAX_VALUE_BYTES, JsonArrays, parse_json

BOTH = frozenset({"", "annotations"})


def elements(text, keys=BOTH):
    data = text.encode() if isinstance(text, str) else text
    return [value for _, value in JsonArrays(io.BytesIO(data), "list 'x'").elements(keys)]


values_of_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(values_of_json, max_size=6), block=st.integers(1, 9), indent=st.sampled_from([None, 2]))
def test_elements_equal_the_whole_at_any_block_size(values, block, indent):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_values, "_BLOCK_BYTES", block)
        for ascii_only in (True, False):
            # json.loads is what the elements must equal; it also says what half a surrogate pair becomes in UTF-8.
            array = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")
            assert elements(array) == json.loads(array)
            coco = {"n": 12, "images": values, "annotations": values, "z": {"annotations": values}}
            assert elements(json.dumps(coco, indent=indent)) == json.loads(json.dumps(values))


def test_several_arrays_come_in_the_order_of_the_file():
    text = '{"b": [3], "c": {"a": [9]}, "a": [1, [2]], "d": [[5]], "b": ["x"]}'
    found = list(JsonArrays(io.BytesIO(text.encode()), "x").elements(frozenset({"a", "b"})))
    assert found == [("b", 3), ("a", 1), ("a", [2]), ("b", "x")]


def test_what_was_there_is_told():
    for text, found, is_empty in (
        ("", False, True),
        (" \n", False, True),
        ('{"a": 1}', False, False),
        ("[]", True, False),
    ):
        arrays = JsonArrays(io.BytesIO(text.encode()), "x")
        assert list(arrays.elements(BOTH)) == []
        assert (arrays.found, arrays.is_empty) == (found, is_empty)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested deeper than 100 levels, the most that tai-engine reads"),
        ("[" * 100_000 + "]" * 100_000, "nested deeper than 100 levels"),
        ('{"annotations":' + '[{"a":' * 60_000, "nested deeper than 100 levels"),
        ('{"other":' + "[" * 60_000, "nested deeper than 100 levels"),
        ("[" + "1" * 6000 + "]", "holds more than 4,300 digits in a row, the most that tai-engine reads as a number"),
        ('{"other": ' + "1" * 6000 + "}", "holds more than 4,300 digits"),
        (" " * 65_000 + "[" + "1" * 4301 + "]", "holds more than 4,300 digits"),
        ("[0." + "1" * 6000 + "]", "holds more than 4,300 digits"),
        ('["a", ', "list 'x' is not valid JSON .*premature"),
        ('["a" "b"]', "list 'x' is not valid JSON"),
        (b'["\xff"]', "list 'x' is not valid JSON .*UTF8.*--encoding"),
    ],
)
def test_damage_and_bombs_are_one_sentence(text, message):
    with pytest.raises(UserError, match=message):
        elements(text)


def test_numbers_up_to_the_bound_are_read():
    assert elements("[" + "7" * 4300 + ", 1e5, 0.1, -3]") == [int("7" * 4300), 1e5, 0.1, -3]
    assert elements(" " * 64_000 + "[" + "7" * 4300 + "]") == [int("7" * 4300)]


def test_depth_up_to_the_bound_is_read():
    inner = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert elements(f"[{inner}]") == [json.loads(inner)]
    with pytest.raises(UserError, match="deeper"):
        elements(f"[[[{inner}]]]")


class Endless:
    """A large file that is nowhere."""

    def __init__(self, begin: bytes, block: bytes, count: int) -> None:
        self.rest = [begin, *([block] * count)]

    def read(self, size):
        return self.rest.pop(0) if size and self.rest else b""


@pytest.mark.parametrize(
    ("begin", "block"),
    [(b'["', b"a" * 65536), (b'["', b'\\"' * 32768), (b"[[", b"1," * 32768), (b'[{"a": ["', b'a","' * 16384)],
)
@pytest.mark.slow
def test_one_large_value_is_refused_before_it_fills_the_memory(begin, block):
    file = Endless(begin, block, 4000)  # 262 MB
    with pytest.raises(UserError, match="a value of more than 16 MiB, the most that tai-engine reads as one"):
        list(JsonArrays(file, "list 'x'").elements(BOTH))
    assert len(file.rest) > 4000 - 300  # 16 MiB are 256 blocks
    assert MAX_VALUE_BYTES == 16 * 2**20


def test_lines_of_json():
    assert parse_json('{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
    assert parse_json('{"id": ' + "7" * 6000 + "}") == {"id": "7" * 6000}
    assert parse_json("7" * 4300) == int("7" * 4300)
    with pytest.raises(ValueError, match="nested deeper than"):
        parse_json("[" * 100_000)
    with pytest.raises(ValueError, match="at column 6"):
        parse_json('{"a":')
