"""How words that were read more or less often are judged: by hand."""

import pytest
import torch

from tai_benchmarks.known_words_table import area, lines, photographs_of_words


def test_photographs_of_words():
    found = photographs_of_words([("A dog runs", "dogs"), ("a Dog",), ("grass",)])
    assert found == {"dog": [0, 1], "runs": [0], "dogs": [0], "grass": [2]}  # "a" says nothing
    assert "dog" not in photographs_of_words([("dog",)] * 201)


def test_the_share_of_pairs_in_right_order():
    scores = torch.tensor([0.1, 0.9, 0.5, 0.2])
    assert area(scores, [1]) == 1
    assert area(scores, [0]) == 0
    assert area(scores, [2, 0]) == pytest.approx(1 / 4)  # of 2 > 3, 2 > 1, 0 > 3 and 0 > 1 the first alone holds


def test_lines():
    areas = {"never": 0.5, "once": 0.6, "thrice": 0.8, "often": 0.7, "dog": 0.9}
    counts = {"once": 1, "thrice": 3, "often": 64, "dog": 100}
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines(areas, counts, frozenset({"dog"}))]
    assert [row[0] for row in rows[2:]] == ["0", "1 to 3", "4 to 7", "8 to 15", "16 to 63", "64 and more"]
    assert rows[2][1:3] == ["1", "0.50 ± nan"]
    assert rows[3][1:3] == ["2", "0.70 ± 0.10"]
    assert rows[7][1:5] == ["1", "0.70 ± nan", "1", "0.90 ± nan"]
