"""``--runner``, ``--devices``, ``--processes``: what they mean, and that the work comes out the same."""

import builtins
import importlib.util
import pickle
from pathlib import Path

import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch

from pool_recipes import InlinePool, fake_prompts, store_files
from tai_engine.cli.runners import Workplaces, workplaces
from tai_engine.distributed.processes import ProcessPool
from tai_engine.distributed.ray_pool import RayPool
from tai_engine.distributed.tag_on_pool import MANIFEST
from tai_engine.errors import UserError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """A machine that has three GPUs, or says so."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> list:
    """Pools run here, each with a recipe that was pickled; returns the recipes."""
    recipes = []

    def make_pool(recipe):
        recipes.append(pickle.loads(pickle.dumps(recipe)))
        return InlinePool(recipes[-1])

    monkeypatch.setattr(Workplaces, "make_pool", property(lambda _: make_pool))
    return recipes


def local(devices="", processes=0, device="auto", **options) -> Workplaces:
    return workplaces("local", devices, processes, "", device, **options)


@pytest.mark.usefixtures("gpus")
def test_all_gpus_are_taken_unless_one_is_named():
    assert local().devices == ("cuda:0", "cuda:1", "cuda:2")
    assert local().are_elsewhere
    assert local(all_gpus=False) == Workplaces("local", "auto")
    assert not local(device="cuda:1").are_elsewhere
    assert local(device="cuda:1").device == "cuda:1"
    assert local(device="cpu").devices == ()
    assert local("cuda:2, cuda:0").devices == ("cuda:2", "cuda:0")
    assert local("cuda:2") == Workplaces("local", "cuda:2", ("cuda:2",))
    assert not local("cuda:2").are_elsewhere
    assert local(processes=4).devices == ("cuda:0", "cuda:1", "cuda:2", "cuda:0")
    assert local("cuda:1", processes=2).devices == ("cuda:1", "cuda:1")
    assert local(device="cpu", processes=2).devices == ("cpu", "cpu")
    with pytest.raises(UserError, match="There is no 'cuda:3': this machine has 3"):
        local("cuda:0,cuda:3")


def test_a_machine_without_gpus_works_here(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert local() == local(processes=1) == Workplaces("local", "auto")
    assert local(processes=2).devices == ("cpu", "cpu")
    with pytest.raises(UserError, match="sees no CUDA GPU"):
        local("cuda:0")


def test_pools_are_made_as_the_options_say():
    pool = Workplaces("local", "cpu", ("cpu", "cpu")).make_pool
    assert (pool.func, pool.keywords) == (ProcessPool, {"devices": ("cpu", "cpu")})
    pool = Workplaces("ray", "auto", (), 3, "head:6379").make_pool
    assert (pool.func, pool.keywords) == (RayPool, {"address": "head:6379", "workers": 3})
    assert Workplaces("ray").make_pool.keywords == {"address": None, "workers": 0}


def test_options_that_do_not_go_together(tai, picture_folder: Path, tmp_path: Path):
    for options, sentence in (
        (("--runner", "rai"), "Unknown runner 'rai'; did you mean 'ray'?"),
        (("--ray-address", "auto"), "--ray-address says which Ray cluster is meant: add --runner ray"),
        (("--devices", ","), "--devices is ','; name one or more"),
        (("--devices", "gpu0"), "Unknown device 'gpu0'"),
    ):
        outcome = tai("cache", "images", picture_folder, tmp_path / "store", *options)
        assert outcome.status == 2
        assert sentence in outcome.stderr
    assert not (tmp_path / "store").exists()


def test_ray_takes_no_devices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(UserError, match="Ray gives each worker a GPU of its own: leave --devices out"):
        workplaces("ray", "cuda:0", 0, "", "auto")
    assert workplaces("ray", "", 2, "auto", "auto") == Workplaces("ray", "auto", (), 2, "auto")


def test_without_ray_one_sentence_says_how_to_get_it(
    tai, filled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    find, imported = importlib.util.find_spec, builtins.__import__

    def no_ray(name, *rest):
        if name == "ray":
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    monkeypatch.setattr(builtins, "__import__", no_ray)
    for command in (("cache", "images", tmp_path, tmp_path / "s"), ("tag", filled_store, "--out", tmp_path / "tags")):
        outcome = tai(*command, "--runner", "ray")
        assert outcome.status == 2
        assert "pip install 'tai-engine[ray]'" in outcome.stderr


def test_a_store_is_filled_elsewhere_as_it_is_here(
    tai, inline, picture_folder: Path, filled_store: Path, tiny_model: str, tmp_path: Path
):
    store = tmp_path / "there.zarr"
    outcome = tai(
        "cache", "images", picture_folder, store, "--model", tiny_model, "--processes", 2, "--device", "cpu", "--json"
    )  # fmt: skip
    assert outcome.status == 1  # three pictures are broken
    assert {name: outcome.json()[0][name] for name in ("done", "failed", "new")} == {"done": 5, "failed": 3, "new": 8}
    assert store_files(store) == store_files(filled_store)
    assert len(inline) == 1
    assert inline[0].store == str(store)
    assert Path(inline[0].open_encoder.keywords["model"].removeprefix("local-dir:")).is_absolute()


def test_a_store_is_tagged_elsewhere_as_it_is_here(tai, inline, filled_store: Path, tmp_path: Path):
    from tai_engine.store import FeatureStore

    opened = FeatureStore.open(filled_store)
    vectors = torch.nn.functional.normalize(torch.randn(3, opened.spec.dim), dim=1)
    one = fake_prompts()
    prompts = type(one)(one.class_names, vectors, vectors, opened.spec.space_key, 100.0)
    prompts.save(tmp_path / "p.safetensors")

    def tag(out, *options):
        return tai("tag", filled_store, "--prompts", tmp_path / "p.safetensors", "--out", out, "--json", *options)

    assert tag(tmp_path / "here.parquet").json()[0]["tags"] == 15
    assert tag(tmp_path / "there.parquet", "--processes", 2, "--device", "cpu").json()[0]["tags"] == 15
    here = pq.read_table(tmp_path / "here.parquet")
    assert pq.read_table(tmp_path / "there.parquet").equals(here)
    assert len(inline) == 1
    pytest.importorskip("ray", reason="needs the extra ray")
    assert tag(tmp_path / "folder", "--runner", "ray").json()[0]["tags"] == 15
    assert pyarrow.dataset.dataset(tmp_path / "folder").to_table().equals(here)
    assert (tmp_path / "folder" / MANIFEST).exists()
    for out, options in ((tmp_path / "a.jsonl", ()), (tmp_path / "b", ("--format", "jsonl"))):
        outcome = tag(out, "--runner", "ray", *options)
        assert outcome.status == 2
        assert "name a folder, such as --out tags" in outcome.stderr
