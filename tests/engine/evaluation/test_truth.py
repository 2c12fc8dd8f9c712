import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tai_engine.errors import UserError
from tai_engine.evaluation import label_matrix
from tai_engine.evaluation.truth import TruthOptions, load_truth
from tai_engine.tables import TableOptions

NAMES = ("person", "dining table", "TV")
LABELS = [[1, -1, 1], [-1, -1, -1], [-1, 0, -1]]


def test_all_formats_give_the_same_truth(tmp_path):
    jsonl = [
        {"file_name": "./s/a.jpg", "labels": ["person", "tv"], "note": "x"},
        {"file_name": "b.jpg", "labels": []},
        {"file_name": "c.jpg", "labels": ["Dining_Table"], "difficult": ["dining  table"]},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, jsonl)))
    (tmp_path / "t.csv").write_text("id,labels,difficult\ns/a.jpg,person; TV ;,\nb.jpg,,\nc.jpg,,dining table\n")
    table = {
        "path": ["s/a.jpg", "b.jpg", "c.jpg"],
        "labels": [["person", "TV"], [], []],
        "difficult": [None, [], ["dining table"]],
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    for suffix in ("jsonl", "csv", "parquet"):
        truth = load_truth(tmp_path / f"t.{suffix}", NAMES)
        assert truth.ids == ("s/a.jpg", "b.jpg", "c.jpg")
        assert truth.class_names == NAMES
        assert truth.labels.dtype == np.int8
        assert truth.labels.tolist() == LABELS
        assert len(truth) == 3


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"id": "a", "labels": []}', '{"id": "a", "labels": []}'], "'a' occurs in line 1 and in line 2"),
        (['{"id": "a", "labels": ["persn"]}'], "In line 1 .*Unknown class name 'persn'; did you mean 'person'"),
        (['{"id": "a", "labels": ["a"], "difficult": ["zz"]}'], "Unknown class name 'a'"),
        (['{"id": "a", "labels": [], "difficult": ["zz"]}'], "Unknown class name 'zz'; choose one of"),
        (
            ['{"id": "a", "lables": ["TV"]}'],
            "In line 1 .* there are no 'labels': it has 'id', 'lables'.*--label-column",
        ),
        (['{"id": "a", "labels": [3]}'], r"The labels in line 1 .* are \[3\]; they must be class names"),
        (['{"id": "a", "labels": {"TV": 1}}'], "they must be class names"),
        (
            ['{"id": "a", "labels": []}', '{"id": "b", "labels": null}'],
            "In line 2 .* nothing stands in the column 'labels': where a picture holds none of the classes, write",
        ),
        (['{"labels": []}'], "In line 1 .* no column names the picture: it has 'labels'"),
        ([], "has no rows"),
    ],
)
def test_mistakes_name_the_line(tmp_path, lines, message):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=message):
        load_truth(path, NAMES)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_truth(tmp_path / "none.csv", NAMES)


def test_class_names_that_cannot_be_told_apart(tmp_path):
    with pytest.raises(ValueError, match="not unique"):
        load_truth(tmp_path / "t.csv", ("tv", "TV"))


@pytest.mark.data
def test_real_metadata():
    folder = os.environ.get("TAI_DATA")
    if not folder:
        pytest.skip("TAI_DATA is not set")
    names = json.loads((Path(folder) / "coco80_names.json").read_text())
    truth = load_truth(Path(folder) / "photos" / "metadata.jsonl", names)
    assert truth.labels.shape == (152, 80)
    assert truth.ids[0] == "000000000632.jpg"
    assert [names[c] for c in np.flatnonzero(truth.labels[0] == 1)] == ["chair", "potted plant", "bed", "book"]


FORMS = {
    "comma.csv": 'id,labels\np0,"person"\np1,"TV, dining table"\np2,""\n',
    "pipe.csv": "id,labels\np0,person\np1,TV|dining_table\np2,\n",
    "semicolons.csv": "id;labels\np0;person\np1;TV,dining table\np2;\n",
    "json.csv": 'id,labels\np0,"[""person""]"\np1,"[""TV"", ""dining table""]"\np2,[]\n',
    "python.csv": "id,labels\np0,['person']\np1,\"['TV', 'dining table']\"\np2,[]\n",
    "multihot.csv": "id,person,dining table,tv\np0,1,0,0\np1,0,1,1\np2,0,0,0\n",
    "only_ones.csv": "id,person,dining table,tv\np0,1,,\np1,,1,1\np2,,,\n",
    "multihot.tsv": "Image\tTV\tperson\tdining_table\np0\tFalse\tTrue\tfalse\np1\t1.0\t0.0\tyes\np2\tno\t0\t0\n",
    "long.csv": "image,label\np0,person\np1,TV\np1,dining table\np1,TV\np2,\n",
    "open_images.csv": "ImageID,Source,LabelName,Confidence\np0,v,person,1\np1,v,tv,1\np1,v,dining table,1\n"
    "p1,v,person,0\np2,v,tv,0\n",
    "labels_again.csv": "id,labels\np0,person\np1,TV\np1,dining table\np2,\n",
    "words.csv": "id,tags\np0,person\np1,tv;dining table;\np2,\n",
    "array.json": '[{"id": "p0", "labels": ["person"]}, {"id": "p1", "labels": ["tv", "dining table"]},'
    '{"id": "p2", "labels": []}]',
    "instances.json": json.dumps(
        {
            "annotations": [
                {"image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1], "segmentation": [[1, 2, 3]]},
                {"image_id": 7, "category_id": 9, "iscrowd": 1},
                {"image_id": 7, "category_id": 3},
                {"image_id": 0, "category_id": 1},
            ],
            "images": [{"id": 0, "file_name": "p0"}, {"id": 7, "file_name": "./p1"}, {"id": 3, "file_name": "p2"}],
            "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "tv"}, {"id": 9, "name": "dining table"}],
        }
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_the_forms_that_people_have(tmp_path, name):
    path = tmp_path / name
    path.write_text(FORMS[name])
    truth = load_truth(path, NAMES)
    assert truth.ids == ("p0", "p1", "p2")
    assert truth.labels.tolist() == [[1, -1, -1], [-1, 1, 1], [-1, -1, -1]]
    assert truth.passed_over == {}


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("id,person,dining table,tv\np0,1,,0\np1,0,1,1\np2,0,,0\np3,0,0,0\n", "line 2"),
        ('{"id": "p0", "person": 0, "dining table": 0}\n{"id": "p1", "person": 1, "dining table": null}\n', "line 2"),
    ],
)
def test_an_empty_cell_of_a_multi_hot_table_is_no_0(tmp_path, file, place):
    path = tmp_path / ("truth.jsonl" if file.startswith("{") else "truth.csv")
    path.write_text(file)
    with pytest.raises(UserError) as refused:
        load_truth(path, NAMES)
    assert str(refused.value) == (
        f"In {place} of the truth '{path}' the class 'dining table' is empty, and in other rows it is 0 (not there): "
        "write 0 or 1 in all; of what nobody knows write the columns 'labels' and 'difficult', with the class in the "
        "second one."
    )


@pytest.mark.parametrize("whole", [True, False])
def test_annotations_of_coco_without_its_categories_are_numbers(tmp_path, whole):
    entries = [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 0.5}]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"annotations": entries} if whole else entries))
    with pytest.raises(UserError) as refused:
        load_truth(path, NAMES)
    assert str(refused.value) == (
        f"The truth '{path}' has annotations of COCO alone, whose category_id are numbers: give the whole JSON, with "
        "its 'categories' and 'images', or write the names in a column 'category'."
    )
    path.write_text(json.dumps([{"file_name": "p0", "category": "TV"}, {"file_name": "p0", "category": "person"}]))
    assert load_truth(path, NAMES).labels.tolist() == [[1, -1, 1]]


def test_an_empty_confidence_says_nothing(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("ImageID,LabelName,Confidence\np0,person,1\np1,TV,\n")
    with pytest.raises(UserError, match=r"The Confidence in line 3 of the truth .* is empty, .* whether 'TV' is there"):
        load_truth(path, NAMES)


def test_multi_hot_parquet(tmp_path):
    table = {"path": ["p0", "p1"], "person": [1, 0], "TV": [True, None], "dining table": [0.0, 1.0]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert load_truth(tmp_path / "t.parquet", NAMES).labels.tolist() == [[1, -1, 1], [-1, 1, -1]]


VOC = """<annotation><folder>VOC</folder><filename>{name}</filename>
<object><name>person</name><difficult>0</difficult></object>
<object><name>person</name><difficult>1</difficult></object>
<object><name>TV</name><difficult>1</difficult><part><name>head</name></part></object>
</annotation>"""


@pytest.mark.parametrize("inner", ["", "Annotations"])
def test_a_folder_of_voc(tmp_path, inner):
    folder = tmp_path / inner
    (folder / "sub").mkdir(parents=True)
    (folder / "b.xml").write_text(VOC.format(name="b.jpg"))
    (folder / "a.xml").write_text("<annotation><filename>a.jpg</filename></annotation>")
    (folder / "sub" / "a.xml").write_text('<?xml version="1.0" encoding="ISO-8859-1"?>' + VOC.format(name="a.jpg"))
    (folder / "readme.txt").write_text("no annotation")
    truth = load_truth(tmp_path, NAMES)
    assert truth.ids == ("a.jpg", "b.jpg", "sub/a.jpg")
    assert truth.labels.tolist() == [[-1, -1, -1], [1, -1, 0], [1, -1, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "not valid XML"),
        ("<html/>", "none of Pascal VOC's"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "declares a document type"),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "not valid XML"),
        (VOC.format(name="a.jpg").replace("TV", "unicorn"), "Unknown class name 'unicorn'.*--unknown-labels ignore"),
    ],
)
def test_damaged_voc_files_are_named(tmp_path, text, message):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_truth(tmp_path, NAMES)
    assert "a.xml" in str(caught.value)


def test_a_document_type_in_another_encoding(tmp_path):
    text = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "c">]><annotation/>'
    (tmp_path / "a.xml").write_bytes(text.encode("utf-16"))
    with pytest.raises(UserError, match="declares a document type"):
        load_truth(tmp_path, NAMES)


def test_a_folder_without_annotations(tmp_path):
    with pytest.raises(UserError, match="no XML files of Pascal VOC"):
        load_truth(tmp_path, NAMES)


def test_labels_that_are_no_class_can_be_passed_over(tmp_path):
    ignore = TruthOptions("ignore")
    path = tmp_path / "t.jsonl"
    path.write_text('{"id": "a", "labels": ["TV", "unicorn"]}\n{"id": "b", "labels": ["unicorn", "elf"]}\n')
    truth = load_truth(path, NAMES, ignore)
    assert truth.labels.tolist() == [[-1, -1, 1], [-1, -1, -1]]
    assert truth.passed_over == {"unicorn": 2, "elf": 1}
    with pytest.raises(UserError, match=r"In line 1 .*Unknown class name 'unicorn'; choose .*--unknown-labels ignore"):
        load_truth(path, NAMES)
    path = tmp_path / "t.csv"
    path.write_text("id,person,unicorn\na,1,1\n")
    assert load_truth(path, NAMES, ignore).labels.tolist() == [[1, -1, -1]]
    with pytest.raises(UserError, match=r"As a column of the truth .*t\.csv': Unknown class name 'unicorn'"):
        load_truth(path, NAMES)
    with pytest.raises(UserError, match="Unknown choice for --unknown-labels 'skip'"):
        TruthOptions("skip")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "id,labels\na,TV\na,TV\n", "'a' occurs in line 2 and in line 3"),
        ("t.csv", "id,labels\na,TV\na,TV;person\n", "'a' occurs in line 2 and in line 3"),
        ("t.csv", "id,person\na,1\na,0\n", "'a' occurs in line 2 and in line 3"),
        ("t.csv", "id,person\na,-1\n", "In line 2 .* the class 'person' is '-1'; it must be 1"),
        ("t.csv", "name,labels\na,TV\n", "no column names the picture: it has 'name', 'labels'; .*--column"),
        ("t.csv", "id,etikett\na,TV\n", "no 'labels': it has 'id', 'etikett'"),
        ("t.json", '{"images": [], "annotations": []}', "has no rows"),
        ("t.json", '{"categories": [{"id": 1}], "images": []}', "no 'name' in categories, entry 1"),
        (
            "t.json",
            '{"categories": [{"id": 1, "name": "TV"}], "annotations": [{"image_id": 1, "category_id": 1}]}',
            "annotation 1 .* 1 is none of its images",
        ),
        (
            "t.json",
            '{"categories": [{"id": 1, "name": "TV"}, {"id": 1, "name": "person"}]}',
            "two categories have the id 1: 'TV' and 'person'",
        ),
        (
            "t.json",
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "categories": []}',
            "two images have the id 1: 'a' and 'b'",
        ),
        ("t.jsonl", '{"id": "a", "labels": ["TV"], "labels": []}', r"labels in line 1 .* are \['TV'\] and \[\]; they"),
        ("t.json", '{"categories": [' + "[" * 99_999, "nested deeper than 100"),
        ("t.jsonl", '{"id": "a", "labels": ' + "[" * 99_999, "nested deeper than 100"),
        ("t.jsonl", '{"id": "a", "labels": NaN}', "The labels in line 1 .* are nan; they must be class names"),
        ("t.jsonl", '{"id": NaN, "labels": []}', "The id in line 1 .* is nan"),
    ],
)  # fmt: skip
def test_mistakes_in_other_forms(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_truth(path, NAMES)


def test_columns_can_be_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("name~etikett\na~TV\n")
    options = TruthOptions(picture_column="name", label_column="etikett", table=TableOptions(separator="~"))
    assert load_truth(path, NAMES, options).labels.tolist() == [[-1, -1, 1]]


def test_the_bound_on_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(label_matrix, "MAX_LABELS", 5)
    path = tmp_path / "t.csv"
    path.write_text("id,labels\na,TV\nb,TV\n")
    with pytest.raises(UserError, match=r"more than 5 labels .*the most that tai-engine reads"):
        load_truth(path, NAMES)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_coco_with_a_byte_order_mark(tmp_path, encoding):
    document = {
        "images": [{"id": 1, "file_name": "caf\u00e9.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": [{"image_id": 1, "category_id": 7}],
        "categories": [{"id": 7, "name": "dog"}],
    }
    path = tmp_path / "instances.json"
    path.write_bytes(json.dumps(document, ensure_ascii=False).encode(encoding))
    found = load_truth(path, ["cat", "dog"])
    assert found.ids == ("caf\u00e9.jpg", "b.jpg")
    assert found.labels.tolist() == [[-1, 1], [-1, -1]]


def test_a_difficult_of_one_or_zero_is_of_all_labels_of_a_row(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,labels,difficult\na,dog;cat,1\nb,dog,0\nc,dog;cat,cat\nd,cat,\n")
    assert load_truth(path, ["cat", "dog"]).labels.tolist() == [[0, 0], [-1, 1], [0, 1], [1, -1]]
    # Where a class is called so, it is the class.
    path.write_text("id,labels,difficult\na,0;1,1\n")
    assert load_truth(path, ["0", "1"]).labels.tolist() == [[1, 0]]
