"""An error is classified by its type and errno, whatever its text is."""

import errno
import os
import pickle
import signal

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
from windows import denied

from cxr_helpers.pipeline.notebooks import NotebookFailed
from cxr_helpers.system import errors
from cxr_helpers.system.errors import DataError, Fault, Refused
from cxr_helpers.system.signals import Stopped

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.npy")


def raised(error, *, cause=None, context=None):
    error.__context__ = context
    if cause:
        error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FULL, "OSError: [Errno 28] No space left on device: 'x.npy': free some disk"),
        (raised(ValueError("odd"), cause=FULL), "free some disk"),
        (raised(RuntimeError("odd"), context=FULL), "free some disk"),
        (raised(DataError("no zip"), cause=raised(EOFError(), cause=FULL)), "free some disk"),
        (OSError(errno.EFBIG, "Can't write\nerror = 27"), "Can't write … File too large: raise"),
        (OSError(errno.EDQUOT, ""), "free some of your disk quota"),
        (PermissionError(errno.EACCES, "Permission denied"), "change its permissions"),
        (ModuleNotFoundError("No module named 'seaborn'", name="seaborn"), "`uv sync`"),
        (ImportError("cannot import name 'x'", name="keras.ops"), "`uv sync`"),
        (MemoryError("Unable to allocate 9 GiB"), "9 GiB: close other programs"),
        (type("ResourceExhaustedError", (Exception,), {})("OOM"), "run one stage at a time"),
    ],
)
def test_faults_of_the_machine_say_what_to_do(error, words):
    fault = errors.classify(error)
    assert fault.code == errors.MACHINE and words in fault.message


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (32, "close the program that has it open (a notebook, a spreadsheet, a PDF viewer)"),
        (1224, "close the program that has it open (a notebook, a spreadsheet, a PDF viewer)"),
        (5, "PDF viewer), or change its permissions"),
    ],
)
def test_file_that_is_open_on_windows_says_what_to_close(number, words):
    fault = errors.classify(denied("report.pdf", number))
    assert fault.code == errors.MACHINE and fault.message.endswith(words)
    assert "report.pdf" in fault.message and "…" not in fault.message


@pytest.mark.parametrize(
    "error",
    [
        ValueError("5 requested and 3 written"),
        RuntimeError("No space left on device"),
        OSError("100 requested and 3 written"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        ModuleNotFoundError("No module", name="cxr_helpers.nothing"),
        ImportError("cannot import name 'x'", name="report.output"),
        ImportError("odd"),
        raised(KeyError("x"), cause=DataError("no zip")),
    ],
)
def test_text_alone_does_not_make_it_a_fault_of_the_machine(error):
    fault = errors.classify(error)
    assert fault.code == errors.BUG and fault.name == type(error).__name__
    assert fault.message.startswith(f"{fault.name}: ")


def test_data_error_keeps_its_message():
    error = raised(DataError("images are missing"), context=PermissionError(errno.EACCES, "x"))
    assert errors.classify(error) == errors.Fault(errors.DATA, "DataError", "images are missing")


def test_circular_causes_end():
    error = raised(ValueError("odd"), context=raised(KeyError("x")))
    error.__context__.__context__ = error
    assert errors.classify(error).code == errors.BUG


def test_kernel_records_the_fault_that_ended_it(tmp_path):
    record = tmp_path / "fault.json"
    errors.prepare_record(record)
    size = record.stat().st_size
    assert errors.recorded(record) is None
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    try:
        shell.set_custom_exc((Exception,), errors.recorder(record))
        done = shell.run_cell(
            "try:\n    raise OSError(28, 'ü' * 10_000)\nexcept OSError:\n    raise ValueError('odd')"
        )
    finally:
        InteractiveShell.clear_instance()
    assert isinstance(done.error_in_exec, ValueError)
    fault = errors.recorded(record)
    assert (fault.code, fault.name) == (errors.MACHINE, "OSError")
    assert record.stat().st_size == size  # nothing was added: a full disk can be recorded


@pytest.mark.parametrize(
    "error",
    [
        Refused(5, "in use"),
        NotebookFailed("01_data.ipynb, cell 2: odd", fault=Fault(3, "DataError", "odd")),
        NotebookFailed("01_data.ipynb did not declare its artifacts"),
        Stopped(signal.SIGTERM),
        DataError("no images"),
    ],
)
def test_errors_reach_another_process_unchanged(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error)
    for name in ("code", "error"):
        assert getattr(again, name, None) == getattr(error, name, None)
