import gzip

import pytest

from tai_engine.errors import UserError
from tai_engine.sentences.read import SentenceOptions, read_sentences
from tai_engine.tables import Table, TableOptions

FLICKR = '1000_ab.jpg#0\tA dog runs.\n1000_ab.jpg#1\tTwo "cats" sleep.\n1001_cd.jpg#0\tA man, and a "bus.\n'
KAGGLE = 'image,caption\n1000.jpg,A dog runs.\n9.jpg,"A dog, a cat and a ""stop"" sign."\n'
PIPES = "image_name| comment_number| comment\n1000.jpg| 0| A dog, runs.\n1001.jpg| 0| A bus\n"
PROSE = "A caption, text\nTwo dogs, a cat\n"


def sentences(path, **options):
    return [(s.image_id, s.text) for s in read_sentences(path, SentenceOptions(**options))]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "Flickr8k.token.txt",
            FLICKR,
            [
                ("1000_ab.jpg#0", "A dog runs."),
                ("1000_ab.jpg#1", 'Two "cats" sleep.'),
                ("1001_cd.jpg#0", 'A man, and a "bus.'),
            ],
        ),
        ("captions.txt", KAGGLE, [("1000.jpg", "A dog runs."), ("9.jpg", 'A dog, a cat and a "stop" sign.')]),
        ("captions", KAGGLE, [("1000.jpg", "A dog runs."), ("9.jpg", 'A dog, a cat and a "stop" sign.')]),
        ("results.csv", PIPES, [("1000.jpg", "A dog, runs."), ("1001.jpg", "A bus")]),
        (
            "cc3m.tsv",
            'a dog\thttp://h/0.jpg\n"a bus\thttp://h/1.jpg\n',
            [("http://h/0.jpg", "a dog"), ("http://h/1.jpg", '"a bus')],
        ),
        ("excel.csv", "\ufeffimage;caption\na.jpg;a, b\n", [("a.jpg", "a, b")]),
        ("excel.csv", "sep=;\r\nimage;caption\r\na.jpg;a, b\r\n", [("a.jpg", "a, b")]),
        ("tabs.csv", "image\tcaption\na.jpg\ta; b, c\n", [("a.jpg", "a; b, c")]),
        ("mac.csv", "image,caption\ra.jpg,one\rb.jpg,two\r", [("a.jpg", "one"), ("b.jpg", "two")]),
        ("prose.txt", PROSE, [(None, "A caption, text"), (None, "Two dogs, a cat")]),
        ("prose.txt", "text\nA dog\n", [(None, "text"), (None, "A dog")]),
        ("prose.txt", "[a] dog\n{b} cat\n", [(None, "[a] dog"), (None, "{b} cat")]),
        ("lines.txt", '{"caption": "a"}\n{"caption": "b"}\n', [(None, "a"), (None, "b")]),
        ("lines.json", '{"caption": "a"}\n{"caption": "b"}\n', [(None, "a"), (None, "b")]),
        ("array.jsonl", '[\n{"caption": "a"},\n{"caption": "b"}\n]\n', [(None, "a"), (None, "b")]),
        ("array.txt", '["a dog", "a cat"]', [(None, "a dog"), (None, "a cat")]),
        ("data", '{"annotations": [{"caption": "a"}]}', [(None, "a")]),
        ("upper.CSV", "CAPTION\nA dog\n", [(None, "A dog")]),
    ],
)
def test_the_content_tells_what_a_file_is(tmp_path, name, text, expected):
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert sentences(path) == expected
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert sentences(packed) == expected
    packed.rename(tmp_path / name)  # the name does not say that it is packed
    assert sentences(path) == expected


def test_utf16_is_told_by_its_mark(tmp_path):
    for encoding in ("utf-16", "utf-32", "utf-16-le"):
        text = ("\ufeff" if encoding == "utf-16-le" else "") + "image\tcaption\nä.jpg\tein Bär\n"
        (tmp_path / "a.txt").write_bytes(text.encode(encoding))
        assert sentences(tmp_path / "a.txt") == [("ä.jpg", "ein Bär")]


def test_what_the_user_says_counts(tmp_path):
    path = tmp_path / "a.caption"
    path.write_text("A dog.\n")
    with pytest.raises(
        UserError, match=r"kind of the sentence file .*a\.caption.* say --format text, jsonl, csv, tsv, parquet or json"
    ):
        sentences(path)
    assert sentences(path, table=TableOptions("text")) == [(None, "A dog.")]
    path.write_text("x.jpg~a dog~1\ny.jpg~a cat~2\n")
    options = TableOptions(separator="~", header=False)
    with pytest.raises(UserError, match=r"it has '1', '2', '3', expected one of caption, .*--column.*--no-header"):
        sentences(path, table=options)
    assert sentences(path, text_column="2", image_column="1", table=options) == [("x.jpg", "a dog"), ("y.jpg", "a cat")]
    path.write_text("caption\nimage,caption\n")
    assert sentences(path, table=TableOptions("text")) == [(None, "caption"), (None, "image,caption")]
    path.write_text("caption;text\na;b\n")
    assert sentences(path, table=TableOptions("csv")) == [(None, "a")]
    assert sentences(path, table=TableOptions(separator="semicolon"), text_column="text") == [(None, "b")]
    with pytest.raises(UserError, match=r"has no column 'text': say what it is with --format"):
        sentences(path, table=TableOptions("text"), text_column="text")


@pytest.mark.parametrize("separator", ["::", "", '"', "\n", "dash"])
def test_separators_are_one_character(separator):
    with pytest.raises(UserError, match="it must be one character, or one of tab, comma, semicolon, pipe"):
        TableOptions(separator=separator)


def test_unquoted_separators_are_not_cut_off(tmp_path):
    """A sentence with a comma too many is no shorter sentence."""
    path = tmp_path / "captions.txt"
    path.write_text("image,caption\na.jpg,one\nb.jpg,two, three\n")
    with pytest.raises(
        UserError, match=r"Line 3 of .* has 3 fields but the header 2: put quotation marks .*--separator"
    ):
        sentences(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04" + b"x" * 99, "is a zip archive or an Excel workbook: unpack it, or save it as CSV"),
        (b"BZh91AY", "compressed by bzip2: unpack it with bunzip2"),
        (b"\xfd7zXZ\0\0", "compressed by xz: unpack it with unxz"),
        (b"%PDF-1.7\n", "a PDF"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n",
            "a pointer of Git LFS: .*git lfs pull",
        ),
        (b"\n<!DOCTYPE html>\n<html>404</html>\n", "a web page"),
        (b"\xef\xbb\xbf<HTML><body>", "a web page"),
        (b"<?xml version='1.0'?><Error/>", "XML: save it as CSV or JSON"),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path, data, message):
    for name in ("a.txt", "a.csv", "a.jsonl", "a.json"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=message):
            sentences(tmp_path / name)


def test_columns_are_listed_in_messages(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text(",".join(f"c{n}" for n in range(40)) + "\n" + "1," * 39 + "1\n")
    with pytest.raises(UserError, match=r"it has 'c0', .*'c23' and 16 more, expected"):
        sentences(path)
    table = Table(path)
    assert table.columns[:2] == ("c0", "c1")
    assert table.find(["nothing", "C3"]) == "c3"
    assert [row.values for row in table.rows(["c3", "zz"])] == [{"c3": "1"}]
