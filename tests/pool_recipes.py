"""Recipes whose workers square numbers, and die or complain over chosen ones; and an encoder for those that encode."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from tai_engine.distributed.work import Workplace
from tai_engine.errors import UserError


@dataclass(frozen=True)
class Squares:
    """Where its folder has a file ``die-7``, number 7 kills the process; ``once-7`` is the same and goes with it."""

    folder: Path
    describes_device: bool = False

    def start(self, place):
        (self.folder / f"started-{os.getpid()}").touch()
        if (self.folder / f"cannot-start-{place.device}").exists():
            os._exit(9)
        return SquareWorker(self, place)


class SquareWorker:
    def __init__(self, recipe, place):
        self.recipe = recipe
        self.place = place

    def describe(self):
        return self.place.device if self.recipe.describes_device else "squares"

    def run(self, tasks):
        for number in tasks:
            folder = self.recipe.folder
            (folder / f"had-{number}-{os.getpid()}").touch()
            if (folder / f"once-{number}").exists():
                (folder / f"once-{number}").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            if (folder / f"die-{number}").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            if (folder / f"raise-{number}").exists():
                (folder / f"raise-{number}").unlink()
                raise RuntimeError(f"no luck with {number}")
            if (folder / f"mistake-{number}").exists():
                raise UserError(f"The number {number} is full; take another.")
            while (folder / f"hang-{number}").exists():
                time.sleep(0.05)
            yield number, number * number, os.getpid(), self.place.device


class HeavyNumber(int):
    """A task that carries eight bytes with it."""

    @property
    def items(self):
        return (SimpleNamespace(data=b"8 bytes."),)


@dataclass(frozen=True)
class Missing:
    """Cannot be started."""

    def start(self, place):
        return open_missing_model(place.device)


class InlinePool:
    """A pool without processes: one worker, here."""

    def __init__(self, recipe, device="cpu"):
        self.worker = recipe.start(Workplace(device))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def describe(self):
        return self.worker.describe()

    def run(self, tasks):
        return self.worker.run(tasks)


def open_fake_encoder(folder, pause, device):
    """Takes ``pause`` seconds a slice, and leaves a note that it was opened."""
    from fake_encoders import FakeEncoder  # torch takes a second, which the workers that square need not spend

    (folder / f"opened-{os.getpid()}-{device}").touch()
    encoder = FakeEncoder(clip=True)
    encoder.provenance["device"] = device
    encode = encoder.encode_pixels

    def slowly(pixels, ids):
        time.sleep(pause)
        return encode(pixels, ids)

    encoder.encode_pixels = slowly
    return encoder


def store_files(store):
    """Chunks and commit records: name -> bytes. Metadata says when it was made; a killed writer leaves odd names."""
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name not in ("zarr.json", ".lock") and path.suffix not in (".partial", ".tmp")
    }


def open_missing_model(device):
    raise UserError("There is no model 'nothing'; take another.")


def fake_prompts(space_key="space:fake"):
    """Three classes in the space of `fake_encoders.FakeEncoder`: red, green and blue."""
    import torch

    from fake_encoders import unit
    from tai_engine.prompts.prompt_set import PromptSet

    vectors = unit(torch.tensor([[9.0, 1, 2, 0], [1, 9, 3, 0], [2, 1, 9, 1]]))
    return PromptSet(("red", "green", "blue"), vectors, vectors, space_key, logit_scale=100.0)
