"""What is done with the answers of workers and schedulers; whole runs on workers are in test_workers."""

import socket
from types import SimpleNamespace

import pytest

from cxr_helpers.pipeline import cluster
from cxr_helpers.pipeline.tasks import FAILED
from cxr_helpers.system.errors import Refused

pytest.importorskip("distributed", reason="Dask is not installed")


class Client:
    """Workers by address, each with its place and its number of tasks at once."""

    def __init__(self, workers):
        self.workers = workers

    def wait_for_workers(self, n):
        assert len(self.workers) >= n

    def run(self, function):
        assert function is cluster._place
        return {address: place for address, (place, _) in self.workers.items()}

    def nthreads(self):
        return {address: slots for address, (_, slots) in self.workers.items()}


HOST = ("a", 8, "[0, 1, 2, 3, 4, 5, 6, 7]")


@pytest.mark.parametrize(
    ("workers", "threads"),
    [
        ({"1": (HOST, 1)}, 8),
        ({"1": (HOST, 1), "2": (HOST, 1)}, 4),
        ({"1": (HOST, 4)}, 2),
        ({"1": (HOST, 1), "2": (("b", 4, "[0]"), 2)}, 2),  # the smallest share of two machines
        ({"1": (("a", 2, "[0, 1]"), 1), "2": (("a", 2, "[2, 3]"), 1)}, 2),  # of other cores
        ({str(n): (("a", 2, "[0, 1]"), 1) for n in range(5)}, 1),
    ],
)
def test_tasks_of_a_machine_share_its_cores(workers, threads):
    assert cluster.share_of_threads(Client(workers)) == threads


class KilledWorker(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KilledWorker("task x"), "each of its workers was killed, probably for lack of memory"),
        (
            ImportError("No module named 'cxr_helpers'\nmore"),
            "a worker could not begin the task: ImportError: No module named 'cxr_helpers'",
        ),
    ],
)
def test_task_that_dask_gave_up_has_failed(error, text):
    future = SimpleNamespace(status="error", exception=lambda: error)
    outcome = cluster._outcome(future)
    assert outcome.code == FAILED and outcome.message == text


def test_task_that_the_scheduler_lost_ends_the_command():
    with pytest.raises(Refused, match="the scheduler has lost the tasks") as found:
        cluster._outcome(SimpleNamespace(status="lost"))
    assert found.value.code == 6


def test_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT", 1)
    with socket.socket() as free:  # bound, and nobody listens
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        with (
            pytest.raises(Refused, match=f"no scheduler answers at {address}") as found,
            cluster.connected(workers=None, cluster=address, plain_tcp=True),
        ):
            pass
    assert found.value.code == 6
