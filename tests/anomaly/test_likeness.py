import numpy as np

from cxr_helpers.anomaly import likeness


def test_images_are_unlike_in_detail_layout_or_brightness():
    left = np.tile(np.linspace(60, 160, 32), (32, 1)).astype(np.uint8)  # brighter to the right
    small = likeness._layout(left[None])
    known = likeness.Likeness(lambda x: x[:, 0, 0] / 255.0, 0.9, small[0], 0.5, (100, 120))
    images = np.stack([left, 255 - left - 35, np.rot90(left), left // 2, np.full_like(left, 255)])
    assert known.differences(images) == [
        "",
        "layout",  # inverted, as bright as before
        "layout",
        "brightness",
        "detail, layout, brightness",
    ]


def test_few_of_the_training_images_are_unlike_the_others():
    rng = np.random.default_rng(0)
    ramp = np.linspace(40, 200, 32)
    images = (ramp + rng.normal(0, 20, (400, 1, 1)) + rng.normal(0, 5, (400, 32, 32))).clip(0, 255)
    images = images.astype(np.uint8)
    options = {"anomaly_score": lambda x: np.zeros(len(x)), "anomaly_limit": 0.5}
    known = likeness.fit(images, **options)
    unlike = sum(map(bool, known.differences(images)))
    assert 0 < unlike <= 0.02 * 400 + 1
    assert all(known.differences(255 - images))
