"""A file system of fsspec as object stores are at their worst: old listings, lost replies, late answers, errors."""

import errno
import io
import os
import random
import time
from typing import ClassVar

import fsspec
from fsspec.spec import AbstractFileSystem


class StubFileSystem(AbstractFileSystem):
    """Objects in memory, which all instances share; what goes wrong is set for all of them.

    Listings and what is known of a file are kept for good, whatever ``use_listings_cache`` says, until
    `invalidate_cache` is called, as s3fs does by default.
    """

    protocol = "stub"
    objects: ClassVar[dict[str, bytes]] = {}
    loses: ClassVar[float] = 0.0
    """This share of the changes, drawn by chance, is made and answered by an error."""
    draw: ClassVar[random.Random] = random.Random(0)
    seconds_late: ClassVar[float] = 0.0
    unreadable: ClassVar[set[str]] = set()
    """Ends of paths that cannot be read."""
    cachable = False  # every opening has a memory of its own, as other processes do

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.remembered = {}

    @classmethod
    def reset(cls):
        cls.objects.clear()
        cls.unreadable.clear()
        cls.loses, cls.seconds_late = 0.0, 0.0
        cls.draw.seed(0)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path).strip("/")

    def _reply(self):
        time.sleep(self.seconds_late)
        if self.loses and self.draw.random() < self.loses:
            raise TimeoutError("the reply was lost")

    def invalidate_cache(self, path=None):
        self.remembered.clear()

    def ls(self, path, detail=True, **kwargs):
        path = self._strip_protocol(path)
        if path not in self.remembered:
            self.remembered[path] = self._list(path)
        found = self.remembered[path]
        if not found:
            raise FileNotFoundError(path)
        return found if detail else [info["name"] for info in found]

    def _list(self, path):
        time.sleep(self.seconds_late)
        if path in self.objects:
            return [{"name": path, "size": len(self.objects[path]), "type": "file"}]
        found = {}
        for name, data in self.objects.items():
            if name.startswith(f"{path}/"):
                child = f"{path}/{name[len(path) + 1 :].split('/')[0]}"
                is_file = child == name
                found[child] = {
                    "name": child,
                    "size": len(data) if is_file else 0,
                    "type": "file" if is_file else "directory",
                }
        return sorted(found.values(), key=lambda info: info["name"])

    def info(self, path, **kwargs):
        path = self._strip_protocol(path)
        parent, _, _ = path.rpartition("/")
        for info in self.remembered.get(parent, ()):
            if info["name"] == path:
                return info
        found = self.ls(path)
        return found[0] if found[0]["name"] == path else {"name": path, "size": 0, "type": "directory"}

    def cat_file(self, path, start=None, end=None, **kwargs):
        path = self._strip_protocol(path)
        if any(path.endswith(name) for name in self.unreadable):
            raise OSError(errno.EIO, "the server is busy")
        if path not in self.objects:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self.objects[path][start:end]

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        path = self._strip_protocol(path)
        if mode == "create" and path in self.objects:
            raise FileExistsError(path)
        self.objects[path] = bytes(value)
        self._reply()

    def rm_file(self, path):
        if self.objects.pop(self._strip_protocol(path), None) is None:
            raise FileNotFoundError(path)
        self._reply()

    def _open(self, path, mode="rb", **kwargs):
        assert mode == "rb"
        return io.BytesIO(self.cat_file(path))


class OldStubFileSystem(StubFileSystem):
    """The same without creation on condition."""

    protocol = "oldstub"

    def pipe_file(self, path, value, **kwargs):
        assert "mode" not in kwargs
        super().pipe_file(path, value)


for system in (StubFileSystem, OldStubFileSystem):
    fsspec.register_implementation(system.protocol, system, clobber=True)
