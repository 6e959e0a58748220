"""Time from a change in ``notebooks/explore.ipynb`` to its last answer, in milliseconds.

    uv run benchmarks/explore.py RUN      # folder of a finished run

Each control is moved ``TIMES`` times, with each network and each map; what is printed is the median
and the slowest. The time from the browser to the kernel and back is not included.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

from cxr_helpers.system import accelerators

os.environ.update(accelerators.variables())  # as in the kernels of a run, but for arenas

import numpy as np

from cxr_helpers.explore.panel import NO_MAP, Panel
from cxr_helpers.explore.session import MAPS, Session
from cxr_helpers.pipeline.runs import Run
from cxr_helpers.pipeline.stages import STORE
from cxr_helpers.pipeline.store import Store

TIMES = 9


def main() -> None:
    """Load the run, move each control and print the times."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    run = Run(Path(sys.argv[1]).resolve())
    start = time.perf_counter()
    session = Session(run, store=Store(run.folder.parent / STORE))
    panel = Panel(session)
    print(f"{run.name}: loaded in {time.perf_counter() - start:.1f} s; images of "
          f"{session.images.shape[1]} pixels")  # fmt: skip
    shares = np.linspace(0.02, 0.4, TIMES + 1)
    moves = {
        "number": range(1, TIMES + 2),
        "border": shares,
        "rows": [(0.1, share + 0.1) for share in shares],
        "threshold": shares,
    }
    if session.drawn:
        moves |= {"severity": shares, "lesion_contrast": shares, "marker": shares}
    print(f"{'network':26}{'map':22}{'control':18}{'median':>8}{'slowest':>9}")
    panel.controls["columns"].value = (0.2, 0.4)
    for network in session.networks:
        panel.controls["network"].value = network
        for shown in (NO_MAP, *MAPS):
            panel.controls["map"].value = shown
            for control, values in moves.items():
                took = [moved(panel.controls[control], value) for value in values]
                took = sorted(took[1:])  # the first one also traces functions
                median = f"{1000 * statistics.median(took):8.0f}{1000 * took[-1]:9.0f}"
                print(f"{network:26}{shown:22}{control:18}{median}")


def moved(control, value) -> float:
    """Set a control and return the seconds until everything that depends on it was set."""
    start = time.perf_counter()
    control.value = value if isinstance(value, tuple) else type(control.value)(value)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
