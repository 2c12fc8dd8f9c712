"""Nothing here outlives a power cut, so nothing waits for the disk."""

import os

import pytest


@pytest.fixture(autouse=True)
def synced(monkeypatch):
    """No fsync; the list of (inode, size then) that would have been synced, in order."""
    calls = []
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append((os.fstat(fd).st_ino, os.fstat(fd).st_size)))
    return calls
