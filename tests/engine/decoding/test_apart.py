"""A picture in a process of its own; decoders that crash and hang are played by a package of JPEG XL that does so."""

import os

import numpy as np
import pytest
from PIL import Image

from tai_engine.decoding.apart import decode_apart
from tai_engine.decoding.decode import DecodeOptions, decode_image
from tai_engine.errors import ItemError

JXL = b"\xff\x0a" + bytes(60)


def test_the_picture_is_that_of_a_call_here(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 9, 4), dtype=np.uint8), "RGBA").save(path)
    options = DecodeOptions(alpha="black")
    found = decode_apart(path, options)
    assert (found.mode, found.size) == ("RGB", (9, 5))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(decode_image(path, options)))


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty"), (b"no picture", "unknown-format"), (None, "missing")])
def test_reasons_come_through(tmp_path, content, reason):
    path = tmp_path / "a: b.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ItemError) as caught:
        decode_image(path)
    with pytest.raises(ItemError) as apart:
        decode_apart(os.fspath(path))
    assert (apart.value.reason, apart.value.detail) == (reason, caught.value.detail)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"^crashed: .*\(SIGSEGV\)$"),
        ("import os; os._exit(3)", r"^crashed: .*\(exit status 3\)$"),
        ("import ctypes; ctypes.PyDLL(None).sleep(1000)", r"^timeout: decoding took longer than 1\.5 s$"),
    ],
)
def test_decoders_that_crash_or_hang(tmp_path, monkeypatch, code, words):
    (tmp_path / "pillow_jxl.py").write_text(code)
    (tmp_path / "a.jxl").write_bytes(JXL)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ItemError, match=words):
        decode_apart(tmp_path / "a.jxl", timeout_seconds=1.5 if "sleep" in code else 60)
