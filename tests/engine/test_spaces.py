import re
from types import SimpleNamespace

import pytest

from tai_engine.errors import UserError
from tai_engine.spaces import require_same_space


def of_space(space_key, dim):
    return SimpleNamespace(space_key=space_key, dim=dim)


def test_things_of_one_space_go_together():
    require_same_space(of_space("a", 4), of_space("a", 4), "the store", "the prompt set")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            of_space("b", 4),
            "the store is of the embedding space 'a' but the prompt set is of 'b': features and prompts",
        ),
        (of_space("a", 3), "The vectors of the store have 4 numbers and those of the prompt set 3, though both say"),
    ],
)
def test_others_are_refused_with_what_differs(other, message):
    with pytest.raises(UserError, match=re.escape(message)):
        require_same_space(of_space("a", 4), other, "the store", "the prompt set")
