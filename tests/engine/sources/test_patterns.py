import pytest

from tai_engine.errors import UserError
from tai_engine.sources.patterns import Shard, find_shards, is_pattern


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def shards(spec):
    return [tuple(shard) for shard in find_shards(spec)]


def test_one_archive(here):
    touch(here, "d/a.b.tar", "c.TGZ", "x[1].tar.gz", "{1..2}.tar")
    assert find_shards("d/a.b.tar") == [Shard("d/a.b.tar", "a.b", "a.b.tar")]
    assert shards(f"{here}/c.TGZ") == [(f"{here}/c.TGZ", "c", "c.TGZ")]
    assert shards("x[1].tar.gz") == [("x[1].tar.gz", "x[1]", "x[1].tar.gz")]
    assert shards("{1..2}.tar") == [("{1..2}.tar", "{1..2}", "{1..2}.tar")]  # a file's name counts before a pattern


def test_braces_in_their_order(here):
    touch(here, *(f"s-{i}.tar" for i in ("8", "9", "10", "008", "009", "010")), "val/s-1.tar.gz", "train/s-1.tar.gz")
    assert [s[0] for s in shards("s-{8..10}.tar")] == ["s-8.tar", "s-9.tar", "s-10.tar"]
    assert [s[0] for s in shards("s-{10..8}.tar")] == ["s-10.tar", "s-9.tar", "s-8.tar"]
    assert [s[1] for s in shards("s-{008..010}.tar")] == ["s-008", "s-009", "s-010"]
    assert shards("./{val,train}/s-{1..1}.tar.gz") == [
        ("./val/s-1.tar.gz", "val/s-1", "val/s-1.tar.gz"),
        ("./train/s-1.tar.gz", "train/s-1", "train/s-1.tar.gz"),
    ]


def test_wildcards_by_name(here):
    touch(here, "d/b.tar", "d/a.tar", "d/B.tar", "d/.h.tar", "d/c.txt", "d/e/z.tar", "d/f.tar/inner.tar")
    assert [s[1:] for s in shards("d/*.tar")] == [("B", "B.tar"), ("a", "a.tar"), ("b", "b.tar")]
    assert [s[1] for s in shards(f"{here}/d/[ab].tar")] == ["a", "b"]
    assert [s[1] for s in shards("*/e/?.tar")] == ["d/e/z"]
    assert [s[1] for s in shards("d/**/[z].tar")] == ["e/z"]
    assert [s[1] for s in shards("{d,d/e}/[za].tar")] == ["d/a", "d/e/z"]


def test_archives_behind_addresses(memory):
    memory.pipe({"/d/s-1.tar": b"", "/d/s-2.tar": b"", "/d/e/s-3.tar": b""})
    assert shards("memory://d/s-{0..1}.tar") == [  # nobody asks whether they are there
        ("memory://d/s-0.tar", "s-0", "s-0.tar"),
        ("memory://d/s-1.tar", "s-1", "s-1.tar"),
    ]
    for spec, begin in (("memory://d/**/*.tar", "memory://d"), ("memory:///d/**/*.tar", "memory:///d")):
        assert shards(spec) == [
            (f"{begin}/e/s-3.tar", "e/s-3", "e/s-3.tar"),
            (f"{begin}/s-1.tar", "s-1", "s-1.tar"),
            (f"{begin}/s-2.tar", "s-2", "s-2.tar"),
        ]
    web = "https://example.org/a%20b/{x,y}%20z.tar?key=1"
    assert shards(web) == [
        ("https://example.org/a%20b/x%20z.tar?key=1", "x z", "x z.tar"),
        ("https://example.org/a%20b/y%20z.tar?key=1", "y z", "y z.tar"),
    ]
    assert not is_pattern("https://example.org/a.tar?key=1")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("s-{1..9}.tar", r"There is no archive 's-3\.tar' and 6 more of the pattern 's-\{1\.\.9\}\.tar'"),
        ("none.tar", r"There is no archive 'none\.tar': check the path"),
        ("n*.tar", r"No archive fits the pattern 'n\*\.tar'.*quotation marks"),
        ("*.jpg", r"'a\.jpg' of the pattern '\*\.jpg' is no tar archive: .* give their folder or a list"),
        ("{0..9999}/{0..9999}.tar", "stands for more than 1,000,000 names"),
        ("{0..99999999999999999999}.tar", "stands for more than 1,000,000 names"),
        ("s-{1,2,1}.tar", r"'s-1\.tar' and in 's-1\.tar' could get the same ids"),
        ("s-1.{tar,tgz}", "could get the same ids"),
        ("**/*.tar", r"'s-1\.tar' and in 's-1/b\.tar' could get the same ids"),
    ],
)
def test_patterns_that_are_refused(here, spec, message):
    touch(here, "s-1.tar", "s-1.tgz", "s-2.tar", "a.jpg", "s-1/b.tar")
    with pytest.raises(UserError, match=message):
        find_shards(spec)


def test_braces_are_those_of_a_shell(here):
    touch(here, *(f"s-{i}.tar" for i in ("0", "5", "10", "a1", "a2", "b")))
    assert [s[1] for s in shards("s-{0..10..5}.tar")] == ["s-0", "s-5", "s-10"]
    assert [s[1] for s in shards("s-{a{1,2},b}.tar")] == ["s-a1", "s-a2", "s-b"]
    with pytest.raises(UserError, match=r"The pattern 's-\{0\.\.\{1,2\}\.tar' has an opening or a closing brace too"):
        find_shards("s-{0..{1,2}.tar")
    for endless in ("s-{0..999999999999}.tar", "s-{0..999}{0..999}{0..9}.tar", "s-{a,{-9999999..0..3}}.tar"):
        with pytest.raises(UserError, match=r"stands for more than 1,000,000 names: check its ranges"):
            find_shards(endless)
