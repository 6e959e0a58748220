import numpy as np
import pandas as pd
import pytest

from cxr_helpers.figures import captions, publishing

FILE = """
[fig-roc]
caption = '''
ROC curve; n = {{ y_true | length }},
share {{ share | percent(0) }} or {{ share | percent }}.'''
alt = '''A curve.'''

[fig-map]
finding = '''{{ name | title }} images have one.'''
caption = '''Map of {{ name }} images.'''
alt = '''A map.'''

[text]
found = '''{% if y_true | length > 2 %}Many{% else %}Few{% endif %}: {{ of_test["a", "auroc"] | decimals }}.'''
broken = '''{{ no_such_name }}'''
wrong = '''{{ share | }}'''
"""


@pytest.fixture
def names():
    """The variables of a notebook."""
    scores = {("a", "auroc"): 0.98765}
    return {"y_true": np.zeros(3), "share": 0.256, "name": "normal", "of_test": scores}


@pytest.fixture
def show(tmp_path, names):
    (tmp_path / "02_x.toml").write_text(FILE)
    return captions.Captions(tmp_path / "02_x.toml", names, synthetic=True)


@pytest.fixture
def published(monkeypatch):
    """Record what is displayed instead of displaying it."""
    calls = []
    for name in ("figure", "table", "text"):
        record = lambda *args, kind=name, **options: calls.append((kind, args, options))  # noqa: E731
        monkeypatch.setattr(publishing, name, record)
    return calls


def test_values_are_those_of_the_notebook_when_it_is_displayed(show, names):
    assert show.render("fig-roc", "caption") == "ROC curve; n = 3, share 26% or 25.6%."
    names["y_true"] = np.zeros(1)
    assert "n = 1" in show.render("fig-roc", "caption")
    assert show.render("text", "found") == "Few: 0.988."


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("effect", 0.254, "+0.25"),
        ("effect", -0.254, "−0.25"),
        ("effect", -0.004, "0.00"),  # neither plus nor minus zero
        ("signed", -0.0304, "−3.0"),
        ("signed", -0.0004, "+0.0"),
    ],
)
def test_changes_have_a_sign(name, value, text):
    assert captions.FILTERS[name](value) == text


def test_bounds_of_an_effect_are_rounded_outwards():
    assert captions.FILTERS["bounds"](-0.0024, 0.0001) == "[−0.01, +0.01]"
    assert captions.FILTERS["bounds"](0.0, 0.25) == "[0.00, +0.25]"


def test_one_is_counted_in_the_singular():
    counted = captions.FILTERS["counted"]
    assert counted(1, "image") == "1 image" and counted(2000, "image") == "2,000 images"
    assert counted(0, "other file was", "other files were") == "0 other files were"


def test_p_is_never_zero():
    assert captions.FILTERS["p"](0.0421) == "= 0.042" and captions.FILTERS["p"](1e-9) == "< 0.001"


def test_entry_serves_the_ids_that_begin_with_it(show):
    assert show.render("fig-map-normal", "caption") == "Map of normal images."


def test_figures_tables_and_sentences_are_displayed_with_their_texts(show, published):
    frame = pd.DataFrame({"a": [1]})
    show.figure("chart", "fig-roc")
    show.figure("chart", "fig-map-x", synthetic=False)
    show.table(frame, "fig-roc", formats={"a": ".1f"})
    show.text("found")
    (_, _, first), (_, _, second), (_, _, table), (kind, sentence, _) = published
    assert first["alt"] == "A curve." and first["id"] == "fig-roc" and first["synthetic"] is True
    assert second["id"] == "fig-map-x" and second["synthetic"] is False
    assert first["finding"] == "" and second["finding"] == "Normal images have one."
    assert table["formats"] == {"a": ".1f"} and table["synthetic"] is True
    assert (kind, sentence) == ("text", ("Many: 0.988.",))


@pytest.mark.parametrize(
    ("id", "part", "message"),
    [
        ("text", "broken", r"02_x\.toml, text, broken: 'no_such_name' is undefined"),
        ("text", "wrong", r"02_x\.toml, text, wrong: "),
    ],
)
def test_faulty_template_is_named(show, id, part, message):
    with pytest.raises(ValueError, match=message):
        show.render(id, part)


@pytest.mark.parametrize(("id", "part"), [("fig-none", "caption"), ("text", "none")])
def test_missing_text_is_named(show, id, part):
    with pytest.raises(KeyError, match=f"02_x.toml has no '{part}' of '{id}'"):
        show.render(id, part)


def test_file_that_is_not_toml_is_named(tmp_path):
    (tmp_path / "03_y.toml").write_text("[fig-roc\n")
    with pytest.raises(ValueError, match=r"03_y\.toml: "):
        captions.Captions(tmp_path / "03_y.toml", {}, synthetic=True)


def test_share_that_is_not_available_is_named_so():
    environment = captions.environment()
    assert environment.from_string("{{ x | percent }}").render(x=float("nan")) == "not available"


def test_template_reaches_no_inner_attributes(show):
    show.entries["text"]["inner"] = "{{ name.__class__.__mro__ }}"
    with pytest.raises(
        ValueError, match=r"02_x\.toml, text, inner: access to attribute '__class__'"
    ):
        show.render("text", "inner")
