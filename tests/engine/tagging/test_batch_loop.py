import json
import shutil
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.functional import normalize

from feature_samples import write_group
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch, offsets_from_counts
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore, StoredItem, StoreSpec
from tai_engine.tagging import exporters, tag_job
from tai_engine.tagging.batch_loop import tag_store
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA
from tai_engine.tagging.parts_folder import PartsFolder
from tai_engine.tagging.scoring import ScoringConfig, score
from tai_engine.tagging.tag_file import read_tag_file
from tai_engine.tagging.tag_job import part_name, tag_batch, tag_table
from tai_engine.tagging.tag_selection import Selection

DIM, PATCHES, GROUP = 8, 3, 4


def unit(*shape: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def features(names: list[str], seed: int) -> FeatureBatch:
    return FeatureBatch(
        tuple(names),
        unit(len(names), DIM, seed=seed),
        unit(len(names) * PATCHES, DIM, seed=seed + 1),
        offsets_from_counts(torch.full((len(names),), PATCHES)),
        "space",
    )


def prompt_set(space_key: str = "space") -> PromptSet:
    return PromptSet(("a", "b", "c"), unit(3, DIM, seed=7), unit(3, DIM, seed=8), space_key, 100.0, "tuned")


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Three commit groups of 4, 4 and 2 items; item 1 and the whole second group failed."""
    spec = StoreSpec(
        "images", "space", "recipe", DIM, PATCHES, row_dtype="float32", group_items=GROUP, chunk_items=2,
        provenance={"model": "m"},
    )  # fmt: skip
    made = FeatureStore.create(tmp_path / "store.zarr", spec)
    for group, names in enumerate((["0", "1", "2", "3"], ["4", "5", "6", "7"], ["8", "9"])):
        failed = {"1", "4", "5", "6", "7"}
        items = [StoredItem(n, "failed", "empty: no bytes") if n in failed else StoredItem(n) for n in names]
        good = [n for n in names if n not in failed]
        write_group(made, group, items, [features(good, seed=10 * group)] if good else [])
    return made


def expected_scores(store: FeatureStore, config: ScoringConfig | None = None) -> dict[tuple[str, str], float]:
    found = {}
    for group in store.groups():
        batch = store.read_group(group)
        for name, row in zip(batch.ids, score(batch, prompt_set(), config).scores.tolist(), strict=True):
            found |= {(name, tag): value for tag, value in zip("abc", row, strict=True)}
    return found


def test_every_item_gets_every_class_best_first(store: FeatureStore, tmp_path: Path):
    report = tag_store(store, prompt_set(), tmp_path / "t.parquet", slice_items=2)
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert {(r["id"], r["tag"]): pytest.approx(r["score"], abs=1e-5) for r in rows} == expected_scores(store)
    assert [r["id"] for r in rows] == [i for i in ("0", "2", "3", "8", "9") for _ in range(3)]
    assert all(rows[i]["score"] >= rows[i + 1]["score"] for i in range(0, 15, 3))
    assert (report.items, report.tags, report.items_without_features, report.resumed_items) == (5, 15, 5, 0)
    assert not (tmp_path / "t.parquet.parts").exists()


def test_selection_by_count_and_threshold(store: FeatureStore, tmp_path: Path):
    truth = expected_scores(store)
    tag_store(store, prompt_set(), tmp_path / "t.parquet", selection=Selection(top_k=2, threshold=0.0))
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()
    kept = {(r["id"], r["tag"]) for r in rows}
    for item in ("0", "2", "3", "8", "9"):
        best = sorted((t for t in "abc" if truth[item, t] >= 0), key=lambda t, i=item: -truth[i, t])[:2]
        assert {t for i, t in kept if i == item} == set(best)
    assert {r["threshold"] for r in rows} == {0.0}
    assert {r["probability"] for r in rows} == {None}


def test_provenance_names_weights_recipe_prompts_and_settings(store: FeatureStore, tmp_path: Path):
    tag_store(store, prompt_set(), tmp_path / "t.parquet", selection=Selection(top_k=1))
    metadata = {k.decode(): v.decode() for k, v in pq.read_schema(tmp_path / "t.parquet").metadata.items()}
    assert metadata["tai_engine.space_key"] == "space"
    assert metadata["tai_engine.recipe_key"] == "recipe"
    assert json.loads(metadata["tai_engine.encoder"]) == {"model": "m"}
    assert json.loads(metadata["tai_engine.class_names"]) == ["a", "b", "c"]
    assert json.loads(metadata["tai_engine.scoring"])["temperature"] == 40.0
    assert json.loads(metadata["tai_engine.selection"]) == {"top_k": 1, "threshold": None}
    assert metadata["tai_engine.complete"] == "false"
    assert metadata["tai_engine.items"] == "5"


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(store: FeatureStore, tmp_path: Path, monkeypatch):
    whole, out = tmp_path / "whole.parquet", tmp_path / "t.parquet"
    tag_store(store, prompt_set(), whole)
    scored = []
    real = tag_job.score_tags

    def interrupted(batch, prompts, config, **options):
        if batch.ids[0] == "8":
            raise KeyboardInterrupt
        scored.extend(batch.ids)
        return real(batch, prompts, config, **options)

    monkeypatch.setattr(tag_job, "score_tags", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tag_store(store, prompt_set(), out)
    assert not out.exists()
    assert scored == ["0", "2", "3"]

    def counted(batch, prompts, config, **options):
        scored.extend(batch.ids)
        return real(batch, prompts, config, **options)

    monkeypatch.setattr(tag_job, "score_tags", counted)
    report = tag_store(store, prompt_set(), out)
    assert scored == ["0", "2", "3", "8", "9"]
    assert report.resumed_items == 3
    assert pq.read_table(out).equals(pq.read_table(whole))


def stop(*args, **options):
    raise KeyboardInterrupt


def leave_parts(store: FeatureStore, out: Path, config: ScoringConfig | None = None) -> Path:
    """What a run leaves that was stopped just before it wrote the file: all its parts."""
    with mock.patch.object(exporters.Exporter, "export", stop), pytest.raises(KeyboardInterrupt):
        tag_store(store, prompt_set(), out, config)
    folder = out.with_name(out.name + ".parts")
    assert len(list(folder.glob("*.parquet"))) == 3
    return folder


def test_parts_of_another_job_are_not_taken_over(store: FeatureStore, tmp_path: Path):
    out = tmp_path / "t.parquet"
    leave_parts(store, out, ScoringConfig(which="coarse"))
    report = tag_store(store, prompt_set(), out, ScoringConfig(which="fine"))
    assert report.resumed_items == 0
    rows = pq.read_table(out).to_pylist()
    expected = expected_scores(store, ScoringConfig(which="fine"))
    assert {(r["id"], r["tag"]): pytest.approx(r["score"], abs=1e-5) for r in rows} == expected


def test_parts_that_are_damaged_or_of_another_job_are_made_again(store: FeatureStore, tmp_path: Path):
    whole, out = tmp_path / "whole.parquet", tmp_path / "t.parquet"
    tag_store(store, prompt_set(), whole)
    foreign = leave_parts(store, tmp_path / "f.parquet", ScoringConfig(which="coarse"))
    folder = leave_parts(store, out)
    shutil.copy(foreign / "00000000.parquet", folder / "00000000.parquet")
    data = (folder / "00000002.parquet").read_bytes()
    (folder / "00000002.parquet").write_bytes(data[: len(data) // 2])
    assert tag_store(store, prompt_set(), out).resumed_items == 0
    assert pq.read_table(out).equals(pq.read_table(whole))


@pytest.mark.parametrize("change", ["gone", "of another job", "other words"])
def test_parts_are_checked_before_the_last_step(store: FeatureStore, tmp_path: Path, change: str):
    """Somebody changes a part between its making and the export."""
    out = tmp_path / "t.parquet"
    out.write_bytes(b"old")
    foreign = leave_parts(store, tmp_path / "f.parquet", ScoringConfig(which="coarse"))

    def meddling(job, folder, groups):
        for group in groups:
            data, part = job.tag_group(group)
            (folder / part_name(group)).write_bytes(data)
            yield part
        if change == "gone":
            (folder / part_name(0)).unlink()
        elif change == "of another job":
            shutil.copy(foreign / part_name(0), folder / part_name(0))
        else:
            table = pq.read_table(folder / part_name(0))
            words = pa.array(["zebra"] * table.num_rows, pa.string())
            pq.write_table(table.set_column(1, TAG_SCHEMA.field("tag"), words), folder / part_name(0))

    said = {
        "gone": "No such file",
        "of another job": "it is of another run",
        "other words": "'zebra', which is none of",
    }
    with pytest.raises(UserError, match=said[change]):
        tag_store(store, prompt_set(), out, run_parts=meddling)
    assert out.read_bytes() == b"old"


def test_a_failing_export_leaves_the_old_file(store: FeatureStore, tmp_path: Path, monkeypatch):
    out = tmp_path / "t.parquet"
    out.write_bytes(b"old")
    real = PartsFolder.batches

    def full_disk(self, groups):
        yield next(real(self, groups))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PartsFolder, "batches", full_disk)
    with pytest.raises(UserError, match=r"t\.parquet: the disk is full"):
        tag_store(store, prompt_set(), out)
    assert out.read_bytes() == b"old"
    monkeypatch.setattr(PartsFolder, "batches", real)
    assert tag_store(store, prompt_set(), out).resumed_items == 5


def test_an_empty_store_gives_an_empty_table(tmp_path: Path):
    spec = StoreSpec("images", "space", "recipe", DIM, PATCHES)
    report = tag_store(FeatureStore.create(tmp_path / "s", spec), prompt_set(), tmp_path / "t.parquet")
    assert (report.items, report.tags) == (0, 0)
    assert pq.read_table(tmp_path / "t.parquet").num_rows == 0


def test_bad_requests_are_refused_before_anything_is_written(store: FeatureStore, tmp_path: Path):
    with pytest.raises(UserError, match=r"'space'.*'other'"):
        tag_store(store, prompt_set("other"), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"ending '\.xlsx'"):
        tag_store(store, prompt_set(), tmp_path / "t.xlsx")
    with pytest.raises(UserError, match="1 or more"):
        Selection(top_k=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a part of the path is a file"):
        tag_store(store, prompt_set(), tmp_path / "file" / "t.parquet")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(UserError, match="it is a folder"):
        tag_store(store, prompt_set(), tmp_path / "folder.parquet")
    with pytest.raises(UserError, match=r"--out is the address 's3://bucket/t\.parquet'"):
        tag_store(store, prompt_set(), "s3://bucket/t.parquet")
    assert not list(tmp_path.glob("t.*"))


def test_coarse_only_stores_are_tagged_by_the_coarse_score(tmp_path: Path):
    store = FeatureStore.create(tmp_path / "s", StoreSpec("images", "space", "r", DIM, 0, row_dtype="float32"))
    coarse = unit(1, DIM, seed=1)
    write_group(
        store, 0, [StoredItem("x")], [FeatureBatch(("x",), coarse, torch.zeros(0, DIM), torch.tensor([0, 0]), "space")]
    )
    tag_store(store, prompt_set(), tmp_path / "t.jsonl")
    file = read_tag_file(tmp_path / "t.jsonl")
    expected = 4 * coarse @ prompt_set().global_vectors.T
    assert torch.allclose(file.scores.scores, expected, atol=1e-5)


def test_a_batch_in_memory(store: FeatureStore):
    batch = store.read_group(0)
    tags = tag_batch(batch, prompt_set(), selection=Selection(top_k=1))
    table = tag_table(tags).to_pylist()
    assert [row["id"] for row in table] == ["0", "2", "3"]
    best = score(batch, prompt_set()).scores.max(dim=1)
    assert [row["tag"] for row in table] == ["abc"[i] for i in best.indices]
    assert [row["score"] for row in table] == pytest.approx(best.values.tolist())


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_tag_file_comes_back_as_scores(store: FeatureStore, tmp_path: Path, suffix: str):
    path = tmp_path / f"t.{suffix}"
    tag_store(store, prompt_set(), path)
    file = read_tag_file(path)
    assert file.is_complete
    assert file.scores.ids == ("0", "2", "3", "8", "9")
    assert file.scores.class_names == ("a", "b", "c")
    expected = torch.tensor([[expected_scores(store)[i, t] for t in "abc"] for i in file.scores.ids])
    assert torch.allclose(file.scores.scores, expected, atol=1e-5)
    tag_store(store, prompt_set(), path, selection=Selection(top_k=1))
    partial = read_tag_file(path)
    assert not partial.is_complete
    assert torch.isfinite(partial.scores.scores).sum(dim=1).tolist() == [1] * 5


def test_what_is_no_tag_file_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="no file of tags"):
        read_tag_file(tmp_path / "absent.parquet")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    (tmp_path / "x.jsonl").write_text("{}\n")
    for name in ("x.parquet", "x.jsonl"):
        with pytest.raises(UserError, match="not a whole file of tags"):
            read_tag_file(tmp_path / name)
