"""What runs in another process or on another machine: a worker, made there from a recipe that can be pickled."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
TaskIn = TypeVar("TaskIn", contravariant=True)
ResultOut = TypeVar("ResultOut", covariant=True)


MAX_ATTEMPTS = 3
"""So many workers may die over a task, or one after the other in one place without a result, until it is given up."""


@dataclass(frozen=True)
class Workplace:
    """Where a worker runs.

    Attributes:
        device: ``"cpu"``, ``"cuda:1"``, ...
        workers: how many workers share the processors of its machine.
    """

    device: str = "cpu"
    workers: int = 1


def died_over(work: str, cause: str) -> str:
    """The sentence that ends a run over whose work `MAX_ATTEMPTS` workers have died, the last one of ``cause``."""
    return (
        f"{MAX_ATTEMPTS} workers ended over the same work ({work}), the last one so: {cause}; use a smaller "
        "--batch-size, fewer --workers or fewer processes, then run the same command again to go on."
    )


class Worker(Protocol[TaskIn, ResultOut]):
    """What a recipe makes; it stays in its process."""

    def describe(self) -> object:
        """What must be the same for all workers of a run, and can be pickled; compared by ``==``."""

    def run(self, tasks: Iterable[TaskIn], /) -> Generator[ResultOut]:
        """One result per task, in the tasks' order; closed if it is not walked through.

        A worker may take a task while an earlier one is under way; it must not wait for the next task before it gives
        the results of those that it has.
        """


class Recipe(Protocol[TaskIn, ResultOut]):
    """Picklable: only what is needed to make the worker travels."""

    def start(self, place: Workplace, /) -> Worker[TaskIn, ResultOut]:
        """Load what is heavy; called once in each process."""
