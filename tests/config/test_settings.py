"""A request is read, or refused with everything that is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from muralab.config.settings import Request, Settings, check_request
from muralab.errors import MuraLabError, RecipeError, SettingsError
from muralab.tune.plan import Estimate, Folders, draw_specs, plan_sentence

SMALL = "tiny_lab.small_net"


def check(cpus: int = 4, gpus: int = 0, memory: int = 64 * 10**9, **fields: Any) -> Settings:
    return check_request(Request(**fields), cpus=cpus, gpus=gpus, memory=memory)


def resources(**fields: Any) -> tuple[float, int, int]:
    found = check(**fields).resources
    return found.gpus_per_trial, found.cpus_per_trial, found.max_concurrent


BAD = [
    ({"recipes": "cnnn"}, r"There is no recipe 'cnnn' in recipes/. Did you mean 'cnn'\?"),
    ({"recipes": "inception_addgate"}, "Did you mean 'inception_add_gate'"),
    ({"recipes": " , "}, "names none. Known: cnn, cnn_attention, inception, inception_add_gate"),
    ({"recipes": "my_lab.wide_net"}, "There is no recipe 'my_lab.wide_net' in the Python path"),
    ({"recipes": "../cnn"}, r"There is no recipe '\.\./cnn'"),
    ({"recipes": ".cnn"}, r"There is no recipe '\.cnn'"),
    ({"recipes": "os.path"}, "The module 'os.path' does not define a recipe: expected RECIPE = Recipe"),
    ({"trials": "0"}, "trials=0: expected a whole number from 1 to 99,999"),
    ({"trials": "two"}, "trials=two: expected a whole number"),
    ({"trials": "\u00b2"}, "trials=\u00b2: expected a whole number"),
    ({"trials": "9" * 30}, "expected a whole number from 1 to 99,999"),
    ({"epochs": "5"}, r"epochs=5: expected `recipe`, or upper\+full such as 2\+3"),
    ({"epochs": "-1+2"}, r"epochs=-1\+2: expected `recipe`"),
    ({"epochs": "3+0"}, "^no epoch of the full phase is asked for, and nothing is tested after the upper phase alone"),
    ({"epochs": "1+" + "9" * 9}, "epochs=999999999: expected 0 to 99,999"),
    ({"image_size": "16"}, "image_size=16: expected 32 to 4096 px"),
    ({"image_size": "large"}, "image_size=large: expected a whole number"),
    ({"batch_size": "1"}, "batch_size=1: expected 2 to 65536"),
    ({"set": "full.lr"}, r"set=full.lr: 'full.lr' is not key=value; expected e.g. full.lr=3e-5"),
    ({"set": "ful.lr=1"}, r"^unknown key 'ful.lr'. Did you mean 'full.lr'\?$"),
    ({"set": "full.lr=fast"}, "^full.lr=fast: expected a number$"),
    ({"set": "full.lr=nan"}, "full.lr=nan: expected a number"),
    ({"set": "full.lr=-1"}, "lr=-1.0: expected above 0"),
    ({"set": "full.epochs=inf"}, "full.epochs=inf: expected a whole number"),
    ({"set": "full.epochs=1.5"}, "full.epochs=1.5: expected a whole number"),
    ({"set": "class_weighting=perhaps"}, "class_weighting=perhaps: expected true or false"),
    ({"set": "augment.zoom=7"}, r"augment.zoom must be in \[0, 1\)"),
    ({"set": "full.lr=1e-3,full.lr=1e-4"}, "'full.lr' is given twice"),
    ({"gpus_per_trial": "pack"}, "gpus_per_trial=pack: this machine has no GPU"),
    ({"gpus_per_trial": "1"}, "gpus_per_trial=1: this machine has 0 that torch can use"),
    ({"gpus_per_trial": "1.5", "gpus": 2}, "gpus_per_trial=1.5: expected auto, pack, 0, a fraction"),
    ({"gpus_per_trial": "2", "gpus": 2}, "a trial trains on one GPU; give 1 or a fraction"),
    ({"gpus_per_trial": "nan", "gpus": 1}, "gpus_per_trial=nan: expected auto"),
    ({"gpus_per_trial": "inf", "gpus": 1}, "gpus_per_trial=inf: expected auto"),
    ({"gpus_per_trial": "-1"}, "gpus_per_trial=-1: expected auto"),
    ({"cpus_per_trial": "5"}, "cpus_per_trial=5: this machine has 4"),
    ({"max_concurrent": "0"}, "max_concurrent=0: expected a whole number"),
    ({"time_budget": "soon"}, "time_budget=soon: expected seconds, minutes or hours such as 900, 30m or 2h"),
    ({"time_budget": "0m"}, "time_budget=0m: expected seconds"),
    ({"protocol": "valid-as-tset"}, r"protocol=valid-as-tset is unknown. Did you mean 'valid-as-test'\?"),
    ({"threshold": "yuoden"}, "threshold=yuoden: There is no threshold rule 'yuoden'. Did you mean 'youden'"),
    ({"threshold": "sensitivity>=90"}, "threshold=sensitivity>=90: The rule .* needs a share above 0 and up to 1"),
    ({"objective": "val_loss"}, "objective=val_loss is unknown. Did you mean"),
]


@pytest.mark.parametrize(("fields", "words"), BAD, ids=[str(fields)[:60] for fields, _ in BAD])
def test_a_mistake_gets_its_words(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(MuraLabError, match=words):
        check(**fields)


def test_several_mistakes_come_as_one_list() -> None:
    with pytest.raises(MuraLabError) as caught:
        check(recipes="cnn,inceptionn", trials="0", epochs="x", image_size="y", set="z", gpus_per_trial="9")
    lines = str(caught.value).splitlines()
    assert lines[0] == "6 parameters do not fit:"
    assert [line.split(".")[0].strip() for line in lines[1:]] == list("123456")
    for words in ("image_size=y", "epochs=x", "set=z", "'inceptionn'", "trials=0", "gpus_per_trial=9"):
        assert sum(words in line for line in lines) == 1


def test_a_mistake_that_all_recipes_share_is_said_once_and_another_with_its_recipe() -> None:
    with pytest.raises(RecipeError) as caught:
        check(recipes="cnn,inception", set="model.width=4,full.lrr=1")
    assert str(caught.value).splitlines()[1:] == [
        "  1. cnn: unknown key 'model.width'. Did you mean 'model.units'?; unknown key 'full.lrr'. "
        "Did you mean 'full.lr'?",
        "  2. inception: unknown key 'full.lrr'. Did you mean 'full.lr'?",
    ]


def test_a_mistake_of_one_recipe_names_it() -> None:
    with pytest.raises(RecipeError, match=r"^inception: unknown key 'model.filters'"):
        check(recipes="cnn,inception", set="model.filters=4")


# What is read


def test_defaults_are_the_demos_or_the_recipes_own() -> None:
    demo, real = check(), check(data="/tree")
    assert (demo.trials, real.trials) == (2, 8)
    assert demo.recipes["inception"].full.epochs < real.recipes["inception"].full.epochs == 70


def test_what_the_user_gives_wins_over_the_demo() -> None:
    found = check(recipes="inception", epochs="2+3", image_size="80", set="feature_views=1").recipes["inception"]
    assert (found.upper.epochs, found.full.epochs, found.image_size, found.feature_views) == (2, 3, 80, 1)


@pytest.mark.parametrize(("text", "seconds"), [("none", None), ("900", 900), ("90s", 90), ("1.5m", 90), ("2h", 7200)])
def test_time_is_read(text: str, seconds: float | None) -> None:
    assert check(time_budget=text).time_budget_s == seconds


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (0, 1, 4)),
        ({"cpus_per_trial": "3"}, (0, 3, 1)),
        ({"max_concurrent": "2"}, (0, 1, 2)),
        ({"max_concurrent": "99"}, (0, 1, 4)),
        ({"memory": 6 * 10**9}, (0, 1, 2)),
        ({"memory": 10**9}, (0, 1, 1)),
        ({"memory": 6 * 10**9, "max_concurrent": "3"}, (0, 1, 3)),
        ({"memory": 6 * 10**9, "gpus": 2, "gpus_per_trial": "0.5"}, (0.5, 1, 4)),
        ({"gpus": 2}, (1, 2, 2)),
        ({"gpus": 2, "gpus_per_trial": "0.5"}, (0.5, 1, 4)),
        ({"gpus": 2, "gpus_per_trial": "0.6"}, (0.6, 2, 2)),
        ({"gpus": 1, "gpus_per_trial": "0.1"}, (0.1, 1, 4)),
        ({"gpus": 1, "gpus_per_trial": "0"}, (0, 1, 4)),
    ],
)
def test_resources_are_divided(fields: dict[str, Any], expected: tuple[float, int, int]) -> None:
    assert resources(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "said"), [({}, False), ({"memory": 6 * 10**9}, True), ({"max_concurrent": "2"}, False)]
)
def test_the_plan_says_where_memory_is_what_limits(fields: dict[str, Any], said: bool) -> None:
    words = plan_sentence(check(recipes="cnn", **fields), Estimate(epoch_s={}, wall_s=1, disk_bytes=0))
    assert ("memory holds no more at 2.3 GB a trial, max_concurrent=4 overrules" in words) is said


def test_a_recipe_outside_the_repository_is_found(lab: Any) -> None:
    assert set(check(recipes=f"{SMALL},cnn,{SMALL}").recipes) == {SMALL, "cnn"}


# The trials


def specs(lab: Any, tmp_path: Any, **fields: Any) -> list[Any]:
    settings = check(recipes=f"cnn,{SMALL}", data="/tree", trials="3", **fields)
    folders = Folders(cache=tmp_path, sweep=tmp_path / "sweep")
    return draw_specs(settings, folders, dict.fromkeys(settings.recipes, ""))


def test_trials_are_drawn_from_the_seed_alone(lab: Any, tmp_path: Any) -> None:
    one, same, other = (specs(lab, tmp_path, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert [spec.drawn for spec in one] != [spec.drawn for spec in other]


def test_the_first_trial_of_each_recipe_is_the_recipe(lab: Any, tmp_path: Any) -> None:
    drawn = {spec.name: spec.drawn for spec in specs(lab, tmp_path)}
    assert len(drawn) == 6
    assert drawn["cnn-00"] == drawn[f"{SMALL}-00"] == {}
    assert len({str(values) for values in drawn.values()}) == 5


def test_more_trials_do_not_change_the_first_ones(lab: Any, tmp_path: Any) -> None:
    settings = [check(recipes="cnn", trials=trials) for trials in ("2", "4")]
    few, many = (draw_specs(s, Folders(cache=tmp_path, sweep=tmp_path), {"cnn": ""}) for s in settings)
    assert few == many[:2]


def test_what_the_user_sets_is_not_drawn_over(lab: Any, tmp_path: Any) -> None:
    assert not any("full.lr" in spec.drawn for spec in specs(lab, tmp_path, set="full.lr=3e-3"))


@pytest.mark.parametrize("data", ["demo", "/tree"])
def test_a_set_value_of_the_demos_list_is_not_drawn_over_either(tmp_path: Any, data: str) -> None:
    settings = check(recipes="inception", data=data, trials="2", set="full.lr=3e-5")
    drawn = draw_specs(settings, Folders(cache=tmp_path, sweep=tmp_path), {"inception": ""})
    assert "full.lr" not in drawn[1].drawn
    assert settings.recipes["inception"].full.lr == 3e-5


def test_settings_errors_are_a_kind_of_ours() -> None:
    assert issubclass(SettingsError, MuraLabError)
