"""Every kind of source keeps the same promises."""

import os
from pathlib import Path

import pytest

from picture_server import serving, tar_bytes
from source_contract import SourceContract, jsonl, picture, write_files
from tai_engine.sources import open_source


class TestFolder(SourceContract):
    ODD_NAMES = (*SourceContract.ODD_NAMES, "back\\slash.png", "new\nline.png", "escape\x1b[31m.png", "http:/h/a.png")

    def spec(self, files, tmp_path):
        write_files(files, tmp_path / "folder")
        return str(tmp_path / "folder")

    @pytest.mark.parametrize("year", [1902, 2400, 9999])
    def test_files_of_other_centuries(self, tmp_path, year):
        write_files({"a.png": picture(1)}, tmp_path)
        os.utime(tmp_path / "a.png", (0, (year - 1970) * 31_556_952))
        (item,) = open_source(tmp_path)
        there = Path(item.location).stat().st_mtime_ns  # not every file system holds them
        assert item.modified_ns == min(there, 2**63 - 1)


class TestListHere(SourceContract):
    CHOOSES = False
    ODD_NAMES = (*SourceContract.ODD_NAMES, "back\\slash.png", "new\nline.png")

    def spec(self, files, tmp_path):
        write_files(files, tmp_path)
        (tmp_path / "list.jsonl").write_bytes(jsonl(files))
        return str(tmp_path / "list.jsonl")


class TestTar(SourceContract):
    PREFIX = "shard/"
    ODD_NAMES = (*SourceContract.ODD_NAMES, "back\\slash.png", "new\nline.png")

    def spec(self, files, tmp_path):
        (tmp_path / "shard.tar").write_bytes(tar_bytes(files))
        return str(tmp_path / "shard.tar")


class TestTarPacked(TestTar):
    def spec(self, files, tmp_path):
        (tmp_path / "shard.tar.gz").write_bytes(tar_bytes(files, "w:gz"))
        return str(tmp_path / "shard.tar.gz")


class TestTarBehindAnAddress(TestTar):
    @pytest.fixture(autouse=True)
    def files_of(self, memory):
        self.memory = memory

    def spec(self, files, tmp_path):
        self.memory.pipe("/d/shard.tar", tar_bytes(files))
        return "memory://d/shard.tar"


class TestFolderBehindAnAddress(SourceContract):
    @pytest.fixture(autouse=True)
    def files_of(self, memory):
        self.memory = memory

    def spec(self, files, tmp_path):
        self.memory.pipe({f"/d/{name}": data for name, data in files.items()})
        return "memory://d"


class TestListBehindAnAddress(TestFolderBehindAnAddress):
    CHOOSES = False

    def spec(self, files, tmp_path):
        super().spec(files, tmp_path)
        self.memory.pipe("/d/list.jsonl", jsonl(files))
        return "memory://d/list.jsonl"


class TestFolderOfAWebServer(SourceContract):
    @pytest.fixture(autouse=True)
    def server(self, tmp_path):
        pytest.importorskip("aiohttp")
        (tmp_path / "web").mkdir()
        with serving(tmp_path / "web") as self.web:
            yield

    def spec(self, files, tmp_path):
        write_files(files, tmp_path / "web")
        return self.web.url


class TestListOfAWebServer(TestFolderOfAWebServer):
    CHOOSES = False

    def spec(self, files, tmp_path):
        write_files({**files, "list.jsonl": jsonl(files)}, tmp_path / "web")
        return f"{self.web.url}/list.jsonl"


class TestOnePicture:
    @pytest.mark.parametrize("name", ["a.png", "0a1b2c", "x.HEIC"])
    def test_it_is_named_by_itself(self, tmp_path, name):
        write_files({name: picture(3)}, tmp_path)
        source = open_source(tmp_path / name)
        assert [item.id for item in source] == [name]
        assert source.reader(next(iter(source))) == picture(3)
        assert (source.estimate_count(), source.left_out, list(source.remarks)) == (1, 0, [])
