"""How workers are laid out over the machines of a cluster; no Ray is needed for that."""

import pytest

from tai_engine.distributed.ray_cluster import Cluster, plan
from tai_engine.distributed.ray_pool import MAX_TASKS_PER_CALL, _calls, _Register
from tai_engine.distributed.work import Workplace
from tai_engine.errors import UserError


def machine(cpus, gpus=0, alive=True):
    return {"Alive": alive, "Resources": {"CPU": float(cpus), "memory": 1e9} | ({"GPU": float(gpus)} if gpus else {})}


def test_a_worker_for_each_gpu_with_its_share_of_the_processors():
    nodes = [machine(8), machine(32, 4), machine(24, 2), machine(64, 8, alive=False)]
    assert plan(nodes) == Cluster(6, Workplace("cuda", 4), {"num_cpus": 8, "num_gpus": 1})
    assert plan(nodes, workers=3).workers == 3
    assert plan(nodes, workers=9).workers == 6
    assert plan([machine(2, 4)]).resources == {"num_cpus": 1, "num_gpus": 1}


def test_a_worker_for_each_machine_where_there_are_no_gpus():
    nodes = [machine(8), machine(8), machine(0)]
    assert plan(nodes) == Cluster(2, Workplace("cpu", 1), {"num_cpus": 8})
    assert plan(nodes, workers=4) == Cluster(4, Workplace("cpu", 2), {"num_cpus": 4})
    assert plan([machine(2)], workers=2) == Cluster(2, Workplace("cpu", 2), {"num_cpus": 1})
    assert plan([machine(2)], workers=5) == Cluster(2, Workplace("cpu", 2), {"num_cpus": 1})  # more do not fit


def test_a_cluster_without_processors_is_refused():
    with pytest.raises(UserError, match="no processors to give; check it with `ray status`"):
        plan([machine(0)])


def test_calls_are_short_at_first_and_hold_every_task_once():
    calls = list(_calls(range(1000), workers=2))
    assert [task for call in calls for task in call] == list(range(1000))
    assert [len(call) for call in calls[:33]] == [1] * 32 + [2]
    assert max(len(call) for call in calls) == MAX_TASKS_PER_CALL
    assert list(_calls([], workers=2)) == []


def test_the_register_gives_up_after_three_attempts_of_one_call():
    register = _Register(max_idle_starts=100, description=None)
    assert [register.call_starts(7) for _ in range(3)] == ["", "", ""]
    register.fails(7, "MemoryError: no more")
    assert (
        "3 workers ended over the same work (call 7), the last one so: MemoryError: no more;" in register.call_starts(7)
    )
    assert register.call_starts(8) == ""
    register.call_ends(7)
    assert register.call_starts(7) == ""


def test_the_register_gives_up_when_workers_start_for_nothing():
    register = _Register(max_idle_starts=4, description=None)
    assert [register.worker_starts() for _ in range(4)] == [""] * 4
    register.call_ends(1)
    assert [register.worker_starts() for _ in range(4)] == [""] * 4
    assert "No worker stays alive, the last one ended so: lost: its process was killed" in register.worker_starts()


def test_the_register_compares_workers():
    register = _Register(max_idle_starts=4, description=None)
    assert register.worker_is_ready("RN50", "10.0.0.1") == ""
    assert register.worker_is_ready("RN50", "10.0.0.2") == ""
    assert "The worker on 10.0.0.3 makes other features (ViT)" in register.worker_is_ready("ViT", "10.0.0.3")
