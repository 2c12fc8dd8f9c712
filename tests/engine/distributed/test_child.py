"""How tasks reach a child process: files by themselves, and nothing held twice."""

import threading
from multiprocessing import Pipe

from tai_engine.decoding.feed import GroupTask
from tai_engine.distributed.child import receive_task, send_task
from tai_engine.distributed.encode_on_pool import _giving_away
from tai_engine.sources import SourceItem

FILE = bytes(range(256)) * 40_000  # more than a pipe holds
TASK = GroupTask(
    3,
    (
        SourceItem("a", "x.tar", data=FILE),
        SourceItem("b", "x.tar", failure="broken: it"),
        SourceItem("c", "x", data=b""),
    ),
)


def sent(task):
    ours, theirs = Pipe()
    with ours, theirs:
        sending = threading.Thread(target=send_task, args=(ours, task))
        sending.start()
        found = receive_task(theirs)
        sending.join()
        assert not theirs.poll()  # nothing is left over
    return found


def test_tasks_arrive_as_they_were():
    assert sent(TASK) == [TASK]
    assert sent(GroupTask(0, (SourceItem("a", "x"),))) == [GroupTask(0, (SourceItem("a", "x"),))]
    assert sent(7) == [7]
    ours, theirs = Pipe()
    ours.send(None)
    assert receive_task(theirs) is None


def test_files_are_not_pickled():
    ours, theirs = Pipe()
    threading.Thread(target=send_task, args=(ours, TASK)).start()
    assert len(theirs.recv_bytes()) < 1000
    assert theirs.recv_bytes() == FILE
    assert theirs.recv_bytes() == b""


def test_a_worker_holds_of_a_task_what_is_still_to_come():
    task = _giving_away(TASK)
    assert task.group == 3
    first = next(iter(task.items))
    assert first == TASK.items[0]
    assert list(task.items.gi_frame.f_locals["left"]) == list(TASK.items[1:])
    assert "items" not in task.items.gi_frame.f_locals
    assert [item.id for item in task.items] == ["b", "c"]
