"""How soon a review's page shows its first pictures, and what memory its server takes.

    python -m tai_benchmarks.review_page --pictures 100000

Drawn pictures of 320 x 240 pixels and five tags each; a real Chromium (the program named by TAI_CHROMIUM, or chromium)
and the package playwright are needed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from tai_benchmarks.review_kills import RunningReview
from tai_engine.tagging import exporters
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA
from tai_engine.vocabulary import load_vocabulary

TAGS = 5
DRAWINGS = 32
DECISIONS = 20
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


def write_collection(folder: Path, pictures: int) -> Path:
    """Pictures in folders of 1,000, and a file of tags with probabilities; the file's path."""
    random = np.random.default_rng(0)
    files = []
    for _ in range(DRAWINGS):
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((320, 240)).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    for n in range(pictures):
        if n % 1000 == 0:
            (folder / f"{n // 1000:04d}").mkdir()
        (folder / name_of(n)).write_bytes(files[n % DRAWINGS])
    path = folder / "tags.parquet"
    words = load_vocabulary("coco80").names
    exporters.get(path).export(tag_rows(pictures, words), path, {"class_names": json.dumps(words), "complete": "false"})
    return path


def name_of(number: int) -> str:
    """The id of a picture."""
    return f"{number // 1000:04d}/{number:07d}.jpg"


def tag_rows(pictures: int, words: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """Five tags of every picture, drawn by chance."""
    random = np.random.default_rng(1)
    for start in range(0, pictures, 1000):
        count = min(1000, pictures - start)
        chosen = np.argsort(random.random((count, len(words))), axis=1)[:, :TAGS].reshape(-1)
        chances = random.random(count * TAGS).astype(np.float32)
        ids = np.repeat(np.array([name_of(n) for n in range(start, start + count)], dtype=object), TAGS)
        columns = {"id": ids, "tag": np.array(words, dtype=object)[chosen], "score": chances, "probability": chances}
        nothing = {"threshold": pa.nulls(count * TAGS, pa.float32())}
        yield pa.RecordBatch.from_pydict(columns | nothing, schema=TAG_SCHEMA)


def resident_megabytes(process: int) -> float:
    """Memory of a process that is in use now (Linux)."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Measure, and print a line for each thing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100_000)
    arguments = parser.parse_args()
    program = os.environ.get("TAI_CHROMIUM") or shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        sys.exit("Chromium and the package playwright are needed: apt-get install chromium; pip install playwright.")
    with tempfile.TemporaryDirectory(prefix="tai-review-page-") as name, sync_playwright() as driver:
        folder = Path(name)
        tags = write_collection(folder, arguments.pictures)
        browser = driver.chromium.launch(executable_path=program, args=list(FLAGS))
        begun = time.perf_counter()
        review = RunningReview(tags, folder)
        print(f"command to address: {time.perf_counter() - begun:.2f} s")
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            begun = time.perf_counter()
            page.goto(review.address, wait_until="commit")
            page.locator(".chip").first.wait_for()
            print(f"opened to the grid with its tags: {time.perf_counter() - begun:.2f} s")
            page.locator(".frame.loaded").nth(11).wait_for()
            print(f"opened to 12 thumbnails: {time.perf_counter() - begun:.2f} s")
            page.locator("html[data-ready]").wait_for(state="attached")
            print(f"pictures in the page: {page.locator('.cell').count()} of {arguments.pictures:,}")
            seconds = []
            for place in range(DECISIONS):
                begun = time.perf_counter()
                page.keyboard.press("e")
                page.locator(f'.cell.decided[data-place="{place}"]').wait_for()
                seconds.append(time.perf_counter() - begun)
                page.keyboard.press("ArrowRight")
            print(f"key to decision on the disk and in the page, median: {1000 * statistics.median(seconds):.0f} ms")
            print(f"memory of the server: {resident_megabytes(review.process.pid):.0f} MB")
        finally:
            browser.close()
            review.process.kill()
            review.process.wait()


if __name__ == "__main__":
    main()
