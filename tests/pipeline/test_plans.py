"""The tasks of a run, and what became of them."""

import argparse

import pytest

from cxr_helpers.pipeline import plans
from cxr_helpers.pipeline.grid import Variant
from cxr_helpers.pipeline.plans import Plan
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.tasks import NOT_RUN, Outcome
from cxr_helpers.system.errors import Refused

LEFT_OUT, FAILED = Outcome(NOT_RUN, "x failed"), Outcome(4, "02.ipynb, cell 1: odd")


@pytest.fixture
def plan(tmp_path):
    options = argparse.Namespace(seeds=[5, 6, 7], force=False, only=None, timeout=9)
    return Plan(Variant(options, {}, ""), Run(tmp_path / "x"), {}, ["01_data"], "f", {})


def outcomes(base=None, **seeds):
    every = {"seed6": Outcome(), "seed7": Outcome()} | seeds
    return {"x": base or Outcome()} | {f"x, seed {k[4:]}": v for k, v in every.items()}


def test_seeds_come_after_their_run(plan):
    tasks = plan.tasks(store="s", threads=3)
    names = ["x", "x, seed 6", "x, seed 7"]
    assert [(t.name, t.seed, t.after) for t in tasks] == [
        (names[0], None, None),
        (names[1], 6, names[0]),
        (names[2], 7, names[0]),
    ]
    assert {(t.threads, t.timeout, t.folder) for t in tasks} == {(3, 9, str(plan.run.folder))}


def test_logs_of_run_and_seeds_are_joined(plan):
    every = outcomes(
        Outcome(log=[["a", "ran", 1.0]], stale=["b"]), seed7=Outcome(log=[["c", "ran", 2.0]])
    )
    assert plan.log(every) == ([("a", "ran", 1.0), ("c", "ran", 2.0)], ["b"])


@pytest.mark.parametrize(
    ("found", "code", "message"),
    [
        (outcomes(seed6=FAILED), 4, "seed 6 of x failed: 02.ipynb, cell 1: odd"),
        (outcomes(seed6=FAILED, seed7=FAILED), 4, "seeds 6, 7 of x failed: 02.ipynb, cell 1: odd"),
        (outcomes(seed7=Outcome(6, "full")), 6, "seed 7 of x failed: full"),
        (outcomes(seed6=FAILED, seed7=Outcome(6, "full")), 4, "seeds 6, 7 of x failed: 02"),
        (outcomes(seed6=Outcome(143, "stopped")), 4, "seed 6 of x failed: stopped"),
        (outcomes(Outcome(3, "few"), seed6=LEFT_OUT, seed7=LEFT_OUT), 3, "x failed: few"),
    ],
)
def test_failure_names_the_seeds(plan, found, code, message):
    failure = plan.failure(found)
    assert failure.code == code and str(failure).startswith(message)


def test_success_is_no_failure(plan):
    assert plan.failure(outcomes()) is None


def test_failures_of_several_runs_are_one():
    one, other = Refused(4, "x failed: odd"), Refused(6, "y failed: full")
    assert str(plans.together([one], of=1)) == "x failed: odd"
    both = plans.together([one, other], of=3)
    assert (both.code, str(both)) == (4, "2 of 3 runs failed; the first: x failed: odd")
    assert plans.together([other, other], of=2).code == 6
