"""Time t-SNE beside busy processes: all OpenMP threads against one, as `06_tsne` runs it.

    uv run benchmarks/tsne.py                   # one core kept busy by another process
    uv run benchmarks/tsne.py --busy 0 --images 1500

scikit-learn's Barnes-Hut gradient opens several parallel regions in each of up to 1000 steps, and
at the end of each its threads spin until the last has come. Where another process holds a core,
that last thread waits for its turn there, and the others burn theirs. Each measurement is a
process of its own; the two ways take turns, and the medians are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

WAYS = ("all threads", "one thread")


def main() -> None:
    """Measure both ways in turns and print a line for each number of images."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[80, 330])
    parser.add_argument("--busy", type=int, default=1, help="cores that others keep busy")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(seconds(int(options.child[0]), options.child[1])))
        return
    print(f"t-SNE of 50 numbers an image, {options.busy} busy processes, {options.repeats} repeats")
    print(f"{'images':>8}{WAYS[0]:>14}{WAYS[1]:>14}{'ratio':>8}   median seconds")
    with ExitStack() as stack:
        for _ in range(options.busy):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(busy.kill)
        for count in options.images:
            took: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(options.repeats):
                for way in WAYS:
                    command = [sys.executable, __file__, "--child", str(count), way]
                    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
                    took[way].append(json.loads(done.stdout))
            plain, single = (statistics.median(took[way]) for way in WAYS)
            print(f"{count:8}{plain:14.2f}{single:14.2f}{plain / single:7.1f}×", flush=True)


def seconds(count: int, way: str) -> float:
    """Return how long one map of made clusters takes."""
    from sklearn.datasets import make_blobs
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    points, _ = make_blobs(count, n_features=50, centers=3, cluster_std=4.0, random_state=0)
    tsne = TSNE(perplexity=min(30, (count - 1) / 3), init="pca", random_state=0)
    start = time.perf_counter()
    with threadpool_limits(1 if way == WAYS[1] else None, user_api="openmp"):
        tsne.fit_transform(points)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
