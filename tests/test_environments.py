"""What make installs: the lock, how far it can be kept, and the oldest versions."""

import tomllib
from pathlib import Path

import pytest

from environments import (
    LOCK,
    ROOT,
    Installation,
    canonical,
    difference,
    install,
    installed_closure,
    installed_version,
    lock_text,
    oldest,
    read_lock,
)

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DEPENDENCIES: list[str] = SETTINGS["project"]["dependencies"]
CAPPED = """\
WARNING: Location 'file:///simple/numpy/' is ignored: it is neither a file nor a directory.
Collecting numpy
ERROR: Cannot install torch>=2.8 because these package versions have conflicting dependencies.
The conflict is caused by:
    The user requested (constraint) torch==2.15.0
    The user requested (constraint) torch<=2.14.1
ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/en/latest/topics/dependency-resolution/
"""


class Registry:
    """Installs, but for the versions that it lacks, of which it says so as pip does."""

    def __init__(self, **lacking: str) -> None:
        self.lacking = lacking
        self.asked: list[dict[str, str]] = []

    def __call__(self, versions):
        self.asked.append(dict(versions))
        for name, text in self.lacking.items():
            if name in versions:
                return Installation(False, text)
        return Installation(True, "")


def test_a_lock_that_can_be_had_is_installed_whole():
    registry = Registry()
    assert install({"torch": "2.15.0", "numpy": "2.4.6"}, registry) == (
        Installation(True, ""),
        {"torch": "2.15.0", "numpy": "2.4.6"},
    )
    assert len(registry.asked) == 1


def test_only_what_pip_complains_of_is_given_up():
    registry = Registry(torch=CAPPED, torchvision="ERROR: No matching distribution found for torchvision==0.30.0")
    lock = {"torch": "2.15.0", "torchvision": "0.30.0", "numpy": "2.4.6", "Vision": "1"}
    result, kept = install(lock, registry)
    assert result.worked
    assert kept == {"numpy": "2.4.6", "Vision": "1"}
    now = {"torch": "2.14.1", "torchvision": "0.29.1", "numpy": "2.4.6"}
    assert difference(lock, kept, now.get) == (
        "Other versions than the tested ones, which cannot be had here: torch 2.14.1 instead of 2.15.0, torchvision "
        "0.29.1 instead of 0.30.0."
    )


def test_a_spelling_of_a_name_is_that_name():
    registry = Registry(**{"open-clip-torch": "  ERROR: Failed building wheel for open_clip_torch"})
    assert install({"open-clip-torch": "3.4"}, registry) == (Installation(True, ""), {})


def test_nothing_is_kept_after_a_complaint_without_names():
    registry = Registry(numpy="ERROR: something else")
    assert install({"numpy": "2.4.6", "zarr": "3.1"}, registry)[1] == {}
    assert registry.asked == [{"numpy": "2.4.6", "zarr": "3.1"}, {}]


def test_what_fails_without_the_lock_too_has_failed():
    calls = []

    def broken(versions):
        calls.append(dict(versions))
        return Installation(False, "ERROR: no network for numpy")

    assert install({"numpy": "2.4.6"}, broken) == (Installation(False, "ERROR: no network for numpy"), {})
    assert calls == [{"numpy": "2.4.6"}, {}]


def test_versions_that_came_out_as_tested_are_not_spoken_of():
    lock = {"torch": "2.15.0", "triton": "3.9.0", "numpy": "2.4.6"}
    assert difference(lock, ["numpy"], {"torch": "2.15.0"}.get) == ""


def test_the_oldest_versions():
    asked = {"a": ["torch>=2.8", "Open_Clip.torch>=3.3"], "b": ["ray[data]>=2.50", "x>=1.5; sys_platform == 'linux'"]}
    assert oldest(asked) == {"torch": "2.8", "open-clip-torch": "3.3", "ray": "2.50", "x": "1.5"}
    for bad in ("numpy", "numpy>=2,<3", "numpy==2"):
        with pytest.raises(ValueError, match="names no oldest version"):
            oldest({"a": [bad]})


def test_every_promise_of_the_project_has_a_floor():
    floors = oldest({"dependencies": DEPENDENCIES, **SETTINGS["project"]["optional-dependencies"]})
    assert len(floors) >= len(DEPENDENCIES)


def test_the_lock_keeps_what_tests_passed_with_and_names_no_place():
    text = LOCK.read_text(encoding="utf-8")
    lock = read_lock(LOCK)
    assert "/" not in text
    assert "@" not in text
    assert "+" not in text
    for_all = {canonical(one.partition(">=")[0].partition("[")[0]) for one in DEPENDENCIES if ";" not in one}
    tools = {canonical(one.partition(">=")[0].partition("[")[0]) for one in SETTINGS["dependency-groups"]["dev"]}
    assert for_all | tools <= lock.keys()
    # torch brings these itself, others on each platform.
    assert not [name for name in lock if name.startswith(("nvidia-", "cuda-")) or name == "triton"]
    assert all(lock.values())


def test_what_is_installed_is_found_with_all_that_it_needs(tmp_path: Path):
    versions = installed_closure(["pytest>=8", "no-such-thing; sys_platform == 'nowhere'"])
    assert versions["pytest"] == pytest.__version__
    assert {"pluggy", "iniconfig"} <= versions.keys()
    assert "no-such-thing" not in versions
    with pytest.raises(SystemExit, match="no-such-thing is needed and not installed"):
        installed_closure(["no-such-thing"])
    written = tmp_path / "constraints.txt"
    written.write_text(lock_text(versions | {"nvidia-cublas": "13", "triton": "3.8.0", "tritonclient": "2"}))
    assert read_lock(written) == versions | {"tritonclient": "2"}
    assert installed_version("no-such-thing") is None
