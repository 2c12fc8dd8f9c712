import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tai_engine.errors import UserError
from tai_engine.tables import Row, Table


def rows(path, *columns):
    wanted = columns or ("path", "labels")
    return list(Table(path, wanted).rows(wanted))


def test_jsonl(tmp_path):
    path = tmp_path / "a.JSONL"
    path.write_text(
        '\ufeff{"path": "ä.jpg", "labels": ["x"], "other": 1}\n\n  \n{"path": null}\r\n{"labels": []}', "utf-8"
    )
    assert rows(path) == [
        Row("line 1", {"path": "ä.jpg", "labels": ["x"]}),
        Row("line 4", {}),
        Row("line 5", {"labels": []}),
    ]


def test_csv_and_tsv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('\ufeffpath , labels,n\n"a, ""b"".jpg",x;y,1\n\nc.jpg,,2\n"two\nlines.jpg",z,3\n', "utf-8")
    assert rows(path) == [
        Row("line 2", {"path": 'a, "b".jpg', "labels": "x;y"}),
        Row("line 4", {"path": "c.jpg", "labels": ""}),
        Row("line 6", {"path": "two\nlines.jpg", "labels": "z"}),
    ]
    tabbed = tmp_path / "a.tsv"
    tabbed.write_text("labels\tpath\nx,y\ta.jpg\n")
    assert rows(tabbed) == [Row("line 2", {"path": "a.jpg", "labels": "x,y"})]


def test_parquet_across_batches_and_without_the_columns(tmp_path):
    path = tmp_path / "a.parquet"
    names = [f"{i}.jpg" for i in range(2500)]
    table = {"path": names, "labels": [["x"], None, []] * 833 + [["y"]], "image": [{"bytes": b"x", "path": "p"}] * 2500}
    pq.write_table(pa.table(table), path)
    found = rows(path, "path", "labels", "image")
    assert len(found) == 2500
    assert found[:3] == [
        Row("row 1", {"path": "0.jpg", "labels": ["x"]}),
        Row("row 2", {"path": "1.jpg"}),
        Row("row 3", {"path": "2.jpg", "labels": []}),
    ]
    assert found[-1] == Row("row 2500", {"path": "2499.jpg", "labels": ["y"]})
    assert rows(path, "image", "nothing") == [Row(f"row {i + 1}", {}) for i in range(2500)]


def test_empty_files_have_no_rows(tmp_path):
    for suffix in ("jsonl", "csv", "tsv"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(b"")
        assert rows(path) == []
    pq.write_table(pa.table({"path": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == []


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b'{"path": "a"}\n{"path": \n', "Line 2 of .* not valid JSON"),
        ("a.jsonl", b'{"path": "a"}\n["a"]\n', "Line 2 of .* is \\['a'\\], not a JSON object"),
        ("a.jsonl", b"[" * 100_000, "Line 1 of .* not valid JSON"),
        ("a.jsonl", b'{"path": "a"}\n\n{"path": "\xe9"}', "Line 3 of .* not UTF-8"),
        ("a.jsonl", b"x" * (16 * 2**20), "Line 1 of .* longer than 16 MiB"),
        ("a.csv", b"path\na\n\xe9\n", "Line 3 of .* not UTF-8"),
        ("a.csv", b"path,labels\na,x\nb,x,y\n", "Line 3 of .* has 3 fields but the header 2: .*--separator"),
        ("a.csv", b"path,labels\na\n", "Line 2 of .* has 1 fields but the header 2"),
        ("a.csv", b'path\n"a\n', "Line 2 of .* not valid CSV"),
        ("a.csv", b"path,path\na,b\n", "names the column 'path' twice"),
        (
            "a.csv",
            b"path,x\r\na,1\nb,2\rc,3\n",
            "Line 3 of .* a carriage return within a field: lines end in several ways",
        ),
        ("a.parquet", b"PAR1 nonsense PAR1", "no Parquet file or is damaged"),
        ("a.parquet", b"", "no Parquet file or is damaged"),
    ],
)
def test_damaged_lists_name_the_line(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        rows(path)


def test_columns_of_parquet_that_are_named_twice_or_hold_no_text(tmp_path):
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["path", "path"]), tmp_path / "twice.parquet")
    with pytest.raises(UserError, match="has the column 'path' twice: rename one of the two"):
        rows(tmp_path / "twice.parquet")
    pictures = pa.array([{"bytes": b"1", "path": "a.jpg"}])
    pq.write_table(pa.table({"image": pictures, "label": [1]}), tmp_path / "packed.parquet")
    said = Table(tmp_path / "packed.parquet").listed_columns()
    assert said == "'label' (and, of bytes or structs, which are not read: 'image')"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("path,label\n   \na,1\n\t\n\nb,2\n", [3, 6]),
        ("   \npath,label\na,1\nb,2\n", [3, 4]),
        ('# made by x, y\n\n# for "z\n path,label\na,1\nb,2\n'.replace(" path", "path"), [5, 6]),
        ("#\n#\npath;label\na;1\nb;2\n", [4, 5]),
    ],
)
def test_blank_lines_and_comments_above_a_header_are_no_rows(tmp_path, text, lines):
    (tmp_path / "a.csv").write_text(text)
    found = list(Table(tmp_path / "a.csv", ["path"]).rows())
    assert [row.values for row in found] == [{"path": "a", "label": "1"}, {"path": "b", "label": "2"}]
    assert [row.place for row in found] == [f"line {n}" for n in lines]


def test_blank_fields_of_one_column_are_rows(tmp_path):
    (tmp_path / "a.csv").write_text('path\n""\n   \na\n#b\n')
    assert [row.values["path"] for row in Table(tmp_path / "a.csv", ["path"]).rows()] == ["", "a", "#b"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('path , label\na.jpg , "x, y"\nb.jpg, z\n', [("a.jpg", "x, y"), ("b.jpg", "z")]),
        ("path; label\na.jpg; x\n", [("a.jpg", "x")]),
        ("path,label\n a.jpg, x \n", [(" a.jpg", " x ")]),  # the header says that they belong to the values
    ],
)
def test_blanks_around_the_separators_of_a_header(tmp_path, text, values):
    (tmp_path / "a.csv").write_text(text)
    found = Table(tmp_path / "a.csv", ["path"]).rows()
    assert [tuple(row.values.values()) for row in found] == values


@pytest.mark.parametrize(("name", "text"), [("a.jsonl", "{}\n"), ("a.json", "[{}]")])
def test_a_key_that_an_object_has_twice_is_no_value(tmp_path, name, text):
    row = '{"path": "a.jpg", "n": 1, "path": "b.jpg", "n": 1}'
    (tmp_path / name).write_text(text.replace("{}", row))
    (found,) = Table(tmp_path / name).rows()
    assert found.values["n"] == 1
    assert repr(found.values["path"]) == "'a.jpg' and 'b.jpg'"
    assert not isinstance(found.values["path"], str | list | dict | int)


@pytest.mark.parametrize(("name", "text"), [("a.jsonl", "{}\n"), ("a.json", "[{}]")])
def test_a_key_that_is_there_thousands_of_times_is_told_by_its_first_two_values(tmp_path, name, text):
    row = "{" + ", ".join(f'"path": {n}' for n in range(5000)) + "}"
    (tmp_path / name).write_text(text.replace("{}", row))
    (found,) = Table(tmp_path / name).rows()
    assert repr(found.values["path"]) == "0 and 1"


@pytest.mark.parametrize("name", ["none.jsonl", "none.csv", "none.parquet"])
def test_missing_lists(tmp_path, name):
    with pytest.raises(UserError, match=r"cannot be read \(.*No such file.*\)|cannot be read"):
        rows(tmp_path / name)


def test_a_parquet_file_cut_in_its_data(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"path": [str(i) for i in range(5000)]}), path)
    data = bytearray(path.read_bytes())
    data[100:2000] = b"\xff" * 1900
    path.write_bytes(data)
    with pytest.raises(UserError):
        rows(path)


def test_a_field_that_is_too_long_is_told_by_its_limit(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,labels\na," + "dog;" * 40_000)
    with pytest.raises(UserError, match=r"Line 2 .* more than 131,072 characters, the most that tai-engine re"):
        list(Table(path, ("id", "labels"), kind="truth").rows(("id", "labels")))
