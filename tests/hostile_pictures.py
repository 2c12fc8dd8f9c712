"""A reader whose pictures do what real ones do at their worst; it can be imported by processes that decode."""

import io
import os
import signal
import sys
import time
from dataclasses import dataclass

from PIL import Image

from tai_engine.sources import SourceItem

CALM_SECONDS = 0.02


def picture(number):
    """PNG bytes; the colour says which one it is."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(file, "PNG")
    return file.getvalue()


def item(number, what="picture"):
    return SourceItem(f"{number}", what, data=picture(number))


@dataclass(frozen=True)
class HostileReader:
    """What an item's location says is what happens when it is read."""

    def __call__(self, one):
        if one.location == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif one.location == "exits":
            os._exit(3)
        elif one.location == "hangs":
            time.sleep(600)
        elif one.location == "slow":
            time.sleep(CALM_SECONDS)
        elif one.location.startswith("says"):
            line = f"lib: {one.id} is  odd\n"
            os.write(2, (line + line + "\x1b[31mred\n").encode())
            if one.location.endswith("dies"):
                os.abort()
            if one.location.endswith("fails"):
                raise ValueError("no such luck")
        elif one.location == "raises":
            raise ValueError("no such luck")
        elif one.location == "modules":
            raise ValueError(
                " ".join(sorted({"torch", "open_clip", "zarr", "transformers"} & set(sys.modules))) or "none"
            )
        elif one.location == "pid":
            raise ValueError(f"{os.getpid()}")
        return one.data
