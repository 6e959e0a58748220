import pytest

from cxr_helpers.pipeline import settings
from cxr_helpers.pipeline.parameters import RENAMED, Parameter

OWN = {
    parameter.name: parameter
    for parameter in (
        Parameter("epochs", "int", 12, low=1, high=500),
        Parameter("size", "int", 128, low=32, high=512, step=4),
        Parameter("rate", "float", 0.001, low=1e-7, high=1),
        Parameter("rates", "list[float]", [0.1, 0.01], low=0, high=1),
        Parameter("flip", "bool", True),
        Parameter("kind", "str", "adam", choices=("adam", "sgd")),
        Parameter("where", "str", "a#b"),
        Parameter("maybe", "str", "", choices=("", "adam")),
        Parameter("contiguous_fraction", "float", 0.1, low=0, high=0.5),
        Parameter("choose_by", "str", "group", choices=("group", "contiguous")),
    )
}
SCHEMA = {"01_data": OWN, "02_binary": OWN}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs=3", 3),
        ("rate=1e-2", 0.01),
        ("rate=1", 1.0),
        ("rates=0.5, 0.25", [0.5, 0.25]),
        ("rates=0.1, 0.1", [0.1, 0.1]),
        ("flip=false", False),
        ("kind=sgd", "sgd"),
        ("where=x=y", "x=y"),
        ("maybe=empty", ""),
        ("size=64", 64),
    ],
)
def test_allowed_settings_are_parsed(setting, value):
    values = settings.resolve(SCHEMA, preset={}, settings=[setting])
    name = setting.split("=")[0]
    assert values["01_data"][name] == value and values["02_binary"][name] == value
    assert type(values["01_data"][name]) is type(value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs=-3", "epochs = -3 is out of range: 1 to 500"),
        ("epochs=0", "out of range"),
        ("epochs=7.5", "'7.5' is not of type int"),
        ("epochs=seven", "not of type int"),
        ("size=130", "32 to 512 in steps of 4"),
        ("rate=inf", "out of range"),
        ("rate=nan", "out of range"),
        ("rates=0.1,x", "not of type float"),
        ("flip=maybe", "not of type bool"),
        ("where=x", "'where' is not changed by --set"),
        ("kind=adm", "did you mean 'adam'"),
        ("epoch=3", "did you mean 'epochs'"),
        ("03_x.epochs=3", "no stage '03_x': expected one of 01_data, 02_binary"),
        ("2.epoch=3", "02_binary has no parameter 'epoch'; did you mean 'epochs'?"),
        ("epochs", "is not NAME=VALUE"),
        ("rates=", "not of type float"),
        ('x=1;open("PWNED","w")', "no notebook has a parameter 'x'"),
    ],
)
def test_invalid_settings_are_refused_with_a_remedy(setting, message):
    with pytest.raises(ValueError) as error:
        settings.resolve(SCHEMA, preset={}, settings=[setting], reserved=["where"])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("serial_fraction=0.1", "serial_fraction is now contiguous_fraction"),
        ("01_data.serial_fraction=0.1", "serial_fraction is now contiguous_fraction"),
        ("choose_by=serial", "choose_by = 'serial' is now 'contiguous'"),
    ],
)
def test_names_of_earlier_versions_are_refused_with_the_present_ones(setting, message):
    with pytest.raises(ValueError) as error:
        settings.resolve(SCHEMA, preset={}, settings=[setting])
    assert str(error.value) == message


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_every_renamed_parameter_is_refused_with_its_name(old, new):
    with pytest.raises(ValueError) as error:
        settings.resolve(SCHEMA, preset={}, settings=[f"{old}=1"])
    assert str(error.value) == f"{old} is now {new}"


def test_name_of_an_earlier_version_may_be_used_for_a_new_parameter():
    own = {"films": Parameter("films", "int", 1)}
    values = settings.resolve({"08_extra": own}, preset={}, settings=["films=3"])
    assert values["08_extra"]["films"] == 3


@pytest.mark.parametrize("stage", ["02_binary", "02", "2", "binary"])
def test_one_stage_can_be_set(stage):
    values = settings.resolve(SCHEMA, preset={}, settings=[f"{stage}.epochs=3"])
    assert values["01_data"]["epochs"] == 12 and values["02_binary"]["epochs"] == 3


def test_settings_override_the_preset_and_the_preset_defaults():
    preset = {"01_data": {"epochs": 2, "flip": False}}
    values = settings.resolve(SCHEMA, preset=preset, settings=["epochs=9"])
    assert values["01_data"]["epochs"] == 9 and values["01_data"]["flip"] is False


def test_preset_is_checked():
    with pytest.raises(ValueError, match="epochs = 0 is out of range"):
        settings.resolve(SCHEMA, preset={"01_data": {"epochs": 0}})


def test_preset_with_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="01_data has no parameter 'epoch'"):
        settings.resolve(SCHEMA, preset={"01_data": {"epoch": 1}})


def test_preset_of_an_unknown_stage_is_refused():
    with pytest.raises(ValueError, match=r"no stage '01_dat'; did you mean '01_data'"):
        settings.resolve(SCHEMA, preset={"01_dat": {"epochs": 3}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "01_data has no parameter 'epoch'; did you mean 'epochs'?"),
        ({"epochs": 0}, "epochs = 0 is out of range: 1 to 500"),
        ({"epochs": "3"}, "epochs = '3' is not of type int"),
        ({"serial_fraction": 0.1}, "'serial_fraction': it is now contiguous_fraction"),
    ],
)
def test_all_presets_are_checked_at_once(values, message):
    presets = {"standard": {}, "quick": {"02_binary": {"epochs": 1}}}
    settings.check_presets(SCHEMA, presets)
    with pytest.raises(ValueError, match=r"^01_data\.ipynb, preset 'slow': ") as error:
        settings.check_presets(SCHEMA, presets | {"slow": {"01_data": values}})
    assert str(error.value).endswith(message)


@pytest.mark.parametrize(
    ("text", "found"),
    [("0-4", [0, 1, 2, 3, 4]), ("0,7, 9", [0, 7, 9]), ("3", [3]), ("1-2,8", [1, 2, 8])],
)
def test_seeds_are_parsed(text, found):
    assert settings.seeds(text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (text, "is not of the form 0-4 or 0,7,9")
            for text in ("", "a", "-1", "1.5", "0,", "1-2-3")
        ),
        ("4-0", "'4-0' counts down: did you mean 0-4?"),
        ("1,0,1", "'1,0,1' names 1 twice"),
        ("0-3,2", "names 2 twice"),
        ("0-100", "has more than 100 seeds"),
        ("0-98,200-201", "has more than 100 seeds"),
        ("0-4000000000", "has more than 100 seeds"),
        ("4294967296", "4294967296 is too large, seeds are below 2**32"),
    ],
)
def test_invalid_seeds_are_refused(text, message):
    with pytest.raises(ValueError) as error:
        settings.seeds(text)
    assert message in str(error.value)


def test_largest_number_of_seeds():
    assert settings.seeds("0-98,200") == [*range(99), 200]


@pytest.mark.parametrize("order", [1, -1])
def test_setting_of_one_stage_takes_precedence(order):
    chosen = ["2.epochs=5", "epochs=6"][::order]
    values = settings.resolve(SCHEMA, preset={}, settings=chosen)
    assert (values["01_data"]["epochs"], values["02_binary"]["epochs"]) == (6, 5)


def test_two_values_for_a_parameter_of_one_stage_are_refused():
    with pytest.raises(
        ValueError, match=r"^2\.epochs= and binary\.epochs= give a value to the same"
    ):
        settings.resolve(SCHEMA, preset={}, settings=["2.epochs=5", "binary.epochs=6"])
    with pytest.raises(ValueError, match=r"^epochs= and epochs= give a value to the same"):
        settings.resolve(SCHEMA, preset={}, settings=["epochs=5", "epochs=6"])
