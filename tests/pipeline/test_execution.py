"""Runs whose images are unusable; tests/test_workers.py runs tasks on workers."""

from argparse import Namespace
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from cxr_helpers.pipeline import execution
from cxr_helpers.pipeline.grid import Variant
from cxr_helpers.system.errors import DataError, Refused


def command(*sources, usable=(), without_report=()):
    """Return a command with a run for each source, and the list of those that were finished."""
    settings = dict.fromkeys(("threads", "workers", "cluster", "tls", "plain_tcp"))
    options = Namespace(**settings, dry_run=True)
    finished = []

    @contextmanager
    def prepare(variant):
        if variant.options.data not in usable:
            raise DataError("no images")
        yield Namespace(
            name=variant.options.data,
            variant=variant,
            options=options,
            **dict.fromkeys(("fingerprint", "seconds", "run", "values", "chosen")),
            other_seeds=[],
            tasks=lambda **_: [],
            failure=lambda outcomes: None,
            log=lambda outcomes: ([], []),
        )

    def finish(plan, log, stale):
        if plan.name in without_report:
            raise Refused(4, "no report")
        finished.append(plan.name)
        return True

    variants = [Variant(Namespace(data=data), {"epochs": "3"}, "-epochs-3") for data in sources]
    return execution.Command(options, variants, prepare, finish, Path()), finished


@pytest.fixture(params=["here", "on_workers"])
def execute(request, monkeypatch):
    """Execute a command, one run after another or on workers, without running any notebook."""
    client = Namespace(nthreads=lambda: {"worker": 1})
    for module, name, value in (
        (execution.cluster, "connected", nullcontext(client)),
        (execution.cluster, "dashboard", None),
        (execution.cluster, "share_of_threads", 1),
        (execution.cluster, "run", {}),
        (execution.environment, "thread_limits", {}),
        (execution.runner, "update", ([], [])),
        (execution, "Forecast", None),
    ):
        monkeypatch.setattr(module, name, lambda *_, value=value, **__: value)
    return getattr(execution, request.param)


def test_unusable_images_of_one_run_do_not_end_the_others(execute, capsys):
    whole, finished = command("a", "b", "c", usable=("b",))
    complete, failures = execute(whole)
    assert finished == [plan.name for plan in complete] == ["b"]
    assert [failure.code for failure in failures] == [3, 3]
    assert [str(failure) for failure in failures] == [f"{d} epochs=3: no images" for d in "ac"]
    assert "failed: c epochs=3: no images" in capsys.readouterr().err


def test_report_that_fails_does_not_end_the_others(execute):
    whole, finished = command("a", "b", "c", usable="abc", without_report="a")
    complete, failures = execute(whole)
    assert finished == [plan.name for plan in complete] == ["b", "c"]
    assert [str(failure) for failure in failures] == ["a epochs=3: no report"]


def test_runs_that_are_all_unusable_are_failures(execute):
    whole, finished = command("a", "b")
    complete, failures = execute(whole)
    assert complete == finished == [] and len(failures) == 2


def test_unusable_images_of_the_only_run_are_its_error(execute):
    whole, _ = command("a")
    with pytest.raises(DataError, match="no images"):
        execute(whole)
