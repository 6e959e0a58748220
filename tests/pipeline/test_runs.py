import pytest

from cxr_helpers.pipeline.runs import Run


@pytest.mark.parametrize(
    ("location", "fingerprint", "is_other"),
    [
        ("/a/images", "f", False),
        ("/a/images", "g", False),  # the same folder, in which images have changed
        ("/b/images", "f", False),  # a copy of them
        ("/b/images", "g", True),
    ],
)
def test_other_source_needs_another_place_and_fingerprint(
    tmp_path, location, fingerprint, is_other
):
    run = Run(tmp_path)
    assert run.other_source("/a/images", "f") is None
    run.record_source("/a/images", "f")
    found = run.other_source(location, fingerprint)
    assert found == ("/a/images" if is_other else None)


def test_run_records_its_source(finished):
    assert Run(finished.run_dir).source() == ("phantom", "phantom")
