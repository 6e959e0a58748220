"""Time t-SNE on a busy machine: all OpenMP threads against one, as in `06_tsne`.

    uv run benchmarks/tsne.py                   # another process keeps one core busy
    uv run benchmarks/tsne.py --busy 0 --images 1500

scikit-learn's Barnes-Hut gradient opens several parallel regions in each of up to 1000 steps, and
at the end of each region its threads spin until the last one has finished. Where another process
occupies a core, that last thread waits for the core while the others spin. Each measurement runs
in a separate process; the two settings alternate, and their medians are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

SETTINGS = ("all threads", "one thread")


def main() -> None:
    """Measure both settings alternately and print a row for each number of images."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[80, 330])
    parser.add_argument(
        "--busy", type=int, default=1, help="number of cores kept busy by other processes"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(seconds(int(options.child[0]), options.child[1])))
        return
    print(
        f"t-SNE of 50-dimensional embeddings, {options.busy} busy processes, {options.repeats} repeats"
    )
    print(f"{'images':>8}{SETTINGS[0]:>14}{SETTINGS[1]:>14}{'ratio':>8}   median seconds")
    with ExitStack() as stack:
        for _ in range(options.busy):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(busy.kill)
        for count in options.images:
            measured: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
            for _ in range(options.repeats):
                for setting in SETTINGS:
                    command = [sys.executable, __file__, "--child", str(count), setting]
                    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
                    measured[setting].append(json.loads(done.stdout))
            multi, single = (statistics.median(measured[setting]) for setting in SETTINGS)
            print(f"{count:8}{multi:14.2f}{single:14.2f}{multi / single:7.1f}×", flush=True)


def seconds(count: int, setting: str) -> float:
    """Return the seconds of one t-SNE of Gaussian clusters."""
    from sklearn.datasets import make_blobs
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    points, _ = make_blobs(count, n_features=50, centers=3, cluster_std=4.0, random_state=0)
    tsne = TSNE(perplexity=min(30, (count - 1) / 3), init="pca", random_state=0)
    start = time.perf_counter()
    with threadpool_limits(1 if setting == SETTINGS[1] else None, user_api="openmp"):
        tsne.fit_transform(points)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
