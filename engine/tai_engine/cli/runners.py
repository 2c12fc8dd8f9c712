"""Where the work is done: in this process, in one for each device, or on the machines of a Ray cluster."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tai_engine.addresses import is_address, local_path
from tai_engine.cli.options import comma_separated, open_encoder
from tai_engine.errors import UserError, unknown_choice

if TYPE_CHECKING:
    from tai_engine.caching.report import CacheOptions, CacheReport, ProgressCallback
    from tai_engine.calibration.calibration import Calibration
    from tai_engine.decoding.decode import DecodeOptions
    from tai_engine.encoders import Encoder
    from tai_engine.prompts.prompt_set import PromptSet
    from tai_engine.sources import Source
    from tai_engine.store import FeatureStore
    from tai_engine.tagging.batch_loop import Progress, TagReport
    from tai_engine.tagging.scoring import ScoringConfig
    from tai_engine.tagging.tag_selection import Selection

RUNNERS = ("local", "ray")

Runner = Annotated[str, typer.Option("--runner", help="local, or ray: the machines of a Ray cluster.")]
Devices = Annotated[
    str, typer.Option("--devices", help="One process for each of these, e.g. cuda:0,cuda:1; default all GPUs.")
]
Processes = Annotated[
    int,
    typer.Option("--processes", min=0, help="So many processes, or workers of Ray; 0 means one per GPU (or machine)."),
]
RayAddress = Annotated[
    str,
    typer.Option("--ray-address", help="Of a running Ray cluster; default the one of this machine, else a new one."),
]


@dataclass(frozen=True)
class Workplaces:
    """Where the work is done.

    Attributes:
        runner: one of `RUNNERS`.
        device: for the work of this process.
        devices: one local process each; fewer than two mean this process.
        workers: of Ray; 0 is automatic.
        ray_address: of the cluster, empty for what is found or started.
    """

    runner: str
    device: str = "auto"
    devices: tuple[str, ...] = ()
    workers: int = 0
    ray_address: str = ""

    @property
    def are_elsewhere(self) -> bool:
        """Whether other processes do the work."""
        return self.runner == "ray" or len(self.devices) > 1

    @property
    def make_pool(self) -> Callable[[Any], Any]:
        """A recipe to the pool of its workers."""
        if self.runner == "ray":
            from tai_engine.distributed.ray_pool import RayPool

            return functools.partial(RayPool, address=self.ray_address or None, workers=self.workers)
        from tai_engine.distributed.processes import ProcessPool

        return functools.partial(ProcessPool, devices=self.devices)


def workplaces(
    runner: str, devices: str, processes: int, ray_address: str, device: str, *, all_gpus: bool = True
) -> Workplaces:
    """What the options mean on this machine.

    Args:
        runner: ``--runner``.
        devices: ``--devices``.
        processes: ``--processes``.
        ray_address: ``--ray-address``.
        device: ``--device``.
        all_gpus: whether ``auto`` takes all GPUs where there are several.

    Raises:
        UserError: for a device that is not there, or options that do not go together.
    """
    if runner not in RUNNERS:
        raise unknown_choice("runner", runner, RUNNERS)
    if runner == "ray":
        from tai_engine.distributed.ray_cluster import require_ray

        if devices:
            raise UserError("Ray gives each worker a GPU of its own: leave --devices out, or take --runner local.")
        require_ray()
        return Workplaces(runner, device, workers=processes, ray_address=ray_address)
    if ray_address:
        raise UserError("--ray-address says which Ray cluster is meant: add --runner ray, or leave it out.")
    named = list(comma_separated(devices))
    if named and device != "auto":
        raise UserError("--devices names all devices: leave --device out, or that.")
    if devices and not named:
        raise UserError(f"--devices is {devices!r}; name one or more, such as cuda:0,cuda:1.")
    chosen = tuple(_local_devices(named, processes, device, all_gpus))
    return Workplaces(runner, chosen[0] if chosen else device, chosen)


def _local_devices(named: list[str], processes: int, device: str, all_gpus: bool) -> list[str]:
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if not named and device == "auto" and len(gpus) > 1 and (all_gpus or processes > 1):
        named = gpus
    if not named and processes > 1:
        named = [device]
    if not named:
        return []
    from tai_engine.encoders.devices import resolve_device  # open_clip takes seconds

    resolved = [str(resolve_device(name)) for name in named]
    count = max(processes, len(resolved))
    return [resolved[index % len(resolved)] for index in range(count)]


def cache_elsewhere(
    places: Workplaces,
    pictures: Source,
    store: str,
    model: str,
    pretrained: str,
    encoder_options: Mapping[str, Any],
    decoding: DecodeOptions,
    options: CacheOptions,
    *,
    progress: ProgressCallback,
) -> CacheReport:
    """Bring a store of pictures up to date with encoders in other processes.

    Args:
        places: where they are.
        pictures: the source; its locations mean the same in other working folders.
        store: path or address.
        model: as `open_encoder`.
        pretrained: as `open_encoder`.
        encoder_options: more for it, but for the device and ``decoding``.
        decoding: how pictures are decoded.
        options: sizes and workers.
        progress: called after each group.
    """
    from tai_engine.distributed.encode_on_pool import EncodeRecipe, cache_on_pool
    from tai_engine.store.places.store_files import open_files

    if model.startswith("local-dir:"):
        model = f"local-dir:{Path(model.removeprefix('local-dir:')).absolute()}"
    recipe = EncodeRecipe(
        functools.partial(
            _open_encoder_on, model=model, pretrained=pretrained, decoding=decoding.recipe, **encoder_options
        ),
        open_files(store).absolute,
        pictures.reader,
        decoding,
        options,
    )
    return cache_on_pool(places.make_pool, recipe, pictures, progress=progress)


def check_tag_output(places: Workplaces, out: str, format: str | None) -> None:  # noqa: A002 - the word that users type
    """Make sure, before any work, that tags can be written to ``out``.

    Raises:
        UserError: for a place that cannot be written or is in use; with Ray for the name of a file or another format.
    """
    from tai_engine.tagging.batch_loop import check_output
    from tai_engine.tagging.exporters import EXPORTERS

    if places.runner != "ray":
        check_output(out, format)
        return
    suffixes = [suffix for exporter in EXPORTERS.values() for suffix in exporter.suffixes]
    if out.lower().endswith(tuple(suffixes)) or format not in (None, "parquet"):
        raise UserError(
            f"With --runner ray tags become a folder of Parquet files, but --out is '{out}'"
            f"{f' and --format {format}' if format else ''}: name a folder, such as --out tags."
        )


def real_place(source: str) -> str:
    """Where a source lies: its address, or the whole path without links, the same for every spelling of it."""
    local = local_path(source) if is_address(source) else source
    return source.rstrip("/") if local is None else os.path.realpath(local)


def place_of(source: str) -> str:
    """What a store calls a source: where it lies, as text that any file can hold."""
    return os.fsencode(real_place(source)).decode("utf-8", "backslashreplace")


def tag_elsewhere(
    places: Workplaces,
    store: FeatureStore,
    prompts: PromptSet,
    out: str,
    scoring: ScoringConfig,
    selection: Selection,
    calibration: Calibration | None,
    *,
    format: str | None,  # noqa: A002 - the word that users type
    progress: Progress,
) -> TagReport:
    """Tag a store in other processes: into one file with local ones, into a folder of Parquet files with Ray's."""
    from tai_engine.distributed.tag_on_pool import run_on_pool, tag_to_folder
    from tai_engine.tagging.batch_loop import tag_store

    if places.runner == "ray":
        return tag_to_folder(store, prompts, out, places.make_pool, scoring, selection, calibration, progress=progress)
    run_parts = functools.partial(run_on_pool, places.make_pool)
    return tag_store(
        store,
        prompts,
        out,
        scoring,
        selection,
        calibration=calibration,
        format=format,
        progress=progress,
        run_parts=run_parts,
    )


def _open_encoder_on(device: str, *, model: str, pretrained: str, **options: Any) -> Encoder:
    return open_encoder(model, pretrained, device=device, **options)
