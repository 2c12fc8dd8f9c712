"""All tests, in two processes beside each other, as two cores allow: what `make test` runs.

    python tests/in_two.py

What the second process prints comes when it is done. The status is that of the half that fails.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

HALF = (
    "tests/benchmarks",
    "tests/engine/annotating",
    "tests/engine/caching",
    "tests/engine/calibration",
    "tests/engine/cli",
    "tests/engine/distributed",
    "tests/engine/review",
)
"""About half of the time; the other process takes whatever is not below these."""


def main() -> int:
    """Run both and give the larger status."""
    pytest = (sys.executable, "-m", "pytest")
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        other = subprocess.Popen([*pytest, *(f"--ignore={path}" for path in HALF)], stdout=said, stderr=said)
        status = subprocess.run([*pytest, *HALF], check=False).returncode
        status = max(status, other.wait())
        said.seek(0)
        for line in said:
            print(line, end="")
    return status


if __name__ == "__main__":
    sys.exit(main())
