import io
import json

import pytest

from tai_engine.tagging.exporters.json_pieces import JsonPieces, json_text


@pytest.mark.parametrize("count", [0, 1, 3])
def test_pieces_and_the_brackets_around_them_are_json(count):
    file = io.StringIO("[", newline="")
    file.seek(1)
    pieces = JsonPieces(file)
    for number in range(count):
        pieces.write(json_text({"name": f"größe\n{number}"}))
    assert file.getvalue().count("\n") == count
    assert json.loads(file.getvalue() + "]") == [{"name": f"größe\n{number}"} for number in range(count)]


def test_a_number_that_json_does_not_know_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"score": float("nan")})
