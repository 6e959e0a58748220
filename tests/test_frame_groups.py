import numpy as np
import pandas as pd
import pytest

from cxr_helpers import frame_groups


def films(classes, frame_normal):
    return pd.DataFrame({"class_name": classes, "frame_normal": frame_normal})


def test_the_frame_contradicts_where_it_speaks_for_the_other_class():
    index = films(["normal", "normal", "viral", "bacterial", "unknown"], [0.9, 0.1, 0.9, 0.1, 0.2])
    assert frame_groups.contradicts(index).tolist() == [False, True, True, False, False]


def test_the_worst_group_is_the_worst_of_four():
    index = films(["normal"] * 20 + ["viral"] * 20, ([0.9] * 10 + [0.1] * 10) * 2)
    right = np.array([1] * 10 + [1, 0] * 5 + [1] * 10 + [1] * 9 + [0], dtype=bool)
    assert frame_groups.worst(index, right) == pytest.approx(0.5)


def test_a_group_of_few_films_says_nothing():
    index = films(["normal"] * 10 + ["viral"] * 4, [0.9] * 14)
    right = np.array([True] * 9 + [False] + [False] * 4)
    assert frame_groups.worst(index, right) == pytest.approx(0.9)
    assert np.isnan(frame_groups.worst(index[:3], right[:3]))
