import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pool_recipes
from pool_recipes import HeavyNumber, Squares
from tai_engine.distributed import processes
from tai_engine.distributed.processes import ProcessPool
from tai_engine.distributed.work import MAX_ATTEMPTS
from tai_engine.errors import UserError


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")  # a zombie whose parent has not looked yet is dead
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def started(folder):
    return [int(path.name.partition("-")[2]) for path in folder.glob("started-*")]


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def test_every_task_gets_its_result_and_all_devices_work(tmp_path: Path):
    with ProcessPool(Squares(tmp_path), ["left", "right"]) as pool:
        assert pool.describe() == "squares"
        results = list(pool.run(range(40)))
        again = list(pool.run(range(40, 43)))
    assert sorted((number, square) for number, square, _, _ in results) == [(n, n * n) for n in range(40)]
    assert sorted(square for _, square, _, _ in again) == [1600, 1681, 1764]
    pids = started(tmp_path)
    assert len(set(pids)) == 2
    pairs = {(device, pid) for _, _, pid, device in results}
    assert {pid for _, pid in pairs} <= set(pids)
    assert len({device for device, _ in pairs}) == len(pairs)
    assert not any(map(is_alive, pids))


def test_tasks_are_taken_only_as_fast_as_they_are_done(tmp_path: Path):
    taken = []
    with ProcessPool(Squares(tmp_path), ["cpu"], window=2) as pool:
        ahead = []
        for count, _ in enumerate(pool.run(taken.append(n) or n for n in range(12))):
            ahead.append(len(taken) - count)
    assert max(ahead) <= 3  # two under way, and the one whose result is being looked at
    assert len(taken) == 12


def test_tasks_that_carry_files_are_held_by_their_bytes(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(processes, "MAX_HELD_BYTES", 8)
    taken = []
    with ProcessPool(Squares(tmp_path), ["left", "right"], window=4) as pool:
        ahead, results = [], []
        for count, result in enumerate(pool.run(taken.append(n) or HeavyNumber(n) for n in range(12))):
            ahead.append(len(taken) - count)
            results.append(result[1])
    assert max(ahead) <= 2  # one in each process, though four of each might be
    assert sorted(results) == [n * n for n in range(12)]


def test_no_tasks_are_no_results(tmp_path: Path):
    with ProcessPool(Squares(tmp_path), ["cpu"]) as pool:
        assert list(pool.run([])) == []


@pytest.mark.parametrize("way", ["once", "raise"])
def test_the_tasks_of_a_dead_process_are_given_to_another(tmp_path: Path, way: str):
    (tmp_path / f"{way}-3").touch()
    with ProcessPool(Squares(tmp_path), ["left", "right"]) as pool:
        results = {number: rest for number, *rest in pool.run(range(8))}
    assert {number: square for number, (square, _, _) in results.items()} == {n: n * n for n in range(8)}
    tried = {path.name.rpartition("-")[2] for path in tmp_path.glob("had-3-*")}
    assert len(tried) == 2  # the one that died over it, and the one that did it
    assert str(results[3][1]) in tried
    assert len(started(tmp_path)) == 3


def test_a_task_that_kills_ends_the_run_after_some_attempts(tmp_path: Path):
    (tmp_path / "die-5").touch()
    done = []
    with ProcessPool(Squares(tmp_path), ["cpu"], window=1) as pool:
        results = pool.run(range(8))
        done += [next(results)[0] for _ in range(5)]
        with pytest.raises(UserError, match=r"3 workers ended over the same work \(5\).*SIGKILL.*memory.*run the same"):
            next(results)
    assert done == [0, 1, 2, 3, 4]
    assert len(list(tmp_path.glob("had-5-*"))) == MAX_ATTEMPTS
    assert not any(map(is_alive, started(tmp_path)))


def test_a_mistake_of_the_user_ends_the_run_at_once_with_its_own_words(tmp_path: Path):
    (tmp_path / "mistake-2").touch()
    complaint = pytest.raises(UserError, match=r"^The number 2 is full; take another\.$")
    with ProcessPool(Squares(tmp_path), ["cpu"]) as pool, complaint:
        list(pool.run(range(5)))
    assert len(started(tmp_path)) == 1


def test_a_device_where_no_process_starts_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "cannot-start-broken").touch()
    with ProcessPool(Squares(tmp_path), ["broken", "sound"]) as pool:
        (tmp_path / "hang-0").touch()
        run = pool.run(range(6))
        # The sound one hangs over its first task until the other device has been given up.
        while len(pool._seats) > 1:
            list(pool._events())
        (tmp_path / "hang-0").unlink()
        results = {number: device for number, _, _, device in run}
    assert sorted(results) == list(range(6))
    assert set(results.values()) == {"sound"}
    assert "The device broken is left out: exit status 9" in caplog.text


def test_no_device_left_is_one_clear_error(tmp_path: Path):
    (tmp_path / "cannot-start-broken").touch()
    complaint = pytest.raises(UserError, match=r"^No process stays alive on broken; .*: exit status 9; try one")
    with ProcessPool(Squares(tmp_path), ["broken"]) as pool, complaint:
        pool.describe()
    assert len(started(tmp_path)) == MAX_ATTEMPTS


def test_workers_that_differ_are_refused(tmp_path: Path):
    complaint = pytest.raises(UserError, match="makes other features")
    # Both may be ready at once: then the second is compared while the first is still waited for.
    with ProcessPool(Squares(tmp_path, describes_device=True), ["left", "right"]) as pool, complaint:
        pool.describe()
        list(pool._events())


def test_a_run_that_is_broken_off_leaves_no_process(tmp_path: Path):
    (tmp_path / "hang-1").touch()
    with ProcessPool(Squares(tmp_path), ["cpu"]) as pool:
        for number, *_ in pool.run(range(5)):
            assert number == 0
            break
    assert not any(map(is_alive, started(tmp_path)))


PARENT = """
import sys
from pathlib import Path
from pool_recipes import Squares
from tai_engine.distributed.processes import ProcessPool

if __name__ == "__main__":
    with ProcessPool(Squares(Path(sys.argv[1])), ["cpu", "cpu"]) as pool:
        for number, *_ in pool.run(range(9)):
            print(number, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_its_parent(tmp_path: Path, number: signal.Signals):
    """Ctrl-C, as a terminal sends it to the whole group, and the death of the parent alone."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    for task in range(1, 9):
        (tmp_path / f"hang-{task}").touch()
    environment = os.environ | {"PYTHONPATH": str(Path(pool_recipes.__file__).parent)}
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: len(list(tmp_path.glob("had-[1-8]-*"))) == 2)
        if number == signal.SIGINT:
            os.killpg(parent.pid, number)
        else:
            parent.kill()
        out, errors = parent.communicate(timeout=20)
    finally:
        parent.kill()
    children = started(tmp_path)
    assert len(children) == 2
    wait_until(lambda: not any(map(is_alive, children)))
    assert out == "0\n"
    if number == signal.SIGINT:
        assert parent.returncode in (-signal.SIGINT, 130)
        assert errors.count("KeyboardInterrupt") == 1  # the parent's own, none of the children's
