"""The second process of a kernel; tests/pipeline/test_kernels.py has the kernels themselves."""

import json
import os

import numpy as np
import pandas as pd
import psutil
import pytest
from executed import execute
from tiny import wait_for

from cxr_helpers.explain import measures
from cxr_helpers.explain.explained import explained_by
from cxr_helpers.models import architectures, training
from cxr_helpers.pipeline import background
from cxr_helpers.pipeline.fork_server import ForkServer
from cxr_helpers.pipeline.notebooks import NotebookFailed
from cxr_helpers.pipeline.store import Store
from cxr_helpers.system import environment

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 40, 40), dtype=np.uint8)
FINISH = "stage.finish()"
# The store holds what its functions return: here the number of the process that they run in.
ASK = "import os\nprocess = stage.begin(os.getpid)()"
forks = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="there is a second process on Linux only"
)


@pytest.fixture(params=[False, True], ids=["new process", "forked"])
def options(request):
    """Options of a notebook whose kernel has a second process."""
    if not request.param:
        yield {"in_background": True}
        return
    with ForkServer() as server:
        yield {"in_background": True, "fork_server": server}


@forks
def test_calls_are_carried_out_in_the_second_process_which_ends_with_the_kernel(tmp_path, options):
    tell = "stage.log(f'{os.getpid()} {process} {stage.begin(os.getppid)()}')"
    _, (line,), _ = execute(tmp_path, ASK, tell, FINISH, **options)
    kernel, second, parent = map(int, line.split())
    assert second != kernel == parent
    wait_for(lambda: not psutil.pid_exists(second), within=20)


@forks
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_small_run_has_a_second_process_where_two_stages_run_at_once(finished, jobs):
    if environment.cores() < 2:
        pytest.skip("one core")
    planted = f"{ASK}\nstage.log(f'other process: {{process != os.getpid()}}')"
    options = ("--only", "02", "--jobs", jobs)
    done = finished.run(*options, planted={"02_binary": planted})
    assert done.code == 0 and f"other process: {jobs == '2'}" in done.text


def test_kernel_without_a_second_process_computes_itself(tmp_path):
    _, (line,), _ = execute(tmp_path, ASK, "stage.log(str(process == os.getpid()))", FINISH)
    assert line == "True"


@forks
def test_second_process_ends_with_a_kernel_that_is_killed_while_it_computes(tmp_path, options):
    place = tmp_path / "second"
    cells = (
        f"{ASK}\nopen({str(place)!r}, 'w').write(str(process))",
        "import time\nstage.begin(time.sleep, 1000)\nos.kill(os.getpid(), 9)",
    )
    with pytest.raises(NotebookFailed, match="its kernel died"):
        execute(tmp_path, *cells, **options)
    wait_for(lambda: not psutil.pid_exists(int(place.read_text())), within=20)


@forks
def test_error_of_a_call_is_that_of_the_notebook(tmp_path, options):
    cell = "import json\nlater = stage.begin(json.loads, '{')\nother = stage.begin(len, 'ab')"
    with pytest.raises(NotebookFailed, match="JSONDecodeError"):
        execute(tmp_path, cell, "assert other() == 2", "later()", **options)
    log = (tmp_path / "run" / "notebooks" / "01_data.log").read_text()
    assert "JSONDecodeError" in log


@forks
def test_large_call_is_sent_while_another_one_is_carried_out(tmp_path, options):
    """A pipe holds only a part of it."""
    cells = (
        "import time, numpy as np\nslow = stage.begin(time.sleep, 1000)",
        "begun = stage.begin(np.sum, np.ones(10**6))",
        "stage.log('both sent')",
    )
    _, lines, _ = execute(tmp_path, *cells, FINISH, timeout=30, **options)
    assert lines == ["both sent"]


class Here(background.Background):
    """Carries out calls in this process, at once, as the second process does."""

    def __init__(self):
        self.calls = 0
        super().__init__(self)

    def send_bytes(self, call):
        background._carry_out(call)
        self.calls += 1

    def recv_bytes(self):
        return str(self.calls).encode()


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(background, "process", Here())
    return background.process


def networks():
    yield architectures.binary_cnn(40), "conv4"
    yield architectures.categorical_cnn(40, classes=3), "conv4"
    ours = architectures.residual_cnn(40, widths=[8, 16], classes=3)
    yield ours, architectures.last_block(ours)


@pytest.mark.parametrize(("network", "layer"), list(networks()))
def test_network_that_is_sent_predicts_and_is_explained_alike(network, layer):
    message = background.ForkingPickler.dumps(background.sent(network))
    other = background.received(background.ForkingPickler.loads(message))
    assert other is not network
    assert np.array_equal(training.predict(other, IMAGES), training.predict(network, IMAGES))
    prepared = explained_by(network, layer).prepare(IMAGES)
    pairs = zip(
        explained_by(network, layer).features(prepared),
        explained_by(other, layer).features(prepared),
        strict=True,
    )
    for own, rebuilt in pairs:
        assert all(np.array_equal(a, b) for a, b in zip(own, rebuilt, strict=True))
    (similarity, _), (of_other, _) = (
        measures.dependence(each, IMAGES, feature_map=layer, patch_share=0.5, seed=0, draws=1)
        for each in (network, other)
    )
    pd.testing.assert_frame_equal(similarity, of_other, check_exact=True)


def trained(size, *, checkpoint=None):
    """Train for an epoch, as the functions do whose trainings resume."""
    network = architectures.binary_cnn(size)
    network.compile("adam", "binary_crossentropy")
    options = {"epochs": 1, "batch_size": 4, "seed": 0, "checkpoint": checkpoint}
    return training.fit(network, IMAGES, np.ones((4, 1)), **options)


def test_trainings_within_a_call_are_kept_and_recorded(here, tmp_path):
    record = tmp_path / "record"
    later = Store(tmp_path / "store", record=record).begin(trained, 40)
    kept = {path.stem for path in (tmp_path / "store").glob("*.npz")}
    assert len(kept) == 2 and set(record.read_text().split()) == kept
    assert list(later()["epoch"]) == [1]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"jobs": 1}, False),
        ({"cores": 1}, False),
        ({"threads": 2}, False),
        ({"platform": "darwin"}, False),
        ({"gpu": "a card"}, False),
    ],
)
def test_second_process_is_wanted_where_a_core_is_idle(change, expected, monkeypatch):
    case = {"jobs": 2, "cores": 2, "threads": 1, "platform": "linux", "gpu": None} | change
    monkeypatch.setattr(background.environment, "cores", lambda: case["cores"])
    monkeypatch.setattr(background.environment, "threads", lambda: case["threads"])
    monkeypatch.setattr(background.sys, "platform", case["platform"])
    monkeypatch.setattr(background.accelerators, "gpu", lambda: case["gpu"])
    assert background.is_wanted(jobs=case["jobs"]) == expected


def test_result_of_a_network_is_computed_once(here, tmp_path):
    network = architectures.binary_cnn(40)
    results = Store(tmp_path)
    later = results.begin(training.predict, network, IMAGES)
    assert here.calls == 1 and len(list(tmp_path.glob("*.npz"))) == 1
    (stored,) = tmp_path.glob("*.npz")
    written = stored.stat().st_mtime_ns
    assert np.array_equal(later(), training.predict(network, IMAGES))
    assert stored.stat().st_mtime_ns == written and list(tmp_path.glob("*.npz")) == [stored]


def test_stored_result_is_not_computed_again_unless_that_is_asked_for(here, tmp_path):
    begin = [json.loads, "[1, 2]"]
    assert Store(tmp_path).begin(*begin)() == Store(tmp_path).begin(*begin)() == [1, 2]
    assert here.calls == 1
    assert Store(tmp_path, reuse=False).begin(*begin)() == [1, 2]
    assert here.calls == 2


def test_what_cannot_be_sent_is_computed_in_this_process(here, tmp_path):
    results = Store(tmp_path)
    later = results.begin(map_of, unsendable := Unsendable(2))
    assert here.calls == 0
    assert later() == unsendable.number


def map_of(value):
    return value.number


class Unsendable:
    def __init__(self, number):
        self.number = number

    def get_params(self):
        return {"number": self.number}

    def __reduce__(self):
        raise RuntimeError("it holds an open file")
