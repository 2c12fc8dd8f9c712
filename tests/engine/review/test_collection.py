import json
import tarfile

import pytest

from review_samples import ORDER, ROWS, sample_collection, write_pictures, write_sample, write_tags
from tai_engine.errors import UserError
from tai_engine.review.collection import Collection, NotShownError


def test_unsure_ones_first_then_those_without_tags_then_those_that_are_gone(tmp_path):
    collection = sample_collection(tmp_path)
    assert collection.ids.to_pylist() == ORDER
    assert (len(collection), collection.tagged, collection.missing) == (5, 3, 1)
    assert collection.rows(0, 5).tolist() == [2, 0, 1, -1, 3]
    item = collection.item(2)
    assert item.id == "sub/b.jpg"
    assert item.location == str(tmp_path / "pictures" / "sub" / "b.jpg")
    assert item.size == (tmp_path / "pictures" / "sub" / "b.jpg").stat().st_size
    with pytest.raises(NotShownError, match="missing"):
        collection.item(4)


def test_equally_unsure_ones_keep_the_order_of_the_file(tmp_path):
    names = [f"{n}.jpg" for n in (3, 1, 2)]
    tags = write_tags(tmp_path / "t.parquet", [(name, "dog", 1.0, 0.5) for name in names])
    assert Collection.open(tags, write_pictures(tmp_path / "p", names)).ids.to_pylist() == names


def test_tags_of_other_pictures_are_refused(tmp_path):
    tags = write_tags(tmp_path / "t.parquet", [("other.jpg", "dog", 1.0)])
    with pytest.raises(UserError, match=r"None of the 1 tagged pictures is in the folder .*'other.jpg'"):
        Collection.open(tags, write_pictures(tmp_path / "p", ["a.jpg"]))


@pytest.mark.parametrize("copies", [1, 20])  # few are looked for one by one
def test_finding_ids_of_all_kinds(tmp_path, copies):
    names = ["a.jpg", "B.jpg", "ä.jpg", "日本.jpg", "😀.jpg", "ﬀ.jpg", "a%2541.jpg", "a b/c'd\".jpg"]
    written = [name.replace("%25", "%") for name in names]
    tags = write_tags(tmp_path / "t.parquet", [(name, "dog", 1.0) for name in names])
    collection = Collection.open(tags, write_pictures(tmp_path / "p", written))
    assert collection.missing == 0
    found = collection.find(["no", *names, "../../etc/passwd", "", "a.jpg\0"] * copies)
    assert [collection.ids[n].as_py() if n is not None else None for n in found] == (
        [None, *names, None, None, None] * copies
    )
    for number, name in enumerate(names):
        assert collection.item(number).location == str(tmp_path / "p" / written[number]), name


def test_paths_in_a_file_of_tags_lead_nowhere(tmp_path):
    secret = tmp_path / "secret.jpg"
    write_pictures(tmp_path, ["secret.jpg"])
    names = ["../secret.jpg", str(secret), "sub/../../secret.jpg", "a.jpg"]
    tags = write_tags(tmp_path / "t.parquet", [(name, "dog", 1.0) for name in names])
    collection = Collection.open(tags, write_pictures(tmp_path / "p", ["a.jpg"]))
    assert collection.ids.to_pylist()[0] == "a.jpg"
    assert collection.missing == 3
    for number in (1, 2, 3):
        with pytest.raises(NotShownError, match="missing"):
            collection.item(number)


def test_links_out_of_the_folder_are_refused_unless_they_are_wanted(tmp_path):
    write_pictures(tmp_path / "elsewhere", ["x.jpg", "y.jpg"])
    folder = write_pictures(tmp_path / "p", ["a.jpg", "sub/b.jpg"])
    (folder / "in.jpg").symlink_to("sub/b.jpg")
    (folder / "out.jpg").symlink_to("../elsewhere/x.jpg")
    (folder / "away").symlink_to(tmp_path / "elsewhere")
    names = ["a.jpg", "in.jpg", "out.jpg", "away/y.jpg"]
    tags = write_tags(tmp_path / "t.parquet", [(name, "dog", 1.0) for name in names])
    collection = Collection.open(tags, folder)
    assert collection.ids.to_pylist()[:4] == names
    assert [collection.item(n).id for n in (0, 1)] == ["a.jpg", "in.jpg"]
    for number in (2, 3):
        with pytest.raises(NotShownError, match=r"outside: .*--follow-links"):
            collection.item(number)
    follows = Collection.open(tags, folder, follows_links=True)
    assert [follows.item(n).id for n in range(4)] == names


def test_a_folder_that_is_a_link_itself(tmp_path):
    tags, folder = write_sample(tmp_path)
    (tmp_path / "link").symlink_to(folder)
    assert Collection.open(tags, tmp_path / "link").item(0).id == "c.jpg"


def test_pictures_of_a_list(tmp_path):
    write_pictures(tmp_path / "deep" / "er", ["1.jpg", "2.jpg"])
    path = tmp_path / "list.jsonl"
    rows = [{"id": "one", "path": "deep/er/1.jpg"}, {"id": "two", "path": "deep/er/2.jpg"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    tags = write_tags(tmp_path / "t.parquet", [("two", "dog", 1.0), ("one", "dog", 1.0)])
    collection = Collection.open(tags, path)
    assert collection.ids.to_pylist() == ["two", "one"]
    assert collection.item(0).location == str(tmp_path / "deep/er/2.jpg")


def test_pictures_of_a_tar_are_read_where_they_lie(tmp_path):
    folder = write_pictures(tmp_path / "p", ["a.jpg", "b.jpg"])
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name in ("a.jpg", "b.jpg"):
            archive.add(folder / name, name)
    ids = Collection.open(
        write_tags(
            tmp_path / "t.parquet", [("s.tar/a.jpg", "dog", 1.0), ("a.jpg", "dog", 1.0), ("s/a.jpg", "dog", 1.0)]
        ),
        tmp_path / "s.tar",
    )
    number = next(n for n in range(len(ids)) if n < ids.tagged)
    assert ids.read_bytes(ids.item(number)) == (folder / "a.jpg").read_bytes()


def test_pictures_of_packed_archives_cannot_be_looked_at_one_by_one(tmp_path):
    folder = write_pictures(tmp_path / "p", ["a.jpg"])
    with tarfile.open(tmp_path / "s.tar.gz", "w:gz") as archive:
        archive.add(folder / "a.jpg", "a.jpg")
    with pytest.raises(UserError, match="packed archive"):
        Collection.open(write_tags(tmp_path / "t.parquet", ROWS), tmp_path / "s.tar.gz")
