"""The stable face of the engine."""

import subprocess
import sys

import pytest

import tai_engine
from tai_engine.features import FeatureBatch
from tai_engine.tagging.scoring import score


def test_every_public_name_is_there():
    assert {name for name in tai_engine.__all__ if getattr(tai_engine, name).__name__ != name} == set()
    assert tai_engine.FeatureBatch is FeatureBatch
    assert tai_engine.score is score
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = tai_engine.missing


def test_asking_for_help_loads_nothing_heavy():
    code = "import sys, tai_engine.cli.main; print([m for m in ('torch', 'open_clip', 'zarr') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
