"""Batches prepared while the last one is in use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor


def ahead(batches: Iterable) -> Iterator:
    """Yield batches, each prepared in another thread while the last one is in use.

    Order and values are the same.

    Parameters
    ----------
    batches : iterable
        Of anything but None.
    """
    feed = iter(batches)
    with ThreadPoolExecutor(max_workers=1) as worker:
        following = worker.submit(next, feed, None)
        while (batch := following.result()) is not None:
            following = worker.submit(next, feed, None)
            yield batch
