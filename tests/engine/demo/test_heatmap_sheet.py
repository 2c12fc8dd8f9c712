from pathlib import Path

from tai_engine.demo.contact_sheet import TaggedPhotograph
from tai_engine.demo.heatmap_sheet import best_pairs


def test_the_likeliest_pairs_with_no_tag_and_no_photograph_twice():
    first = TaggedPhotograph(Path("a.jpg"), (("cat", 0.9), ("grass", 0.8)))
    second = TaggedPhotograph(Path("b.jpg"), (("cat", 0.95), ("dog", 0.6)))
    third = TaggedPhotograph(Path("c.jpg"), ())
    assert best_pairs([first, second, third], 5) == [(second, "cat"), (first, "grass")]
    assert best_pairs([first, second], 1) == [(second, "cat")]
    assert best_pairs([], 3) == []
