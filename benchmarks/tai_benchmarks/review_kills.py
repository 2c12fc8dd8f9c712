"""A review whose server is killed while it writes decisions, again and again; nothing that it answered may be lost.

    python -m tai_benchmarks.review_kills --kills 20

A server of `tai review` is started on drawn pictures, decisions are sent one after the other, and at a moment drawn by
chance it gets SIGKILL. Then its journal must open, hold every decision that was answered, and at most one more.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

import pyarrow as pa
from PIL import Image

from tai_engine.review.journal import read_journal
from tai_engine.tagging import exporters
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA

PICTURES = 200
LONGEST_SECONDS = 0.6
START = "from tai_engine.cli.main import main; main()"


def write_collection(folder: Path, pictures: int) -> Path:
    """Small pictures of one colour each, and a file of one tag each; the file's path."""
    names = [f"{n:06d}.jpg" for n in range(pictures)]
    for n, name in enumerate(names):
        Image.new("RGB", (8, 8), (n % 256, n // 256 % 256, 0)).save(folder / name)
    numbers = {"score": 1.0, "probability": 0.5, "threshold": None}
    table = pa.Table.from_pylist([{"id": name, "tag": "thing", **numbers} for name in names], schema=TAG_SCHEMA)
    path = folder / "tags.parquet"
    exporters.get(path).export(table.to_batches(), path, {"class_names": '["thing"]', "complete": "false"})
    return path


class RunningReview:
    """A server of `tai review` and a browser's cookie for it."""

    def __init__(self, tags: Path, images: Path) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-c", START, "review", tags, "--images", images, "--port", "0", "--json"]
        command += ["--thumbnail-cache", images / "thumbnails"]
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = json.loads(self.process.stdout.readline())["address"]
        self._base = self.address.partition("/?")[0]
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        self._opener.open(self.address).close()

    def decide(self, picture: int, verb: str) -> int:
        """One decision; the revision that it got. Raises what `urllib` raises when the server is gone."""
        body = json.dumps({"changes": [{"pictures": [picture], verb: ["thing"]}]}).encode()
        headers = {"Content-Type": "application/json", "Origin": self._base}
        request = urllib.request.Request(f"{self._base}/data/decide", body, headers)
        with self._opener.open(request) as answer:
            return int(json.load(answer)["revision"])


def main() -> None:
    """Kill, look, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    answered = torn = unanswered = 0
    with tempfile.TemporaryDirectory(prefix="tai-review-kills-") as name:
        folder = Path(name)
        tags = write_collection(folder, PICTURES)
        journal = tags.with_name(tags.name + ".decisions.jsonl")
        for _ in range(arguments.kills):
            review = RunningReview(tags, folder)
            threading.Timer(chance.uniform(0, LONGEST_SECONDS), review.process.kill).start()
            try:
                while True:
                    verb = chance.choice(("accept", "reject"))
                    answered = review.decide(chance.randrange(PICTURES), verb)
            except (urllib.error.URLError, HTTPException, OSError, ValueError):
                review.process.wait()
            content = read_journal(journal)
            revision = content.decisions.revision
            if not answered <= revision <= answered + 1:
                raise SystemExit(f"revision {revision} is in the journal, but {answered} was answered")
            unanswered += revision - answered
            torn += content.cut_bytes > 0
            answered = revision
        size = journal.stat().st_size
    print(
        f"{arguments.kills} kills, {answered:,} decisions: every answered one is in the journal ({size:,} bytes); "
        f"{unanswered} were written and not answered, {torn} lines were cut short"
    )


if __name__ == "__main__":
    main()
