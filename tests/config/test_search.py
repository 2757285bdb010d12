"""Options of a search are resolved, or refused with everything that is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from muralab.config.commands import TuneConfig
from muralab.config.options import Problems, parse_options
from muralab.config.resources import Resources
from muralab.config.search import Machine, SearchConfig, check_search, recipe_names_of, resolve_search
from muralab.errors import MuraLabError, RecipeError
from muralab.tune.estimate import Estimate
from muralab.tune.folders import Folders
from muralab.tune.plan import plan_summary
from muralab.tune.sampler import FIRST_CHOSEN, draw_specs

SMALL = "tiny_lab.small_net"


def resolve(cpus: int = 4, gpus: int = 0, memory_bytes: int = 64 * 10**9, **texts: str) -> SearchConfig:
    """The search that some options mean on a machine."""
    config = _parse(**texts)
    machine = Machine(cpus=cpus, gpus=gpus, memory_bytes=memory_bytes)
    return resolve_search(
        config,
        config.recipes,
        trials=config.trials,
        max_concurrent=config.max_concurrent,
        time_budget_s=config.time_budget,
        search=config.search,
        pruning=config.pruning,
        machines=(machine,),
    )


def _parse(**texts: str) -> TuneConfig:
    """Options parsed one by one; what does not fit together is left to `resolve_search`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TuneConfig, "check", lambda *_: None)
        return parse_options(TuneConfig, texts)


def resources(**texts: Any) -> tuple[float, int, int]:
    found = resolve(**texts).resources
    return found.gpus_per_trial, found.cpus_per_trial, found.max_concurrent


BAD = [
    ({"recipes": "cnnn"}, r"There is no recipe 'cnnn' in recipes/. Did you mean 'cnn'\?"),
    ({"recipes": "inception_addgate"}, "Did you mean 'inception_add_gate'"),
    (
        {"recipes": " , "},
        "names none. Known: cnn, cnn_attention, convnext_tiny, densenet169, inception, inception_add_gate",
    ),
    ({"recipes": "my_lab.wide_net"}, "There is no recipe 'my_lab.wide_net' in the Python path"),
    ({"recipes": "../cnn"}, r"There is no recipe '\.\./cnn'"),
    ({"recipes": ".cnn"}, r"There is no recipe '\.cnn'"),
    ({"recipes": "os.path"}, "The module 'os.path' .*RECIPE = Recipe"),
    ({"trials": "0"}, "trials=0: expected a whole number from 1 to 99,999"),
    ({"trials": "two"}, "trials=two: expected a whole number"),
    ({"trials": "\u00b2"}, "trials=\u00b2: expected a whole number"),
    ({"trials": "9" * 30}, "expected a whole number from 1 to 99,999"),
    ({"epochs": "5"}, r"epochs=5: expected `recipe`, or upper\+full such as 2\+3"),
    ({"epochs": "-1+2"}, r"epochs=-1\+2: expected `recipe`"),
    ({"epochs": "3+0"}, "^the full phase has no epochs, and nothing is tested after the upper phase alone"),
    ({"epochs": "1+" + "9" * 9}, "epochs=999999999: expected 0 to 99,999"),
    ({"image_size": "16"}, "image_size=16: expected 32 to 4096 px"),
    ({"image_size": "large"}, "image_size=large: expected a whole number"),
    ({"batch_size": "1"}, "batch_size=1: expected 2 to 65536"),
    ({"set": "full.lr"}, r"set=full.lr: 'full.lr' is not of the form key=value; expected e.g. full.lr=3e-5"),
    ({"set": "ful.lr=1"}, r"^unknown key 'ful.lr'. Did you mean 'full.lr'\?$"),
    ({"set": "full.lr=fast"}, "^full.lr=fast: expected a number$"),
    ({"set": "full.lr=nan"}, "full.lr=nan: expected a number"),
    ({"set": "full.lr=-1"}, "lr=-1.0: expected above 0"),
    ({"set": "full.epochs=inf"}, "full.epochs=inf: expected a whole number"),
    ({"set": "full.epochs=1.5"}, "full.epochs=1.5: expected a whole number"),
    ({"set": "class_weighting=perhaps"}, "class_weighting=perhaps: expected true or false"),
    ({"set": "augment.zoom=7"}, r"augment.zoom must be in \[0, 1\)"),
    ({"set": "study=true"}, "set=study=true: 'study=true' is not of the form key=value; .* or the word study"),
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
    ({"threshold": "yuoden"}, "threshold=yuoden: .*'yuoden'. Did you mean 'youden'"),
    ({"threshold": "sensitivity>=90"}, "threshold=sensitivity>=90: .* above 0 and up to 1"),
    ({"objective": "val_loss"}, "objective=val_loss is unknown. Did you mean"),
]


@pytest.mark.parametrize(("texts", "message"), BAD, ids=[str(texts)[:60] for texts, _ in BAD])
def test_a_user_error_has_its_message(texts: dict[str, Any], message: str) -> None:
    with pytest.raises(MuraLabError, match=message):
        resolve(**texts)


def test_several_errors_come_as_one_list() -> None:
    texts = {"recipes": "cnn,inceptionn", "trials": "0", "epochs": "x", "image_size": "y", "set": "z"}
    with pytest.raises(MuraLabError) as caught:
        parse_options(TuneConfig, texts | {"gpus_per_trial": "9"})
    lines = str(caught.value).splitlines()
    assert lines[0] == "6 parameters are not usable:"
    assert [line.split(".")[0].strip() for line in lines[1:]] == list("123456")
    for part in ("image_size=y", "epochs=x", "set=z", "'inceptionn'", "trials=0", "gpus_per_trial=9"):
        assert sum(part in line for line in lines) == 1


def test_an_error_that_all_recipes_share_is_listed_once_without_their_names() -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(recipes="cnn,inception", set="full.lrr=1")
    assert str(caught.value).startswith("unknown key 'full.lrr'")


def test_an_error_of_one_recipe_names_it() -> None:
    with pytest.raises(RecipeError, match=r"^inception: unknown key 'model.filters'"):
        resolve(recipes="cnn,inception", set="model.filters=4")


def test_different_errors_of_two_recipes_are_both_listed() -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(recipes="cnn,inception", set="model.width=4,full.lrr=1")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()[1:]] == ["  1. cnn", "  2. inception"]


def test_the_check_finds_what_resolving_would_refuse(lab: Path) -> None:
    problems = Problems()
    check_search(TuneConfig(), ("cnn", "gone"), None, problems)
    assert [type(error) for error in problems.found] == [RecipeError]


def test_the_default_is_the_studys_four_and_all_is_every_recipe_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muralab.config.search.recipe_names", lambda: ["cnn", "fifth"])
    assert recipe_names_of(_parse().recipes) == ["cnn", "cnn_attention", "inception", "inception_add_gate"]
    assert recipe_names_of(("all",)) == ["cnn", "fifth"]


def test_defaults_are_the_demos_or_the_recipes_own() -> None:
    demo, real = resolve(), resolve(data="/tree")
    assert (demo.trials, real.trials) == (2, 8)
    assert demo.recipes["inception"].full.epochs < real.recipes["inception"].full.epochs == 70


STUDY = {"class_weighting": False, "ema_decay": 0.0, "clip_norm": 0.0, "kept_phase": "full"}


@pytest.mark.parametrize("data", ["demo", "/tree"])
def test_set_study_carries_out_the_schedule_of_every_recipe(data: str) -> None:
    for name, recipe in resolve(set="study", data=data).recipes.items():
        assert {key: getattr(recipe, key) for key in STUDY} == STUDY, name
        assert (recipe.full.patience, recipe.full.schedule, recipe.augment.contrast) == (0, "constant", 0.0)


def test_the_users_values_override_the_studys() -> None:
    found = resolve(recipes="inception", set="full.patience=3,study").recipes["inception"]
    assert (found.full.patience, found.clip_norm) == (3, 0.0)


def test_the_studys_values_are_not_drawn_over(tmp_path: Path) -> None:
    config = resolve(recipes="cnn,inception", data="/tree", trials="2", set="study")
    drawn = draw_specs(config, Folders(cache=tmp_path, sweep=tmp_path), {"cnn": "", "inception": ""})[3].drawn
    assert "augment.contrast" not in drawn
    assert "augment.zoom" in drawn


def test_a_recipe_without_the_studys_values_is_refused(lab: Path) -> None:
    with pytest.raises(RecipeError, match=r"tiny_lab.small_net: set=study: this recipe has no `study=\{...\}`"):
        resolve(recipes=f"cnn,{SMALL}", set="study")


def test_the_users_values_override_the_demos() -> None:
    found = resolve(recipes="inception", epochs="2+3", image_size="80", set="feature_views=1").recipes["inception"]
    assert (found.upper.epochs, found.full.epochs, found.image_size, found.feature_views) == (2, 3, 80, 1)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({}, (0, 1, 4)),
        ({"cpus_per_trial": "3"}, (0, 3, 1)),
        ({"max_concurrent": "2"}, (0, 1, 2)),
        ({"max_concurrent": "99"}, (0, 1, 4)),
        ({"memory_bytes": 6 * 10**9}, (0, 1, 2)),
        ({"memory_bytes": 10**9}, (0, 1, 1)),
        ({"memory_bytes": 6 * 10**9, "max_concurrent": "3"}, (0, 1, 3)),
        ({"memory_bytes": 6 * 10**9, "gpus": 2, "gpus_per_trial": "0.5"}, (0.5, 1, 4)),
        ({"gpus": 2}, (1, 2, 2)),
        ({"gpus": 2, "gpus_per_trial": "0.5"}, (0.5, 1, 4)),
        ({"gpus": 2, "gpus_per_trial": "0.6"}, (0.6, 2, 2)),
        ({"gpus": 1, "gpus_per_trial": "0.1"}, (0.1, 1, 4)),
        ({"gpus": 1, "gpus_per_trial": "0"}, (0, 1, 4)),
    ],
)
def test_resources_are_divided(texts: dict[str, Any], expected: tuple[float, int, int]) -> None:
    assert resources(**texts) == expected


def test_what_the_machine_has_is_kept_with_what_a_trial_gets() -> None:
    found = resolve(cpus=8, gpus=2, gpus_per_trial="0.5").resources
    assert found == Resources(cpus=8, gpus=2, cpus_per_trial=2, gpus_per_trial=0.5, max_concurrent=4)


def node(name: str, cpus: int, gpus: int = 0, gb: float = 64) -> Machine:
    return Machine(name=name, cpus=cpus, gpus=gpus, memory_bytes=int(gb * 10**9))


@pytest.fixture
def gpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muralab.config.search.count_gpus", lambda: 1)
    monkeypatch.setattr("muralab.training.device.gains_from_bfloat16", lambda _: False)


@pytest.mark.parametrize(
    ("nodes", "texts", "expected"),
    [
        ([node("a", 2), node("b", 3)], {}, (0, 1, 5)),
        ([node("a", 2), node("b", 3)], {"cpus_per_trial": "2"}, (0, 2, 2)),
        ([node("a", 4, gb=5), node("b", 4, gb=1)], {}, (0, 1, 2)),
        ([node("a", 8), node("b", 8, 2), node("c", 12, 4)], {}, (1, 3, 6)),
        ([node("a", 8, 1), node("b", 2, 1)], {"gpus_per_trial": "0.5"}, (0.5, 1, 4)),
        ([node("a", 2), node("b", 3)], {"max_concurrent": "3"}, (0, 1, 3)),
    ],
)
def test_a_cluster_is_divided_node_by_node(
    nodes: list[Machine], texts: dict[str, str], expected: tuple[float, int, int], gpu_here: None
) -> None:
    config = _parse(**texts)
    found = resolve_search(config, ("cnn",), max_concurrent=config.max_concurrent, machines=nodes)
    given = found.resources
    assert (given.gpus_per_trial, given.cpus_per_trial, given.max_concurrent) == expected
    assert found.nodes == tuple(nodes)


@pytest.mark.parametrize(
    ("nodes", "texts", "message"),
    [
        ([node("a", 2), node("b", 3)], {"cpus_per_trial": "4"}, "cpus_per_trial=4: the largest node has 3"),
        ([node("a", 2, gb=2)], {}, r"No node of the cluster has the 2\.3 GB of memory .* ray start --memory"),
        ([node("a", 2)], {"gpus_per_trial": "1"}, "the cluster has 0 that torch can use"),
        ([node("a", 2, 1)], {}, "this machine has none: start the command on a node with a GPU"),
    ],
)
def test_a_cluster_that_holds_no_trial_is_refused(
    nodes: list[Machine], texts: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muralab.config.search.count_gpus", lambda: 0)
    with pytest.raises(MuraLabError, match=message):
        resolve_search(_parse(**texts), ("cnn",), machines=nodes)


def test_the_plan_names_the_nodes() -> None:
    found = resolve_search(_parse(), ("cnn",), machines=[node("gpu1", 2), node("gpu2", 1)])
    summary = plan_summary(found, Estimate(epoch_s={}, wall_s=1, disk_bytes=0))
    assert "(1 CPU core and no GPU) on gpu1 (2 cores), gpu2 (1 core) in" in summary


@pytest.mark.parametrize(
    ("nodes", "texts", "note"),
    [
        (
            [node("a", 4, 4), node("b", 64, 1)],
            {},
            "a has the fewest cores .*: cpus_per_trial up to 64 uses more",
        ),
        ([node("a", 2, 4), node("b", 1, 1)], {}, "The cores of a are enough for 2 of the 4 trials that its GPUs"),
        ([node("a", 4, 1), node("b", 8, 1)], {"cpus_per_trial": "4"}, ""),
        ([node("a", 4, 2), node("b", 2, 1), node("c", 64)], {}, ""),
        ([node("a", 4), node("b", 64)], {}, ""),
    ],
)
def test_the_plan_states_what_nodes_with_few_cores_for_their_gpus_cost(
    nodes: list[Machine], texts: dict[str, str], note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muralab.config.search.count_gpus", lambda: 1)
    found = resolve_search(_parse(**texts), ("cnn",), machines=nodes)
    summary = plan_summary(found, Estimate(epoch_s={}, wall_s=1, disk_bytes=0))
    assert re.search(f"GiB of disk\\.{' ' + note if note else '$'}", summary)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"ray_address": "10.0.0.1:6379"}, "ray_address=10.0.0.1:6379: its nodes need storage="),
        ({"ray_address": "ray://h:10001", "storage": "/x"}, "expected local, auto, or host:port.* Ray Client is not"),
        ({"ray_address": "h", "storage": "/x"}, "expected local, auto, or host:port"),
        ({"storage": "s3://key:secret@bucket"}, "the URI holds a password"),
        ({"storage": "s3://"}, "storage=s3:// names no bucket or folder"),
        ({"storage": "s3://[::1/x"}, r"storage=s3://\[::1/x: Invalid IPv6 URL"),
    ],
)
def test_options_of_a_cluster_are_checked(texts: dict[str, str], message: str) -> None:
    with pytest.raises(MuraLabError, match=message):
        parse_options(TuneConfig, {"recipes": "cnn", **texts})


def test_the_machines_own_resources_do_not_limit_a_cluster() -> None:
    texts = {"recipes": "cnn", "ray_address": "auto", "storage": "s3://b/p/", "cpus_per_trial": "9999"}
    assert parse_options(TuneConfig, texts).storage == "s3://b/p"
    assert Path(parse_options(TuneConfig, {"recipes": "cnn", "storage": "lab"}).storage or "") == Path("lab").absolute()


@pytest.mark.parametrize("option", ["storage", "data"])
@pytest.mark.parametrize("text", [" s3://lab/Mura/ ", "S3://lab/Mura"])
def test_blanks_and_capitals_do_not_matter_in_a_uri(option: str, text: str) -> None:
    assert getattr(parse_options(TuneConfig, {"recipes": "cnn", option: text}), option) == "s3://lab/Mura"


@pytest.mark.parametrize(
    ("texts", "limited"), [({}, False), ({"memory_bytes": 6 * 10**9}, True), ({"max_concurrent": "2"}, False)]
)
def test_the_plan_states_where_memory_is_the_limit(texts: dict[str, Any], limited: bool) -> None:
    summary = plan_summary(resolve(recipes="cnn", **texts), Estimate(epoch_s={}, wall_s=1, disk_bytes=0))
    assert ("memory is the limit at 2.3 GB per trial, max_concurrent=4 overrides it" in summary) is limited


@pytest.mark.parametrize(
    ("texts", "mentioned"),
    [({"trials": "16"}, True), ({"trials": "16", "pruning": "off"}, False), ({"trials": "2"}, False)],
    ids=str,
)
def test_the_plan_states_that_pruning_may_shorten_it(texts: dict[str, str], mentioned: bool) -> None:
    summary = plan_summary(resolve(recipes="cnn", **texts), Estimate(epoch_s={}, wall_s=1, disk_bytes=0))
    assert ("or less (pruning)" in summary) is mentioned


def test_a_recipe_outside_the_repository_is_found(lab: Path) -> None:
    assert set(resolve(recipes=f"{SMALL},cnn,{SMALL}").recipes) == {SMALL, "cnn"}


# The trials


def specs(tmp_path: Path, **texts: str) -> list[Any]:
    config = resolve(recipes=f"cnn,{SMALL}", data="/tree", trials="3", **texts)
    folders = Folders(cache=tmp_path, sweep=tmp_path / "sweep")
    return draw_specs(config, folders, dict.fromkeys(config.recipes, ""))


def test_trials_are_drawn_from_the_seed_alone(lab: Path, tmp_path: Path) -> None:
    one, same, other = (specs(tmp_path, seed=seed) for seed in ("1", "1", "2"))
    assert one == same
    assert [spec.drawn for spec in one] != [spec.drawn for spec in other]


def test_the_first_trial_of_each_recipe_is_the_recipe_unchanged(lab: Path, tmp_path: Path) -> None:
    drawn = {spec.name: spec.drawn for spec in specs(tmp_path)}
    assert len(drawn) == 6
    assert drawn["cnn-00"] == drawn[f"{SMALL}-00"] == {}
    assert len({str(values) for values in drawn.values()}) == 5


def test_how_values_are_drawn_is_an_option(tmp_path: Path) -> None:
    configs = [resolve(recipes="cnn", trials="3", search=search) for search in ("quasi", "random")]
    drawn = [draw_specs(c, Folders(cache=tmp_path, sweep=tmp_path), {"cnn": ""}) for c in configs]
    assert drawn[0] != drawn[1]


def test_a_search_that_learns_spreads_its_first_trials_and_leaves_the_others_open(tmp_path: Path) -> None:
    folders = Folders(cache=tmp_path, sweep=tmp_path)
    quasi, tpe = (
        draw_specs(resolve(recipes="cnn", trials="8", search=search), folders, {"cnn": ""})
        for search in ("quasi", "tpe")
    )
    assert tpe[:FIRST_CHOSEN] == quasi[:FIRST_CHOSEN]
    assert [spec.is_undrawn for spec in tpe] == [False] * FIRST_CHOSEN + [True] * 3
    assert all(spec.draws == list(quasi[1].drawn) for spec in tpe[FIRST_CHOSEN:])


def test_more_trials_do_not_change_the_first_ones(tmp_path: Path) -> None:
    configs = [resolve(recipes="cnn", trials=trials) for trials in ("2", "4")]
    few, many = (draw_specs(c, Folders(cache=tmp_path, sweep=tmp_path), {"cnn": ""}) for c in configs)
    assert few == many[:2]


def test_what_the_user_sets_is_not_drawn_over(lab: Path, tmp_path: Path) -> None:
    assert not any("full.lr" in spec.drawn for spec in specs(tmp_path, set="full.lr=3e-3"))


@pytest.mark.parametrize("data", ["demo", "/tree"])
def test_a_value_of_the_demos_list_that_the_user_sets_is_not_drawn_over_either(tmp_path: Path, data: str) -> None:
    config = resolve(recipes="inception", data=data, trials="2", set="full.lr=3e-5")
    drawn = draw_specs(config, Folders(cache=tmp_path, sweep=tmp_path), {"inception": ""})
    assert "full.lr" not in drawn[1].drawn
    assert config.recipes["inception"].full.lr == 3e-5
