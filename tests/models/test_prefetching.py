import threading

import pytest

from cxr_helpers.models.prefetching import ahead


def test_batches_come_in_their_order():
    assert list(ahead(range(5))) == [0, 1, 2, 3, 4] and list(ahead([])) == []


def test_next_batch_is_prepared_while_the_last_one_is_in_use():
    prepared = [threading.Event() for _ in range(3)]

    def batches():
        for number, event in enumerate(prepared):
            event.set()
            yield number

    for number in ahead(batches()):
        assert prepared[min(number + 1, 2)].wait(60)


def test_error_of_a_batch_is_raised_where_it_is_used():
    def batches():
        yield 1
        raise ValueError("planted")

    feed = ahead(batches())
    assert next(feed) == 1
    with pytest.raises(ValueError, match="planted"):
        next(feed)
