import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import outside_programs
from golden_set import write_golden_model

# What one test keeps, another one must not find.
os.environ["TAI_KEEP_VECTORS"] = "0"


@pytest.fixture(scope="session")
def golden_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The golden model's ``local-dir:`` name."""
    return write_golden_model(tmp_path_factory.mktemp("golden-model"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Outside data, which is never part of the project."""
    folder = os.environ.get("TAI_DATA")
    if not folder:
        pytest.skip("needs outside data: set TAI_DATA to its folder")
    return Path(folder)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Another test finds torch's number of threads as this one did."""
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--skip-uninstalled",
        action="store_true",
        help="Skip test files that need a package that is not installed, instead of failing.",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--skip-uninstalled"):
        config.pluginmanager.register(SkipUninstalled())


class SkipUninstalled:
    """As a plugin of its own, for pytest does not ask this file while it loads a folder's own conftest."""

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[None]:
        report = yield
        if report.failed:
            found = re.search(r"ModuleNotFoundError: No module named '(\w+)", str(report.longrepr))
            if found and find_spec(found[1]) is None:
                report.outcome = "skipped"
                report.longrepr = (str(collector.path), 1, f"Skipped: needs {found[1]}, which is not installed")
        return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says which programs of others tests went without."""
    if line := outside_programs.summary():
        terminalreporter.write_line(line, yellow=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
