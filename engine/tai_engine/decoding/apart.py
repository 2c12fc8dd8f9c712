"""One picture, whole, decoded in a process of its own: a decoder that crashes or hangs takes no command along.

For collections there is `tai_engine.decoding.pool`, whose processes go on and give pictures of one size.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tai_engine.decoding.decode import DecodeOptions, decode_image
from tai_engine.decoding.process import words_of_end
from tai_engine.errors import ItemError

TIMEOUT_SECONDS = 60.0
_SIZE = struct.Struct("<LL")
_DECODED, _FAILED = b"D", b"F"


def decode_apart(
    path: str | os.PathLike[str], options: DecodeOptions | None = None, timeout_seconds: float = TIMEOUT_SECONDS
) -> Image.Image:
    """As `decode_image`, of a file. Memory: three copies of the decoded picture.

    Args:
        path: of the file.
        options: limits and conversions.
        timeout_seconds: decoding that takes longer is ended.

    Raises:
        ItemError: as `decode_image`; and when decoding crashed or took too long.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; from tai_engine.decoding.apart import main; main()"
    request = pickle.dumps((os.fspath(path), options))
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], input=request, capture_output=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise ItemError("timeout", f"decoding took longer than {timeout_seconds:g} s") from None
    except OSError as error:
        raise ItemError("no-memory", f"no process can be started for it ({error.strerror})") from error
    kind, answer = done.stdout[:1], done.stdout[1:]
    if kind == _DECODED and len(answer) >= _SIZE.size:
        return Image.frombytes("RGB", _SIZE.unpack_from(answer), answer[_SIZE.size :])
    if kind == _FAILED:
        reason, _, detail = answer.decode("utf-8", "replace").partition(": ")
        raise ItemError(reason, detail)
    raise ItemError("crashed", f"the process died while decoding ({words_of_end(done.returncode)})")


def main() -> None:
    """In that process: answer the request on stdin."""
    path, options = pickle.load(sys.stdin.buffer)
    try:
        image = decode_image(Path(path), options)
        answer = _DECODED + _SIZE.pack(*image.size) + image.tobytes()
    except ItemError as error:
        answer = _FAILED + str(error).encode("utf-8", "backslashreplace")
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
