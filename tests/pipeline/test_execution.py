"""Runs whose images are unusable; tests/test_workers.py runs tasks on workers."""

from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import pytest

from cxr_helpers.pipeline import execution
from cxr_helpers.pipeline.grid import Variant
from cxr_helpers.system.errors import DataError


def command(*sources):
    def unusable(variant):
        raise DataError("no images")

    variants = [Variant(Namespace(data=data), {"epochs": "3"}, "-epochs-3") for data in sources]
    settings = dict.fromkeys(("threads", "workers", "cluster", "tls", "plain_tcp"))
    options = Namespace(**settings, dry_run=True)
    return execution.Command(options, variants, unusable, None, Path())


@pytest.fixture(params=["here", "on_workers"])
def execute(request, monkeypatch):
    monkeypatch.setattr(execution.cluster, "connected", lambda **_: nullcontext())
    return getattr(execution, request.param)


def test_unusable_images_of_one_run_do_not_end_the_others(execute, capsys):
    complete, failures = execute(command("a", "b"))
    assert complete == [] and [failure.code for failure in failures] == [3, 3]
    assert [str(failure) for failure in failures] == [f"{d} epochs=3: no images" for d in "ab"]
    assert "failed: b epochs=3: no images" in capsys.readouterr().err


def test_unusable_images_of_the_only_run_are_its_error(execute):
    with pytest.raises(DataError, match="no images"):
        execute(command("a"))
