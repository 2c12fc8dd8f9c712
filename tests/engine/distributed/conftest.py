import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dict_source import png

TESTS = Path(__file__).parent.parent.parent


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """22 pictures of which one is broken: with four to a group, five whole groups and a half one."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(22):
        data = png((n * 11, 255 - n, n * 7 % 256)) if n != 9 else b"no picture"
        (folder / f"{n:02}.png").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A Ray of two processors on this machine, that tells nobody and is gone afterwards."""
    ray = pytest.importorskip("ray", reason="needs the extra ray: pip install 'tai-engine[ray]'")
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_DISABLE_MEMORY_MONITOR": "1",
        "RAY_worker_niceness": "0",  # 15 by default, which on a busy machine is hardly anything
        "PYTHONPATH": str(TESTS),  # for the recipes of the tests
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        # The names of its sockets must stay short.
        with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
            ray.init(
                num_cpus=2,
                num_gpus=0,
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=100 * 2**20,
                _temp_dir=folder,
            )
            try:
                yield
            finally:
                ray.shutdown()
    assert not ray.is_initialized()
    assert os.environ.get("PYTHONPATH") != str(TESTS)
