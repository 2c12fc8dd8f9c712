"""What every source keeps, whatever it is made of and wherever it lies."""

import io
import json
import logging
import pickle
from abc import ABC, abstractmethod
from pathlib import Path

import pytest
from PIL import Image

from tai_engine.errors import REASONS, ItemError, UserError
from tai_engine.sources import Source, SourceOptions, open_source


def picture(number: int, format: str = "PNG") -> bytes:  # noqa: A002 - Pillow's word
    """A picture that is unlike those of other numbers."""
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (number, 7, 7)).save(file, format)
    return file.getvalue()


def contents(source: Source) -> dict[str, bytes | str]:
    """Bytes, or the reason, of every item by its id; readers and items travel as to another process."""
    found: dict[str, bytes | str] = {}
    for item in source:
        reader, copy = pickle.loads(pickle.dumps((source.reader, item)))
        assert item.id not in found
        item.id.encode("utf-8")
        for number in (item.size, item.modified_ns):
            assert number is None or -(2**63) <= number < 2**63
        try:
            found[item.id] = reader(copy)
        except ItemError as error:
            found[item.id] = str(error)
    assert {text.partition(":")[0] for text in found.values() if isinstance(text, str)} <= set(REASONS)
    return found


PLAIN = {"b.png": picture(1), "a/2.PNG": picture(2), "a/1.jpeg": picture(3, "JPEG"), "deep/er/c.gif": picture(4, "GIF")}
ODD_NAMES = ("a b.png", "[/b] [red]x.png", "100%.png", "%41.png", "é.png", "日本.png", "a'\"&;.png", "…\u202eg.png")


class SourceContract(ABC):
    """Inherited by a test class of each kind of source."""

    PREFIX = ""
    """Before the relative path of a file in its id."""
    ODD_NAMES = ODD_NAMES
    CHOOSES = True
    """Whether the source decides which files are pictures."""

    @abstractmethod
    def spec(self, files: dict[str, bytes], tmp_path: Path) -> str:
        """What `open_source` is given for a source of these files, in their order where it has one."""

    @pytest.fixture
    def make(self, tmp_path):
        def make(files, **options):
            return open_source(self.spec(files, tmp_path), SourceOptions(**options))

        return make

    def with_prefix(self, files):
        return {self.PREFIX + name: data for name, data in files.items()}

    def test_every_picture_comes_once_with_its_bytes_and_again_alike(self, make):
        source = make(PLAIN)
        assert contents(source) == self.with_prefix(PLAIN)
        assert list(source) == list(source)
        assert source.estimate_count() in (None, len(PLAIN))
        assert source.describe()
        assert source.left_out == 0
        assert list(source.remarks) == []

    def test_names_that_mean_something_elsewhere(self, make):
        files = {name: picture(n) for n, name in enumerate(self.ODD_NAMES)}
        wanted = {name.replace("%41", "%2541"): data for name, data in files.items()}
        assert contents(make(files)) == self.with_prefix(wanted)

    def test_what_is_passed_over_is_told_in_a_line_of_each_kind(self, make, caplog):
        if not self.CHOOSES:
            pytest.skip("it names its pictures itself")
        system = ("@eaDir/b.png/THUMB.jpg", "x/$RECYCLE.BIN/c.png", "__MACOSX/d.png", "a/Android/data/e.png")
        files = {
            **PLAIN,
            "film.mp4": b"-",
            "film.MP4": b"-",
            "sketch.xcf": b"-",
            "d.jpg_large": picture(5),
            "0a1b2c3d4e5f": picture(6),
            "README": b"words",
            ".hidden.png": picture(7),
            **{name: picture(8) for name in system},
        }
        source = make(files)
        with caplog.at_level(logging.WARNING):
            assert contents(source) == self.with_prefix({**PLAIN, "0a1b2c3d4e5f": picture(6)})
        assert caplog.text == ""
        names, folders, hidden = source.remarks
        assert names == (
            "Passed over, being no pictures by their names: 2 .mp4, 1 .jpg_large, 1 .xcf, 1 without a suffix."
        )
        assert folders.startswith(
            "Passed over, being folders of systems: 1 $RECYCLE.BIN, 1 @eaDir, 1 __MACOSX, 1 data; give such a folder"
        )
        assert hidden == "Passed over, being hidden: 1."

    @pytest.mark.parametrize(
        ("patterns", "left"),
        [
            (("*.PNG",), {"b.png", "a/1.jpeg", "deep/er/c.gif"}),
            (("a",), {"b.png", "deep/er/c.gif"}),
            (("a/",), {"b.png", "deep/er/c.gif"}),
            (("a/2*", "er"), {"b.png", "a/1.jpeg"}),
            (("nothing", "[xyz].png"), set(PLAIN)),
        ],
    )
    def test_patterns_of_the_user_are_excluded(self, make, patterns, left):
        source = make(PLAIN, exclude=patterns)
        assert contents(source) == self.with_prefix({name: PLAIN[name] for name in PLAIN if name in left})
        excluded = len(PLAIN) > len(left)
        assert [line.partition(":")[0] for line in source.remarks] == ["Passed over by --exclude"] * excluded

    def test_files_that_are_empty_or_not_there_any_more_fail_alone(self, make, tmp_path):
        source = make({"a.png": b"", "b.png": picture(2)})
        assert contents(source) == self.with_prefix({"a.png": "empty: the file has no bytes", "b.png": picture(2)})

    def test_a_source_without_pictures_says_what_is_there(self, make):
        if not self.CHOOSES:
            pytest.skip("it names its pictures itself")
        with pytest.raises(UserError, match=r"has no pictures in it or below it: .*There is: 2 \.xcf, 1 \.mp4\."):
            make({"a.xcf": b"-", "b.xcf": b"-", "c.mp4": b"-"})


def write_files(files: dict[str, bytes], folder: Path) -> None:
    """The files below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def jsonl(files: dict[str, bytes]) -> bytes:
    """A list that names these files, whatever their names hold."""
    return "".join(json.dumps({"path": name}) + "\n" for name in files).encode()
