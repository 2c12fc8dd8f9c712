import csv
import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tai_engine.errors import UserError
from tai_engine.sentences.read import Sentence, SentenceOptions, read_sentences
from tai_engine.tables import TableOptions

ROWS = [("A dog runs.", "7"), ('He said "two cats", ok', "8"), ("", "9"), ("Ein Hund läuft", "10")]
EXPECTED = [Sentence(str(n), text, image) for n, (text, image) in enumerate(ROWS, 1)]


def delimited(delimiter: str) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(["image_id", "caption"])
    writer.writerows((image, text) for text, image in ROWS)
    return out.getvalue().encode()


def parquet(columns: dict[str, list[object]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


COCO = {
    "info": {"year": 2017, "nested": ["a", {"b": "]"}]},
    "images": [{"id": int(image), "file_name": f"{image}.jpg"} for _, image in ROWS],
    "licenses": [],
    "annotations": [{"image_id": int(image), "id": 100 + int(image), "caption": text} for text, image in ROWS],
    "type": "captions",
}
FILES = {
    "a.jsonl": "".join(json.dumps({"caption": t, "image_id": int(i)}) + "\n\n" for t, i in ROWS).encode(),
    "a.csv": delimited(","),
    "a.tsv": delimited("\t"),
    "a.parquet": parquet({"caption": [t for t, _ in ROWS], "image_id": [int(i) for _, i in ROWS]}),
    "a.json": json.dumps(COCO).encode(),
    "array.json": json.dumps([{"Text": t, "Image": i} for t, i in ROWS], indent=1).encode(),
}


SPLIT_FILE = {
    "dataset": "flickr8k",
    "images": [
        {
            "sentids": [0, 1],
            "imgid": 0,
            "sentences": [
                {"tokens": ["a", "dog"], "raw": "A dog\nruns .", "imgid": 0, "sentid": 0},
                {"tokens": ["two", "cats"], "raw": "Two cats.", "imgid": 0, "sentid": 1},
            ],
            "split": "train",
            "filename": "2513.jpg",
        },
        {"sentences": [], "split": "test", "filename": "7.jpg", "imgid": 1},
        {"sentences": [{"raw": "A bird."}], "split": "test", "filepath": "val2014", "filename": "8.jpg", "cocoid": 9},
    ],
}
OF_SPLIT_FILE = [("A dog runs .", "2513.jpg"), ("Two cats.", "2513.jpg"), ("A bird.", "8.jpg")]


def test_karpathys_split_files(tmp_path: Path) -> None:
    path = tmp_path / "dataset_flickr8k.json"
    for document in (SPLIT_FILE, dict(reversed(SPLIT_FILE.items())), SPLIT_FILE["images"]):
        path.write_text(json.dumps(document))
        assert [(one.text, one.image_id) for one in read_sentences(path)] == OF_SPLIT_FILE
    path.write_text(json.dumps(SPLIT_FILE))
    by_number = read_sentences(path, SentenceOptions(image_column="imgid"))
    assert [one.image_id for one in by_number] == ["0", "0", None]
    with pytest.raises(UserError, match=r"'cocoid'; choose one of 'filename', 'imgid'"):
        list(read_sentences(path, SentenceOptions(image_column="cocoid")))
    path.write_text(json.dumps(SPLIT_FILE).replace('"raw"', '"row"'))
    with pytest.raises(UserError, match=r"entry 1 of the sentence file .* expected text or a list of texts"):
        list(read_sentences(path))


def test_a_split_file_is_never_held_whole(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    with path.open("w") as file:
        file.write('{"images": [')
        for n in range(20_000):
            file.write(json.dumps({"sentences": [{"raw": f"{n} " + "dog " * 200}], "filename": f"{n}.jpg"}) + ",")
        file.write('{"sentences": [], "filename": "z.jpg"}], "dataset": "own"}')
    tracemalloc.start()
    assert sum(1 for _ in read_sentences(path)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 16_000_000
    assert peak < 2_000_000


def test_a_bare_list_of_cocos_captions(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(COCO["annotations"]))
    assert list(read_sentences(path)) == EXPECTED


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_sentences(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    assert list(read_sentences(path)) == EXPECTED


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(".parquet")])
def test_every_text_format_may_be_gzipped(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(FILES[name]))
    assert list(read_sentences(path)) == EXPECTED


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_plain_text(ending: str, newline: str, tmp_path: Path) -> None:
    data = newline.join(["\ufeffA  dog\tруns ", "", "Zwei Hünde"]).encode()
    path = tmp_path / f"a.TXT{ending}"
    path.write_bytes(gzip.compress(data) if ending else data)
    assert list(read_sentences(path)) == [Sentence("1", "A dog руns"), Sentence("2", ""), Sentence("3", "Zwei Hünde")]


def test_localized_narratives(tmp_path: Path) -> None:
    path = tmp_path / "open_images_train_v6_captions.jsonl"
    record = {
        "dataset_id": "train",
        "image_id": "00f1",
        "annotator_id": 3,
        "caption": "In this image we can see a dog.",
    }
    path.write_text(json.dumps(record) + "\n" + json.dumps({**record, "image_id": "00f2"}))
    assert [(s.image_id, s.text[-4:]) for s in read_sentences(path)] == [("00f1", "dog."), ("00f2", "dog.")]


def test_lists_of_captions_strings_and_nulls(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"file_name": "x.jpg", "captions": ["one dog", "two"]}\n{"file_name": "y.jpg"}\n"plain"\n')
    assert list(read_sentences(path)) == [
        Sentence("1", "one dog", "x.jpg"),
        Sentence("2", "two", "x.jpg"),
        Sentence("3", "", "y.jpg"),
        Sentence("4", "plain", None),
    ]
    table = tmp_path / "a.parquet"
    table.write_bytes(parquet({"sentences": [["one", "two"], None, []], "n": [1, 2, 3]}))
    assert [s.text for s in read_sentences(table)] == ["one", "two", ""]


@pytest.mark.parametrize("field", ['"[""A dog."", ""Two, dogs.""]"', "\"['A dog.', 'Two, dogs.']\""])
def test_lists_of_captions_in_a_field(tmp_path: Path, field: str) -> None:
    """As Hugging Face's copy of Flickr30k has them; what is no list stays a sentence."""
    path = tmp_path / "a.csv"
    path.write_text(f"raw,split,filename\n{field},train,x.jpg\n[sic] a dog,train,y.jpg\n")
    assert list(read_sentences(path)) == [
        Sentence("1", "A dog.", "x.jpg"),
        Sentence("2", "Two, dogs.", "x.jpg"),
        Sentence("3", "[sic] a dog", "y.jpg"),
    ]


def test_several_files_are_numbered_on(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\nb\n")
    (tmp_path / "b.csv").write_text("text\nc\n")
    found = list(read_sentences([tmp_path / "a.txt", tmp_path / "b.csv"]))
    assert [(s.id, s.text) for s in found] == [("1", "a"), ("2", "b"), ("3", "c")]


def test_named_columns_and_format(tmp_path: Path) -> None:
    path = tmp_path / "captions.dat"
    path.write_text("caption;x\n")
    with pytest.raises(UserError, match=r"kind of the sentence file .*\.jsonl.*jsonl"):
        list(read_sentences(path))
    path.write_text("caption,alt,pic\nwrong,right,p1\nshort\n")
    options = SentenceOptions("alt", "pic", TableOptions("csv"))
    assert list(read_sentences(path, options)) == [Sentence("1", "right", "p1"), Sentence("2", "", None)]
    with pytest.raises(UserError, match=r"Unknown column in .*captions\.dat': 'alto'; did you mean 'alt'"):
        list(read_sentences(path, SentenceOptions("alto", table=TableOptions("csv"))))


def test_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("ein Bär\n".encode("latin-1"))
    assert [s.text for s in read_sentences(path, SentenceOptions(table=TableOptions(encoding="latin-1")))] == [
        "ein Bär"
    ]
    with pytest.raises(UserError, match=r"a\.txt' is not UTF-8 .*name its encoding"):
        list(read_sentences(path))
    path.write_bytes("ein Bär\n".encode("utf-16"))
    assert [s.text for s in read_sentences(path, SentenceOptions(table=TableOptions(encoding="utf-16")))] == ["ein Bär"]
    path.write_bytes("a dog\n".encode("utf-16-le"))
    with pytest.raises(UserError, match=r"Line 1 of .* zero bytes"):
        list(read_sentences(path))
    with pytest.raises(UserError, match="Unknown text encoding 'utf-88'"):
        TableOptions(encoding="utf-88")


def test_half_a_surrogate_pair_becomes_text_that_can_be_encoded(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('"a \\ud800 dog"\n')
    assert [s.text.encode() for s in read_sentences(path)] == [b"a ? dog"]


BAD = {
    "empty.txt": (b"", "is empty"),
    "empty.jsonl": (b"\n\n", "is empty"),
    "empty.json": (b" ", "is empty"),
    "blank.txt": (b"  \n\n", "is empty"),
    "bytes.parquet": (parquet({"caption": [b"a dog"]}), r"no column of sentences: it has none \(and, of bytes or"),
    "letter.rtf": (rb"{\rtf1 A dog.}", r"a rich text document: save it as plain text"),
    "empty.csv": (b"", "is empty"),
    "header.csv": (b"caption\n", "is empty"),
    "none.json": (b"[]", "is empty"),
    "no.jsonl": (b'{"caption": "a"}\n{"caption": \n', r"Line 2 of .* is not valid JSON"),
    "number.jsonl": (b'{"caption": 3}\n', r"line 1 of .* is 3, expected text"),
    "list.jsonl": (b"[1]\n", r"Line 1 of .* is \[1\], not a JSON object"),
    "column.jsonl": (b'{"titel": "a"}\n', r"no column of sentences: it has 'titel', expected one of caption, text"),
    "column.csv": (b"a,b\n1,2\n", r"it has 'a', 'b', expected one of caption"),
    "quote.csv": (b'caption\n"' + b"a " * 100_000, r"has a field of more than 131,072 characters"),
    "object.json": (b'{"images": []}', r"expected an array, or an object with an array 'annotations'"),
    "lines.json": (b'{"caption": "a"}\n{"caption": "b"\n', r"Line 2 of .* is not valid JSON"),
    "digits.json": (b'[{"caption": "a", "id": ' + b"1" * 6000 + b"}]", r"more than 4,300 digits"),
    "deep.json": (b'[{"caption": ' + b"[" * 100_000, r"nested deeper than 100 levels"),
    "deep.jsonl": (b'{"caption": ' + b"[" * 100_000 + b"\n", r"Line 1 of .* nested deeper than 100 levels"),
    "deep_column.jsonl": (b'{"caption": [' + b"[" * 90 + b"1" + b"]" * 91 + b"}", r"expected text or a list of texts"),
    "cut.json": (b'[{"caption": "a"}, {"cap', r"not valid JSON"),
    "cut2.json": (b'[{"caption": "a"}', r"not valid JSON .*premature"),
    "text.json": (b"A dog.\n", r"not valid JSON .*invalid char"),
    "broken.txt.gz": (b"no gzip", r"not a whole gzip file"),
    "cut.txt.gz": (gzip.compress(b"a dog\n" * 1000)[:-9], r"not a whole gzip file"),
    "no.parquet": (b"PAR1 no", r"no Parquet file or is damaged"),
    "text.parquet.gz": (b"", r"gunzip"),
    "type.parquet": (parquet({"caption": [1, 2]}), r"row 1 of .* is 1, expected text"),
    "line.txt": (
        b"a" * (1 << 24),
        r"Line 1 of the sentence file .* longer than 16 MiB, the most that tai-engine reads",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_with_one_sentence(name: str, tmp_path: Path) -> None:
    data, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        list(read_sentences(tmp_path / name))
    assert name in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.txt' cannot be read \(No such file"):
        list(read_sentences(tmp_path / "gone.txt"))
    folder = tmp_path / "folder.txt"
    folder.mkdir()
    with pytest.raises(UserError, match="is a folder"):
        list(read_sentences(folder))
    with pytest.raises(UserError, match="Unknown table format 'excel'"):
        TableOptions("excel")


@pytest.mark.parametrize("name", ["big.json", "big.jsonl", "big.csv", "big.txt"])
def test_memory_does_not_grow_with_the_file(name: str, tmp_path: Path) -> None:
    caption = "d" + "o" * 1000 + "g"
    path = tmp_path / name
    count = 10_000  # 10 MB of captions
    with path.open("w") as file:
        if name.endswith("json"):
            file.write('{"annotations": [')
            file.writelines(f'{"," if n else ""}{{"image_id": {n}, "caption": "{caption}"}}' for n in range(count))
            file.write("]}")
        elif name.endswith("jsonl"):
            file.writelines(f'{{"image_id": {n}, "caption": "{caption}"}}\n' for n in range(count))
        else:
            file.writelines(f"{caption}\n" for _ in range(count + 1))
    options = SentenceOptions(text_column=caption) if name.endswith("csv") else None
    first = next(iter(read_sentences(path, options)))  # imports and the like are not counted
    tracemalloc.start()
    read = sum(1 for _ in read_sentences(path, options))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert first.text == caption
    assert read >= count
    assert peak < 6 << 20
