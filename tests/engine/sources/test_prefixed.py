"""Several sources in one store: a text before each id."""

import pytest
from PIL import Image

from tai_engine.errors import UserError
from tai_engine.sources import open_source
from tai_engine.sources.prefixed import PrefixedSource


def test_ids_have_it_and_all_else_is_the_same(tmp_path):
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "nas").mkdir()
    (tmp_path / "gone").symlink_to("nowhere")
    plain = open_source(tmp_path)
    source = PrefixedSource(open_source(tmp_path), "cam2/")
    items = list(source)
    assert [item.id for item in items] == ["cam2/a.png", "cam2/sub/b.png"]
    assert [(item.location, item.size) for item in items] == [(item.location, item.size) for item in plain]
    assert source.reader(items[0]) == (tmp_path / "a.png").read_bytes()
    assert (source.left_out, source.empty_folders, source.estimate_count()) == (1, ["cam2/nas/"], 2)
    assert (source.describe(), source.remarks) == (plain.describe(), plain.remarks)


@pytest.mark.parametrize(
    "prefix",
    [
        "a\tb",
        " a",
        "a ",
        "/a",
        "a\n",
        "\x1b[2J",
        "../a/",
        "../",
        "a/../b/",
        "a/../../b/",
        "./",
        "a/./",
        "a//",
        "s3://bucket/",
        "a%20b/",
    ],
)
def test_prefixes_that_no_id_begins_with(tmp_path, prefix):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="--id-prefix is"):
        PrefixedSource(open_source(tmp_path), prefix)
