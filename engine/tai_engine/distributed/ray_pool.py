"""The machines of a Ray cluster: a dataset of tasks mapped over a pool of actors, each with a worker of its own.

Ray Data holds the tasks, gives them to actors, starts actors again that were lost, and gives their tasks again. It
would do so for ever; `_Register` keeps count.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import pickle
import traceback
import zlib
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Self

import pyarrow as pa

from tai_engine.distributed.ray_cluster import Cluster, connect, require_ray
from tai_engine.distributed.work import MAX_ATTEMPTS, Recipe, Result, Task, Worker, Workplace, died_over
from tai_engine.errors import UserError

logger = logging.getLogger(__name__)

MAX_TASKS_PER_CALL = 8
_CALLS_PER_WORKER = 16
"""Calls of one task each that every worker gets before they become longer: small runs are spread evenly."""

_LOST = "lost: its process was killed or its machine went away"


class RayPool(Generic[Task, Result]):
    """Workers on the machines of a Ray cluster, one for each GPU; use it in a ``with`` statement.

    Memory here: two calls' tasks. All tasks of a run lie compressed in Ray's object store, which moves to the disk what
    does not fit.

    Args:
        recipe: makes the workers; it is pickled, and the machines must have what it imports.
        address: of a running cluster as Ray writes it (``auto``, ``host:6379``, ``ray://host:10001``); None joins the
            one that the environment names or that runs on this machine, and else starts one here.
        workers: how many; 0 is one for each GPU of the cluster, or one for each machine where there are none.

    Raises:
        UserError: without the package ray, or if there is no such cluster.
    """

    def __init__(self, recipe: Recipe[Task, Result], *, address: str | None = None, workers: int = 0) -> None:
        require_ray()
        self._recipe = recipe
        self._address = address
        self._workers = workers
        self._open = contextlib.ExitStack()
        self._cluster: Cluster | None = None
        self._description: object = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._cluster = stack.enter_context(connect(self._address, self._workers))
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def describe(self) -> Any:
        """What the workers say of themselves: one is started for it.

        Raises:
            UserError: that it raised, or if Ray cannot start it.
        """
        import ray

        if self._description is None:
            cluster = self._joined()
            remote = ray.remote(max_retries=MAX_ATTEMPTS - 1, **cluster.resources)(_describe)
            with _explained():
                self._description, mistake = ray.get(remote.remote(self._recipe, cluster.place))
            if mistake:
                raise UserError(mistake)
        return self._description

    def run(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """The results of all tasks, in whatever order they are ready; all tasks are taken before the first is begun.

        A task may be carried out twice, if its worker is lost at its very end; its result comes once.

        Raises:
            UserError: that a worker raised, for a task over which three workers were lost, or what Ray says.
        """
        import ray
        import ray.data

        cluster = self._joined()
        with _explained():
            calls = [ray.put(_row(*call)) for call in enumerate(_calls(tasks, cluster.workers))]
            if not calls:
                return
            max_idle_starts = MAX_ATTEMPTS * (cluster.workers + 1)
            register = ray.remote(num_cpus=0)(_Register).remote(max_idle_starts, self._description)
            dataset = ray.data.from_arrow_refs(calls).map_batches(
                _RayWorker,
                fn_constructor_args=(self._recipe, cluster.place, register),
                batch_format="pyarrow",
                batch_size=1,  # a block is one row, which is one call
                compute=ray.data.ActorPoolStrategy(size=min(cluster.workers, len(calls))),
                **cluster.resources,
            )
            for batch in dataset.iter_batches(batch_format="pyarrow", batch_size=None):
                for row in batch.to_pylist():
                    if row["mistake"]:
                        raise UserError(row["mistake"])
                    yield from _unpacked(row["results"])

    def _joined(self) -> Cluster:
        if self._cluster is None:
            raise RuntimeError("a pool is used within a with statement only")
        return self._cluster


class _RayWorker:
    """What an actor of Ray Data runs: one row of packed tasks in, one row of packed results out.

    Trying again does not help against a UserError: it becomes the row. Anything else ends the process, as a crash
    would: the next one begins with a clean GPU.
    """

    def __init__(self, recipe: Recipe[Any, Any], place: Workplace, register: Any) -> None:
        self._register = register
        self._worker: Worker[Any, Any] | None = None
        self._mistake = _ask(register.worker_starts.remote())
        if self._mistake:
            return
        try:
            self._worker = recipe.start(place)
            self._mistake = _ask(register.worker_is_ready.remote(self._worker.describe(), _machine()))
        except UserError as error:
            self._mistake = str(error)
        except Exception:
            self._give_up(None)

    def __call__(self, call: pa.Table) -> pa.Table:
        packed, key = call.column("tasks")[0].as_py(), call.column("number")[0].as_py()
        mistake = self._mistake or _ask(self._register.call_starts.remote(key))
        results: list[Any] = []
        if not mistake and self._worker is not None:
            try:
                results = list(self._worker.run(iter(_unpacked(packed))))
            except UserError as error:
                mistake = str(error)
            except Exception:
                self._give_up(key)
            else:
                _ask(self._register.call_ends.remote(key))
        return pa.table({"mistake": [mistake], "results": pa.array([_pack(results)], pa.large_binary())})

    def _give_up(self, key: int | None) -> None:
        text = traceback.format_exc()
        logger.error("The worker failed:\n%s", text)
        _ask(self._register.fails.remote(key, text.strip().rpartition("\n")[2]))
        os._exit(1)


class _Register:
    """Knows of all workers: what they describe, how often a call was begun, and how often they started for nothing."""

    def __init__(self, max_idle_starts: int, description: object) -> None:
        self._max_idle_starts = max_idle_starts
        self._description = description
        self._idle_starts = 0
        self._begun: dict[int, int] = {}
        self._causes: dict[int | None, str] = {}

    def worker_starts(self) -> str:
        """The sentence that ends the run if workers start again and again; empty if all is well."""
        self._idle_starts += 1
        if self._idle_starts <= self._max_idle_starts:
            return ""
        return (
            f"No worker stays alive, the last one ended so: {self._causes.get(None, _LOST)}; use a smaller "
            "--batch-size or fewer --workers, and look at Ray's logs."
        )

    def worker_is_ready(self, description: object, machine: str) -> str:
        """The sentence that ends the run if the worker differs from the first one; empty if all is well."""
        if self._description is None:
            self._description = description
        if description == self._description:
            return ""
        return (
            f"The worker on {machine} makes other features ({description}) than the first one ({self._description}); "
            "give all machines the same weights and versions."
        )

    def call_starts(self, key: int) -> str:
        """The sentence that ends the run if workers die over one call again and again; empty if all is well."""
        self._begun[key] = self._begun.get(key, 0) + 1
        if self._begun[key] <= MAX_ATTEMPTS:
            return ""
        return died_over(f"call {key}", self._causes.get(key, _LOST))

    def call_ends(self, key: int) -> None:
        """It is done."""
        self._idle_starts = 0
        self._begun.pop(key, None)
        self._causes.pop(key, None)

    def fails(self, key: int | None, cause: str) -> None:
        """A worker will end for this cause; None as the key: while it was starting."""
        self._causes[key] = cause


def _describe(recipe: Recipe[Any, Any], place: Workplace) -> tuple[object, str]:
    try:
        return recipe.start(place).describe(), ""
    except UserError as error:
        return None, str(error)


def _calls(tasks: Iterable[Task], workers: int) -> Iterator[Sequence[Task]]:
    """Tasks that a worker gets at once: single ones at first, then more and more."""
    iterator = iter(tasks)
    for number in itertools.count():
        size = min(MAX_TASKS_PER_CALL, 1 + number // (_CALLS_PER_WORKER * workers))
        call = tuple(itertools.islice(iterator, size))
        if not call:
            return
        yield call


def _row(number: int, call: Sequence[Any]) -> pa.Table:
    return pa.table({"number": [number], "tasks": pa.array([_pack(call)], pa.large_binary())})


def _pack(values: Sequence[Any]) -> bytes:
    return zlib.compress(pickle.dumps(values), level=1)


def _unpacked(data: bytes) -> Any:
    return pickle.loads(zlib.decompress(data))  # by our own workers, of this run


def _ask(reference: Any) -> Any:
    import ray

    return ray.get(reference)


def _machine() -> str:
    import ray

    address: str = ray.util.get_node_ip_address()
    return address


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What Ray raises, in a sentence."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(
            f"Ray gave up: {type(error).__name__}: {lines[-1] if lines else 'no reason given'}; look at the state of "
            "the cluster (`ray status`) and its logs, then run the same command again to go on."
        ) from error
