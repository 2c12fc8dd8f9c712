"""Who owns the place of the parts: users' things stay, other runs are told, killed ones leave nothing for good."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.functional import normalize

from feature_samples import write_group
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore, StoredItem, StoreSpec
from tai_engine.tagging.batch_loop import tag_store
from tai_engine.tagging.parts_folder import JOB, check_parts_place, hold_parts
from tai_engine.tagging.tag_job import TagJob

DIM, GROUPS, ITEMS = 8, 6, 5


def prompts(*names: str) -> PromptSet:
    rows = normalize(torch.randn(len(names), DIM, generator=torch.Generator().manual_seed(len(names))), dim=1)
    return PromptSet(names, rows, rows, "space", 100.0, "tuned")


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    spec = StoreSpec("images", "space", "recipe", DIM, 1, row_dtype="float32", group_items=ITEMS, chunk_items=ITEMS)
    made = FeatureStore.create(tmp_path / "store.zarr", spec)
    for group in range(GROUPS):
        ids = tuple(f"{group}-{item}" for item in range(ITEMS))
        rows = normalize(torch.randn(ITEMS, DIM, generator=torch.Generator().manual_seed(group)), dim=1)
        batch = FeatureBatch(ids, rows, rows, torch.arange(ITEMS + 1), "space")
        write_group(made, group, [StoredItem(name) for name in ids], [batch])
    return made


def make_file(parts: Path) -> None:
    parts.write_text("my notes")


def make_link(parts: Path) -> None:
    parts.symlink_to(parts.with_name("elsewhere"))


def make_folder(parts: Path) -> None:
    parts.mkdir()
    (parts / "notes.txt").write_text("my notes")


def make_foreign_job(parts: Path) -> None:
    parts.mkdir()
    (parts / JOB).write_text('{"my": "job"}')


def make_parquet_folder(parts: Path) -> None:
    parts.mkdir()
    (parts / "00000000.parquet").write_text("mine, by chance named like yours")
    (parts / "more.parquet").write_text("mine")


@pytest.mark.parametrize("make", [make_file, make_link, make_folder, make_foreign_job, make_parquet_folder])
def test_what_a_user_keeps_there_stays_and_the_run_is_refused(store: FeatureStore, tmp_path: Path, make):
    parts = tmp_path / "t.parquet.parts"
    make(parts)
    before = [(p, p.is_symlink(), p.read_bytes() if p.is_file() else None) for p in sorted(tmp_path.rglob("t.*"))]
    with pytest.raises(UserError, match=r"t\.parquet\.parts', but what lies there .*: move it away, or choose"):
        tag_store(store, prompts("a", "b"), tmp_path / "t.parquet")
    after = [(p, p.is_symlink(), p.read_bytes() if p.is_file() else None) for p in sorted(tmp_path.rglob("t.*"))]
    assert after == before


def test_a_file_that_a_user_put_beside_the_parts_stays(store: FeatureStore, tmp_path: Path):
    out = tmp_path / "t.parquet"
    job = TagJob.of(store, prompts("a", "b"))
    with pytest.raises(KeyboardInterrupt), hold_parts(out, job):
        raise KeyboardInterrupt
    (tmp_path / "t.parquet.parts" / "notes.txt").write_text("mine")
    tag_store(store, prompts("a", "b", "c"), out)  # even another job clears its own files alone
    assert [p.name for p in (tmp_path / "t.parquet.parts").iterdir()] == ["notes.txt"]
    (tmp_path / "t.parquet.parts" / "notes.txt").unlink()
    tag_store(store, prompts("a", "b"), out)
    assert not (tmp_path / "t.parquet.parts").exists()


def test_the_second_run_is_told_who_writes(store: FeatureStore, tmp_path: Path):
    out = tmp_path / "t.parquet"
    with hold_parts(out, TagJob.of(store, prompts("a", "b"))) as held:
        job_before = (held.path / JOB).read_bytes()
        with pytest.raises(UserError, match=rf"t\.parquet' are being written by process {os.getpid()} on "):
            tag_store(store, prompts("a", "b", "c"), out)
        with pytest.raises(UserError, match="wait for it or stop it, or choose another place with --out"):
            check_parts_place(out)
        assert (held.path / JOB).read_bytes() == job_before
    assert tag_store(store, prompts("a", "b", "c"), out).tags == GROUPS * ITEMS * 3


def test_what_a_killed_run_leaves_is_cleared_by_the_next(store: FeatureStore, tmp_path: Path):
    out, parts = tmp_path / "t.parquet", tmp_path / "t.parquet.parts"
    parts.mkdir()
    for name in (".0123456789abcdef.tmp", ".lock", "00000003.parquet"):  # killed before the job was written
        (parts / name).write_bytes(b"half")
    assert tag_store(store, prompts("a", "b"), out).resumed_items == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store.zarr", "t.parquet"]


def tag(path: Path, names: tuple[str, ...], out: Path, barrier, results) -> None:
    torch.set_num_threads(1)
    store = FeatureStore.open(path)
    barrier.wait()
    try:
        results.put(("done", tag_store(store, prompts(*names), out, slice_items=1).tags))
    except UserError as error:
        results.put(("refused", str(error)))


@pytest.mark.slow
def test_of_two_runs_at_once_one_writes_its_own_tags_and_the_other_is_told(store: FeatureStore, tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    vocabularies = (("a", "b"), ("c", "d", "e"))
    for trial in range(3):
        out = tmp_path / f"{trial}.parquet"
        barrier, results = context.Barrier(2), context.Queue()
        runs = [
            context.Process(target=tag, args=(Path(store.path), names, out, barrier, results)) for names in vocabularies
        ]
        for run in runs:
            run.start()
        outcomes = [results.get(timeout=120) for _ in runs]
        for run in runs:
            run.join()
        assert [kind for kind, _ in outcomes].count("done") >= 1
        assert all("are being written by process" in text for kind, text in outcomes if kind == "refused")
        table = pq.read_table(out)
        words = set(table["tag"].to_pylist())
        assert words in ({"a", "b"}, {"c", "d", "e"})
        assert table.num_rows == GROUPS * ITEMS * len(words)
        assert len(set(table["id"].to_pylist())) == GROUPS * ITEMS
        assert not list(tmp_path.glob("*.parts"))


KILLED = """
import sys, time, torch
from pathlib import Path
from tai_engine.store import FeatureStore
from tai_engine.tagging import tag_job
from tai_engine.tagging.batch_loop import tag_store
sys.path.insert(0, sys.argv[1])
from test_parts_folder import prompts
real = tag_job.score_tags
def slow(batch, *rest, **options):
    print(batch.ids[0], flush=True)
    time.sleep(0.2)
    return real(batch, *rest, **options)
tag_job.score_tags = slow
tag_store(FeatureStore.open(sys.argv[2]), prompts("a", "b"), sys.argv[3])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_run_killed_in_the_middle_is_gone_on_with(store: FeatureStore, tmp_path: Path):
    whole, out = tmp_path / "whole.parquet", tmp_path / "t.parquet"
    tag_store(store, prompts("a", "b"), whole)
    paths = [str(p) for p in (Path(__file__).parent, Path(__file__).parents[2], *sys.path) if str(p)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(store.path), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout
        seen = [run.stdout.readline().strip() for _ in range(3)]
        run.send_signal(signal.SIGKILL)
    assert seen == ["0-0", "1-0", "2-0"]
    assert not out.exists()
    time.sleep(0.01)
    report = tag_store(store, prompts("a", "b"), out)
    assert report.resumed_items == 2 * ITEMS
    assert pq.read_table(out).equals(pq.read_table(whole))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store.zarr", "t.parquet", "whole.parquet"]
    assert json.loads(pq.read_schema(out).metadata[b"tai_engine.class_names"]) == ["a", "b"]
