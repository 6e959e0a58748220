"""Real signals, sent to this process or to a child (PRC-02, PRC-03)."""

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_helpers.system import signals
from cxr_helpers.system.signals import Stopped, delayed, stoppable

ROOT = Path(signals.__file__).parents[2]


@pytest.fixture(autouse=True)
def listening():
    """Restore the signals that nohup and a shell's background jobs ignore."""
    handlers = dict.fromkeys(signals.SIGNALS, signal.SIG_DFL)
    handlers[signal.SIGINT] = signal.default_int_handler
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_each_signal_unwinds_the_program_and_is_named(number):
    cleaned = []
    with pytest.raises(Stopped) as stop, stoppable():
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(True)
    assert cleaned and stop.value.code == 128 + number and str(stop.value) == number.name


def test_stopped_is_not_an_exception_but_a_keyboard_interrupt():
    assert not issubclass(Stopped, Exception) and issubclass(Stopped, KeyboardInterrupt)


def test_handlers_are_restored():
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    with stoppable():
        assert all(signal.getsignal(n) is not before[n] for n in signals.SIGNALS)
    assert {number: signal.getsignal(number) for number in signals.SIGNALS} == before


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_ignored_signal_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stoppable():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_second_signal_ends_a_clean_up_that_hangs():
    code = (
        "import signal, time; from cxr_helpers.system.signals import stoppable\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with stoppable():\n"
        "    try: print('ready', flush=True); time.sleep(1000)\n"
        "    finally: print('cleaning', flush=True); time.sleep(1000)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "ready\n"
        os.kill(child.pid, signal.SIGINT)
        assert child.stdout.readline() == "cleaning\n"
        os.kill(child.pid, signal.SIGTERM)
        assert child.wait(20) == 143
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_ctrl_break_is_listened_to_where_the_system_has_it(monkeypatch):
    """Windows has no SIGHUP: its console sends SIGBREAK, also when it is closed."""
    assert set(signals.SIGNALS) == {s for s in signal.Signals if s.name in signals.NAMES}
    monkeypatch.delattr(signal, "SIGHUP")
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    found = runpy.run_path(signals.__file__)["SIGNALS"]
    assert found == [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


def test_signal_in_a_delayed_block_is_raised_at_its_end():
    reached = []
    with pytest.raises(Stopped) as stop, stoppable():
        with delayed():
            with delayed():
                signal.raise_signal(signal.SIGTERM)
            reached.append("end of the inner block")
        reached.append("behind the outer block")
    assert reached == ["end of the inner block"] and stop.value.code == 128 + signal.SIGTERM
    with stoppable(), delayed():  # nothing is left of it
        reached.append("another block")
    assert reached[1:] == ["another block"]


def test_signal_in_a_delayed_block_that_fails_is_raised():
    with pytest.raises(Stopped) as stop, stoppable(), delayed():
        signal.raise_signal(signal.SIGINT)
        raise ValueError
    assert isinstance(stop.value.__context__, ValueError)
