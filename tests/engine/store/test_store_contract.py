"""What every place keeps to that a store can lie in: one class of tests, and a subclass for each kind of place."""

import contextlib
import errno
import importlib.util
import json
import os

import fsspec
import pytest

from feature_samples import done, random_batch, same, small_spec, stored_content
from outside_programs import go_without
from stub_file_systems import StubFileSystem
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore
from tai_engine.store.layout import plain_reads
from tai_engine.store.layout.commits import HIDDEN, read_hidden, write_hidden
from tai_engine.store.places import lease, lock
from tai_engine.store.places.store_files import open_files
from tai_engine.store.upkeep.compact import compact_store
from tai_engine.store.upkeep.repair import repair_store
from tai_engine.store.upkeep.verify import verify_store

LETTERS = "abcdefghijklmnopqr"


def until_done(call, tries=300):
    """As people do whose network is bad: the same command again."""
    for _ in range(tries):
        with contextlib.suppress(UserError):
            return call()
    return call()


def names_in(place):
    return sorted(item.id for item in FeatureStore.open(place).ledger())


class StoreContract:
    """To be inherited with a fixture ``place``, the path or address of a store that does not exist yet."""

    has_leases = True

    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch):
        monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)

    @pytest.fixture
    def filled(self, place):
        """Three full groups of six; (the store, what it holds)."""
        until_done(lambda: FeatureStore.open_or_create(place, small_spec()))
        for group in range(3):
            until_done(lambda group=group: self.fill(place, group))
        return place, stored_content(place)

    @staticmethod
    def fill(place, group):
        store = FeatureStore.open(place)
        names = LETTERS[6 * group :][:6]
        with store.writing():
            if names[0] not in store.known_ids():
                store.write_group(next(store.free_groups()), done(*names), [random_batch(names, [3] * 6, seed=group)])

    @staticmethod
    def break_reading(monkeypatch, place, name):
        """Let reading a file fail with EIO from now on; returns what ends that."""
        raise NotImplementedError

    @staticmethod
    def all_files(place):
        files = open_files(place)
        folders = [name for name in files.names() if "." not in name]
        return {f"{folder}/{name}" for folder in folders for name in files.names(folder)}

    def test_what_was_written_is_read(self, filled):
        place, _ = filled
        store = FeatureStore.open(place)
        batches = {batch.ids: batch for batch in store.iter_batches(6)}
        for group in range(3):
            names = LETTERS[6 * group :][:6]
            assert same(batches[tuple(names)], random_batch(names, [3] * 6, seed=group))
        report = verify_store(place)
        assert (report.problems, report.done) == ((), 18)
        assert report.bytes > 18 * 8 * 2 * 4

    def test_a_store_that_was_begun_and_never_made_is_none(self, place):
        """Its maker was killed at every step."""
        files = open_files(place)

        class KilledError(Exception):
            pass

        for steps in range(100):
            left = [steps]

            def step(left=left):
                left[0] -= 1
                if left[0] < 0:
                    raise KilledError

            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(
                    type(files), "fence", property(lambda _, step=step: step, lambda *_: None), raising=False
                )
                with contextlib.suppress(KilledError):
                    FeatureStore.create(place, small_spec())
                    break
            assert FeatureStore.is_free(place)
            with pytest.raises(UserError, match="There is no store at"):
                FeatureStore.open(place)
        assert steps > 0 or files.is_local
        assert len(FeatureStore.open(place)) == 0
        with pytest.raises(UserError, match="Something lies at"):
            FeatureStore.create(place, small_spec())

    def test_of_two_who_make_a_store_at_once_the_second_opens_it(self, filled, monkeypatch):
        place, content = filled
        with monkeypatch.context() as patch:
            patch.setattr(FeatureStore, "is_free", staticmethod(lambda _place: True))  # as it was a moment before
            until_done(lambda: FeatureStore.open_or_create(place, small_spec()))
        assert stored_content(place) == content

    def test_of_two_who_create_a_file_one_succeeds(self, filled):
        place, _ = filled
        first, second = open_files(place), open_files(place)
        assert not second.exists("new.json")
        first.create("new.json", "one")
        with pytest.raises(FileExistsError):
            second.create("new.json", "two")
        assert second.read("new.json") == b"one"
        second.create("new.json", "one")  # as one whose reply was lost on the way

    def test_nothing_is_remembered_that_others_have_changed(self, filled):
        place, _ = filled
        ours, theirs = open_files(place), open_files(place)
        for folder in ("", "commits"):
            assert "new.json" not in ours.names(folder)
        assert not ours.exists("commits/new.json")
        theirs.create("commits/new.json", "12345")
        assert "new.json" in ours.names("commits")
        assert ours.exists("commits/new.json")
        assert ours.size("commits/new.json") == 5
        theirs.write("commits/new.json", "123")
        assert ours.size("commits/new.json") == 3
        theirs.remove("commits/new.json")
        assert not ours.exists("commits/new.json")
        with pytest.raises(FileNotFoundError):
            ours.size("commits/new.json")

    def test_the_second_writer_is_refused(self, filled):
        place, whole = filled
        with FeatureStore.open(place).writing():
            for call in (lambda: self.fill(place, 0), lambda: compact_store(place), lambda: repair_store(place)):
                with pytest.raises(UserError, match="is being written by process"):
                    call()
        assert stored_content(place) == whole

    def test_deleting_and_compacting_keep_the_rest(self, filled):
        place, (items, rows) = filled

        def delete():
            store = FeatureStore.open(place)
            with store.writing():
                positions = [store.inventory().find(name) for name in "aho"]
                store.delete([found.position for found in positions if found is not None])

        until_done(delete)
        report = until_done(lambda: compact_store(place))
        assert (report.items, report.groups_after) == (15, 3)
        assert stored_content(place) == (
            [item for item in items if item.id not in "aho"],
            {name: row for name, row in rows.items() if name not in "aho"},
        )
        assert verify_store(place).problems == ()

    def test_a_compaction_that_was_cut_off_loses_nothing(self, filled):
        """By a process of its own, whose changes the others must see; records never say what is not so."""
        place, whole = filled
        files = open_files(place)
        first = max(FeatureStore.open(place).groups()) + 1
        until_done(lambda: write_hidden(files, range(first, first + 2)))
        for name in sorted(self.all_files(place)):
            array, _, chunk = name.partition("/")
            if chunk.startswith("c.0"):  # some chunks of new groups
                until_done(lambda name=f"{array}/c.{90 * first}", old=name: files.write(name, files.read(old)))
        until_done(lambda: self.fill(place, 0))
        assert stored_content(place) == whole
        assert not open_files(place).exists(HIDDEN)
        assert len(read_hidden(open_files(place))) == 0
        for group in FeatureStore.open(place).groups():
            record = json.loads(files.read(f"commits/{group:08d}.json"))
            assert record["bytes"] == sum(
                files.size(f"{array}/{name}")
                for array in ("id", "status", "count", "size", "modified_ns", "coarse", "fine")
                for name in files.names(array)
                if name.startswith("c.")
                and int(name.split(".")[1]) // (3 if array in ("coarse", "fine") else 1) == group
            )
        report = until_done(lambda: repair_store(place))
        assert report.problems == ()
        assert stored_content(place) == whole

    @pytest.mark.parametrize("name", ["fine/c.4.0", "id/c.1", "count/c.1", "commits/00000001.json", "fine/zarr.json"])
    def test_what_cannot_be_read_just_now_is_no_damage(self, filled, monkeypatch, name):
        place, whole = filled
        before = self.all_files(place)
        with self.break_reading(monkeypatch, place, name):
            for call in (lambda: stored_content(place), lambda: verify_store(place), lambda: repair_store(place)):
                with pytest.raises(UserError, match="cannot be read just now") as caught:
                    call()
                assert "--repair" not in str(caught.value)
                assert "nothing was changed" in str(caught.value)
        assert self.all_files(place) == before
        assert stored_content(place) == whole

    @pytest.mark.parametrize("name", ["fine/c.4.0", "id/c.1", "commits/00000001.json"])
    def test_what_is_missing_or_cut_off_is(self, filled, name):
        place, _ = filled
        files = open_files(place)
        if name.startswith("fine"):
            files.write(name, files.read(name)[:-1])
        elif name.startswith("id"):
            files.remove(name)
        else:
            files.write(name, "{")
        report = repair_store(place)
        assert report.is_sound
        assert {problem.group for problem in report.problems} == {1}
        assert names_in(place) == [*"abcdef", *"mnopqr"]
        until_done(lambda: self.fill(place, 1))
        assert verify_store(place).problems == ()
        assert len(FeatureStore.open(place)) == 18

    def test_a_writer_that_slept_neither_loses_nor_doubles_anything(self, filled, monkeypatch):
        """It falls asleep at every kind of step, another one takes over and does the same work, then it wakes."""
        if not self.has_leases:
            pytest.skip("a file lock does not end while its holder sleeps")
        place, _ = filled
        for number, step in enumerate(("prepare", "check", "commit")):
            names = f"{number}x", f"{number}y"
            sleeper, successor = FeatureStore.open(place), FeatureStore.open(place)
            with contextlib.suppress(UserError), sleeper.writing() as store:
                group = next(store.free_groups())
                record = None
                if step != "prepare":
                    record = store.prepare_group(group, done(*names), [random_batch(names, [3, 3], seed=7)])
                with monkeypatch.context() as patched:
                    patched.setattr(lease.FoundLease, "is_in_force", False)
                    taking = successor.writing()
                    taking.__enter__()
                with contextlib.ExitStack() as stack:
                    stack.push(taking)
                    other = next(successor.free_groups())
                    assert other != group or step == "prepare"
                    successor.write_group(other, done(*names), [random_batch(names, [3, 3], seed=8)])
                # It wakes, and goes on where it was.
                if step == "prepare":
                    store.write_group(group, done(*names), [random_batch(names, [3, 3], seed=7)])
                elif step == "check":
                    store.commit_group(record)
                else:
                    monkeypatch.setattr(store._lock, "check", self.after(1, store._lock.check))
                    store.commit_group(record)
                pytest.fail("it committed")
        found = names_in(place)
        assert found == sorted([*LETTERS, "0x", "0y", "1x", "1y", "2x", "2y"])
        for number in range(3):
            names = f"{number}x", f"{number}y"
            assert same(FeatureStore.open(place).read_ids(names), random_batch(names, [3, 3], seed=8))
        assert verify_store(place).problems == ()

    @staticmethod
    def after(calls, check):
        """A check that says nothing for so many calls: the writer fell asleep right behind it."""
        left = [calls]

        def late():
            if left[0]:
                left[0] -= 1
                return
            check()

        return late


class TestFolder(StoreContract):
    has_leases = False

    @pytest.fixture
    def place(self, tmp_path):
        return tmp_path / "store"

    @staticmethod
    @contextlib.contextmanager
    def break_reading(monkeypatch, place, name):
        """Not by rights: whoever runs tests may read everything."""
        really = os.open

        def open_file(path, *arguments, **options):
            if str(path) == str(place / name):
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            return really(path, *arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(plain_reads.os, "open", open_file)
            file = place / name
            # What is not read by os.open goes through Python's open(), which a loop of links stops.
            data = file.read_bytes()
            file.unlink()
            file.symlink_to(file.name)
            try:
                yield
            finally:
                file.unlink()
                file.write_bytes(data)


class TestFolderWithoutFileLocks(TestFolder):
    has_leases = True

    @pytest.fixture(autouse=True)
    def no_file_locks(self, monkeypatch):
        monkeypatch.setattr(lock, "fcntl", None)


class TestMemory(StoreContract):
    @pytest.fixture
    def place(self, tmp_path):
        yield f"memory://{tmp_path.name}/store"
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)

    @staticmethod
    @contextlib.contextmanager
    def break_reading(monkeypatch, place, name):
        system = type(fsspec.filesystem("memory"))
        really = system.cat_file

        def cat_file(self, path, *arguments, **options):
            if path.endswith(name):
                raise OSError(errno.EIO, "the server is busy")
            return really(self, path, *arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(system, "cat_file", cat_file)
            yield


class TestStub(StoreContract):
    """Listings that are kept for good."""

    address = "stub://bucket/store"

    @pytest.fixture
    def place(self):
        StubFileSystem.reset()
        yield self.address
        StubFileSystem.reset()

    @staticmethod
    @contextlib.contextmanager
    def break_reading(monkeypatch, place, name):
        StubFileSystem.unreadable.add(f"/{name}")
        yield
        StubFileSystem.unreadable.clear()


class TestStubThatLosesReplies(TestStub):
    """Once the store is filled; what is about reading, or about single steps, is the same as with all replies."""

    test_what_cannot_be_read_just_now_is_no_damage = None
    test_what_is_missing_or_cut_off_is = None
    test_a_writer_that_slept_neither_loses_nor_doubles_anything = None

    @pytest.fixture
    def filled(self, place):
        for group in range(3):
            FeatureStore.open_or_create(place, small_spec())
            self.fill(place, group)
        whole = stored_content(place)
        StubFileSystem.loses = 0.02
        return place, whole

    @pytest.mark.parametrize("seed", range(5))
    def test_filling_again_and_again_comes_to_an_end(self, place, seed):
        StubFileSystem.draw.seed(seed)
        StubFileSystem.loses = 0.02
        until_done(lambda: FeatureStore.open_or_create(place, small_spec()))
        for group in range(3):
            until_done(lambda group=group: self.fill(place, group))
        StubFileSystem.loses = 0.0
        assert names_in(place) == [*LETTERS]
        assert verify_store(place).problems == ()


class TestStubThatAnswersLate(TestStub):
    @pytest.fixture
    def place(self):
        StubFileSystem.reset()
        StubFileSystem.seconds_late = 0.0005
        yield self.address
        StubFileSystem.reset()


class TestStubWithoutConditions(TestStub):
    address = "oldstub://bucket/store"


@pytest.fixture(scope="module")
def endpoint():
    if importlib.util.find_spec("s3fs") is None or importlib.util.find_spec("moto") is None:
        go_without("moto", "make test-s3")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.s3
@pytest.mark.slow
class TestS3(StoreContract):
    """The server of moto on this machine, spoken to by s3fs."""

    @pytest.fixture
    def place(self, endpoint, tmp_path, monkeypatch):
        monkeypatch.setitem(
            fsspec.config.conf, "s3", {"key": "key", "secret": "secret", "endpoint_url": endpoint}
        )  # as fsspec's own configuration says it
        bucket = tmp_path.name.replace("_", "-")[:50].strip("-").lower() + "0"
        fsspec.filesystem("s3").mkdir(bucket)
        return f"s3://{bucket}/store"

    @staticmethod
    @contextlib.contextmanager
    def break_reading(monkeypatch, place, name):
        system = fsspec.get_filesystem_class("s3")
        really = system._cat_file

        async def cat_file(self, path, *arguments, **options):
            if path.endswith(name):
                raise OSError(errno.EIO, "the server is busy")
            return await really(self, path, *arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(system, "_cat_file", cat_file)
            system.clear_instance_cache()  # those that are open have the method that was
            yield
        system.clear_instance_cache()
