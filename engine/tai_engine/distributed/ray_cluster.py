"""Joining or starting a Ray cluster, quietly, and what there is in it for workers."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tai_engine.distributed.work import Workplace
from tai_engine.errors import UserError

_SETTINGS = {
    # Nothing is sent to Ray's makers.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    # Its C++ side takes restarts of actors for an error.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # Of a cluster that is started here: 15 by default, but this is the work that its user waits for.
    "RAY_worker_niceness": "0",
}
_LOGGERS = ("ray", "ray.data")


@dataclass(frozen=True)
class Cluster:
    """What a pool is made of.

    Attributes:
        workers: how many.
        place: of each.
        resources: that Ray sets aside for each.
    """

    workers: int
    place: Workplace
    resources: dict[str, float]


def require_ray() -> None:
    """Refuse to go on without Ray.

    Raises:
        UserError: with the command that installs it.
    """
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("pandas") is None:
        raise UserError(
            "Running on Ray needs the package ray, which is not installed: pip install 'tai-engine[ray]', here and on "
            "all machines of the cluster."
        )


@contextlib.contextmanager
def connect(address: str | None = None, workers: int = 0) -> Iterator[Cluster]:
    """Join the cluster at ``address``, or the one that runs here, or start one on this machine for the time.

    Args:
        address: see `tai_engine.distributed.ray_pool.RayPool`.
        workers: see there.

    Raises:
        UserError: if there is no such cluster, or it has no room for a worker.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray
    import ray.data  # sets up loggers

    was_joined = ray.is_initialized()
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    if not was_joined:
        # A dashboard is for those who start a cluster, not for one that lives as long as a command.
        begins = {} if address or os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **begins)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"There is no Ray cluster at {address or 'the address in RAY_ADDRESS'} "
                f"({str(error).strip().splitlines()[0]}); check --ray-address, or start one with `ray start --head`."
            ) from error
    try:
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        with _data_settings():
            yield plan(ray.nodes(), workers)
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if not was_joined:
            ray.shutdown()


def plan(nodes: Sequence[dict[str, Any]], workers: int = 0) -> Cluster:
    """How workers share the machines: a GPU each where there are any, and an equal part of the processors.

    Args:
        nodes: as ``ray.nodes()`` gives them.
        workers: how many are wanted, 0 for as many as there are GPUs, or machines where there are none.

    Raises:
        UserError: if there is no room for a single one.
    """
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    cpus = [int(machine.get("CPU", 0)) for machine in machines]
    gpus = [int(machine.get("GPU", 0)) for machine in machines]
    if not any(cpus):
        raise UserError("The Ray cluster has no processors to give; check it with `ray status`.")
    if any(gpus):
        with_gpus = [(c, g) for c, g in zip(cpus, gpus, strict=True) if g]
        share = max(1, min(c // g for c, g in with_gpus))
        count = min(workers, sum(gpus)) or sum(gpus)
        return Cluster(count, Workplace("cuda", max(gpus)), {"num_cpus": share, "num_gpus": 1})
    most = max(cpus)
    count = workers or sum(c > 0 for c in cpus)
    per_machine = min(most, -(-count // sum(c > 0 for c in cpus)))
    share = most // per_machine
    return Cluster(min(count, sum(c // share for c in cpus)), Workplace("cpu", per_machine), {"num_cpus": share})


@contextlib.contextmanager
def _data_settings() -> Iterator[None]:
    """Ray Data without bars and prints of its own."""
    from ray.data import DataContext

    context = DataContext.get_current()
    before = context.enable_progress_bars
    context.enable_progress_bars = False
    try:
        yield
    finally:
        context.enable_progress_bars = before
