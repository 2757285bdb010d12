"""The recipes in `recipes/`: their values, their architectures against docs/study.md, and training in both phases."""

from __future__ import annotations

import math
import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from muralab.data.loader import Batch
from muralab.experiment import ValidationEvaluator, build_network
from muralab.recipe import HEAD_ONLY, Choice, Network, Phase, Value, override, resolved_values
from muralab.recipe_loader import load_recipe, recipe_names
from muralab.report.references import STUDY_TITLES
from muralab.search_space import Space
from muralab.training.features import Features, extractor_digest
from muralab.training.phase_trainer import TrainerSettings
from muralab.training.trainer import train
from muralab.trial import ImageData, read_data, recipes_of
from muralab.tune.sampler import draw_values
from recipes.cnn_attention import LocalAttention
from recipes.inception_add_gate import AddGateHead

NAMES = recipe_names()
STUDIED = [*STUDY_TITLES]
"""The study's four; every other recipe may search and train whatever it likes."""
SHRUNK = {
    "image_size": 80,
    "batch_size": 8,
    "feature_views": 1,
    "upper.epochs": 1,
    "full.epochs": 1,
    "upper.warmup_epochs": 0,
    "full.warmup_epochs": 0,
}


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(before[name], value)}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_in_both_phases(name: str, build_spec: Any) -> None:
    spec = build_spec(name, overrides=SHRUNK)
    data, recipe = read_data(spec.table, spec.cache_folder, 80), recipes_of(spec)[1]
    network = build_network(spec, data)
    whole, frozen = snapshot(network), changed(snapshot(network), network)
    images, validate = ImageData(spec, data, "cpu"), ValidationEvaluator(spec, data)
    for result in train(
        network, recipe.phases, images, settings=TrainerSettings(), validate=validate, folder=Path(spec.folder)
    ):
        assert math.isfinite(result.train_loss), result
        assert math.isfinite(result.validation["val_loss"])
        if result.phase == "upper":
            frozen = changed(whole, network)
    assert frozen, "the upper phase trained nothing"
    assert frozen == ({key for key in whole if key.startswith("head.")} if recipe.pretrained else set(whole))
    assert changed(whole, network) == set(whole), "the full phase left a tensor unchanged"


# Values, as first released: a change here changes the results of every sweep.

CNN_VALUES = {
    "image_size": 224, "batch_size": 32, "ema_decay": 0.99, "clip_norm": 1.0, "class_weighting": True,
    "kept_phase": "best", "compile": False, "feature_views": 6,
    "upper.epochs": 2, "upper.lr": 0.0003, "upper.trains": "*", "upper.backbone_lr_factor": 1.0,
    "upper.weight_decay": 0.0001, "upper.warmup_epochs": 2.0, "upper.schedule": "constant",
    "upper.frozen_batchnorm": "eval", "upper.patience": 0, "upper.feature_dropout": 0.0, "full.feature_dropout": 0.0,
    "full.epochs": 60, "full.lr": 0.001, "full.trains": "*", "full.backbone_lr_factor": 1.0,
    "full.weight_decay": 0.0001, "full.warmup_epochs": 0.0, "full.schedule": "cosine",
    "full.frozen_batchnorm": "eval", "full.patience": 15,
    "augment.zoom": 0.15, "augment.rotate_degrees": 20.0, "augment.shift": 0.1, "augment.contrast": 0.2,
    "augment.flip": False, "augment.gamma": 0.0, "augment.noise": 0.0, "augment.blur": 0.0, "augment.clahe": 0.0,
    "augment.cutout": 0.0, "augment.elastic": 0.0, "source_scale": 1.0,
    "model.channels": 1, "model.filters": 8, "model.units": 10, "model.dropout": 0.3,
}  # fmt: skip
INCEPTION_VALUES = {
    "image_size": 299, "batch_size": 16, "ema_decay": 0.99, "clip_norm": 1.0, "class_weighting": True,
    "kept_phase": "best", "compile": False, "feature_views": 6,
    "upper.epochs": 30, "upper.lr": 0.001, "upper.trains": "head.*", "upper.backbone_lr_factor": 1.0,
    "upper.weight_decay": 0.0001, "upper.warmup_epochs": 1.0, "upper.schedule": "cosine",
    "upper.frozen_batchnorm": "eval", "upper.patience": 0, "upper.feature_dropout": 0.5, "full.feature_dropout": 0.0,
    "full.epochs": 70, "full.lr": 0.0003, "full.trains": "*", "full.backbone_lr_factor": 0.3,
    "full.weight_decay": 0.0001, "full.warmup_epochs": 1.0, "full.schedule": "cosine",
    "full.frozen_batchnorm": "eval", "full.patience": 20,
    "augment.zoom": 0.15, "augment.rotate_degrees": 20.0, "augment.shift": 0.1, "augment.contrast": 0.2,
    "augment.flip": True, "augment.gamma": 0.0, "augment.noise": 0.0, "augment.blur": 0.0, "augment.clahe": 0.0,
    "augment.cutout": 0.0, "augment.elastic": 0.0, "source_scale": 1.5,
    "model.width": 128, "model.dropout": 0.2, "model.feature_dropout": 0.0,
}  # fmt: skip
VALUES = {
    "cnn": CNN_VALUES,
    "cnn_attention": CNN_VALUES | {"model.heads": 4, "model.values": 16, "model.layout": "local"},
    "inception": INCEPTION_VALUES,
    "inception_add_gate": INCEPTION_VALUES,
}


@pytest.mark.parametrize("name", VALUES)
def test_the_values_are_pinned(name: str) -> None:
    assert resolved_values(load_recipe(name)) == VALUES[name]


@pytest.mark.parametrize(("one", "other"), [("cnn", "cnn_attention"), ("inception", "inception_add_gate")])
def test_recipes_of_one_family_differ_in_their_network_only(one: str, other: str) -> None:
    first, second = load_recipe(one), load_recipe(other)
    assert (first.search, first.demo, first.study) == (second.search, second.demo, second.study)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_takes_no_values_from_another(name: str) -> None:
    source = (Path(__file__).parents[1] / "recipes" / f"{name}.py").read_text("utf-8")
    assert "\nRECIPE = Recipe(\n" in source
    assert not re.search(r"import .*RECIPE", source)


@pytest.mark.parametrize("name", NAMES)
def test_the_head_of_a_recipe_has_the_command_that_runs_it_alone(name: str) -> None:
    source = (Path(__file__).parents[1] / "recipes" / f"{name}.py").read_text("utf-8")
    assert f"\nCommand: make train RECIPE={name}\n" in source


@pytest.mark.parametrize("name", NAMES)
def test_the_demo_overrides_shrink_the_recipe(name: str) -> None:
    recipe = load_recipe(name)
    changed_recipe = override(recipe, recipe.demo)
    assert changed_recipe.image_size < recipe.image_size
    assert changed_recipe.full.epochs < recipe.full.epochs


# What the study does not mention: set=study turns each of these off.
NOT_IN_THE_STUDY = {
    "ema_decay": 0.0, "clip_norm": 0.0, "class_weighting": False, "kept_phase": "full", "full.patience": 0,
    "full.weight_decay": 0.0, "full.warmup_epochs": 0.0, "full.schedule": "constant", "full.backbone_lr_factor": 1.0,
    "augment.contrast": 0.0, "augment.flip": False, "augment.gamma": 0.0, "augment.noise": 0.0, "augment.blur": 0.0,
    "augment.clahe": 0.0, "augment.cutout": 0.0, "augment.elastic": 0.0, "source_scale": 1.0,
}  # fmt: skip


@pytest.mark.parametrize("name", STUDIED)
def test_the_studys_values_leave_nothing_on_that_the_study_does_not_mention(name: str) -> None:
    recipe = load_recipe(name)
    literal = override(recipe, recipe.study)
    values = resolved_values(literal)
    assert {key: values[key] for key in NOT_IN_THE_STUDY} == NOT_IN_THE_STUDY
    assert literal.build(image_size=96, **literal.model).channels == 3
    if not recipe.pretrained:
        assert literal.upper.epochs == 0
        return
    assert (literal.upper.epochs, literal.full.epochs, literal.feature_views) == (30, 70, 30)
    assert (values["model.dropout"], values["upper.feature_dropout"]) == (0.0, 0.0)
    assert (literal.upper.schedule, literal.upper.warmup_epochs, literal.upper.weight_decay) == ("constant", 0.0, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_the_studys_values_say_nothing_twice(name: str) -> None:
    recipe = load_recipe(name)
    assert [key for key, value in recipe.study.items() if resolved_values(recipe)[key] == value] == []


def extremes(space: Space) -> tuple[Value, Value]:
    return (space.values[0], space.values[-1]) if isinstance(space, Choice) else (space.low, space.high)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("end", [0, 1])
def test_the_limits_of_every_searched_range_are_valid(name: str, end: int) -> None:
    recipe = load_recipe(name)
    changes = {key: extremes(space)[end] for key, space in recipe.search.items()}
    override(recipe, changes)


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_is_inside_its_own_search_space(name: str) -> None:
    recipe = load_recipe(name)
    values = resolved_values(recipe)
    ranges = {key: space for key, space in recipe.search.items() if not isinstance(space, Choice)}
    assert all(space.low <= values[key] <= space.high for key, space in ranges.items())


@pytest.mark.parametrize("name", NAMES)
def test_the_first_trial_is_the_recipe_unchanged(name: str) -> None:
    recipe = load_recipe(name)
    first, second = draw_values(recipe, 2, seed=0, fixed={}, search="quasi")
    assert first == {}
    assert set(second) == set(recipe.search)


def test_exactly_one_recipe_of_the_study_registers_its_model() -> None:
    assert [name for name in STUDIED if load_recipe(name).registers] == ["inception_add_gate"]


def test_the_inception_recipes_train_as_long_as_in_the_study() -> None:
    for name in ("inception", "inception_add_gate"):
        recipe = load_recipe(name)
        assert (recipe.upper.epochs, recipe.full.epochs, recipe.upper.trains) == (30, 70, HEAD_ONLY)


# Architectures


def convolutions(network: Network) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)]


@pytest.mark.parametrize("name", ["cnn", "cnn_attention"])
def test_the_cnns_have_the_layers_of_the_study(name: str) -> None:
    recipe = load_recipe(name)
    network = recipe.build(image_size=96, **recipe.model)
    layers = list(network.backbone)
    kinds = [(c.stride[0], c.dilation[0]) for c in convolutions(network)]
    assert sorted(kinds) == [(1, 2), (1, 2), (2, 1), (2, 1)]
    pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    assert [type(layers[i - 1]) for i in pools] == [nn.BatchNorm2d] * 2
    units = [layer.out_features for layer in network.head if isinstance(layer, nn.Linear)]
    assert max(units) <= 10
    assert units[-1] == 1
    assert any(isinstance(layer, nn.Dropout) for layer in network.head)


def test_attention_allows_more_filters_and_smaller_dense_layers() -> None:
    plain, attention = (
        load_recipe(name).build(image_size=224, **load_recipe(name).model) for name in ("cnn", "cnn_attention")
    )
    filters, plain_filters = ([c.out_channels for c in convolutions(one)] for one in (attention, plain))
    assert sum(filters) >= 2.5 * sum(plain_filters)
    assert filters[-1] >= 4 * plain_filters[-1]
    assert attention.head[1].in_features <= plain.head[1].in_features


@pytest.mark.parametrize("name", ["cnn", "cnn_attention"])
@pytest.mark.parametrize("size", [75, 96, 127, 224])
def test_the_cnns_accept_any_image_size(name: str, size: int) -> None:
    network = load_recipe(name).build(image_size=size).eval()
    assert network(torch.zeros(2, size, size, dtype=torch.uint8)).shape == (2,)


def test_attention_weighs_values_by_content_and_by_place() -> None:
    torch.manual_seed(0)
    layer = LocalAttention(8, side=3, heads=2, values=4).eval()
    maps = torch.randn(5, 8, 3, 3)
    query, key, value = (conv(layer.norm(maps)).flatten(2) for conv in (layer.query, layer.key, layer.value))
    expected = []
    for head, rows in enumerate(((0, 1), (2, 3))):  # channels of a head, and its share of the values
        weights = torch.softmax(query[:, rows].transpose(1, 2) @ key[:, rows] / 2**0.5 + layer.bias[head], dim=-1)
        expected.append(value[:, rows] @ weights.transpose(1, 2))
    attended = layer.rescale(torch.cat(expected, dim=1).unflatten(2, (3, 3)))
    torch.testing.assert_close(layer(maps), torch.relu(attended), atol=1e-6, rtol=1e-5)


def test_attention_starts_near_its_position_and_wider_in_each_head() -> None:
    bias = torch.softmax(LocalAttention(8, side=8, heads=4, values=16).bias.detach(), dim=-1)
    centre = 8 * 4 + 4
    own = bias[:, centre, centre]
    assert own[0] > 0.6
    assert list(own) == sorted(own, reverse=True)
    assert float(own[-1]) < 0.05


def test_without_attention_every_position_has_the_same_values() -> None:
    torch.manual_seed(0)
    layer, maps = LocalAttention(8, side=4, heads=2, values=4).eval(), torch.randn(3, 8, 4, 4)
    assert float(layer(maps).detach().flatten(2).std(dim=2).max()) > 0.1
    layer.attend = lambda query, key: torch.full((3, 2, 16, 16), 1 / 16)  # type: ignore[assignment]
    assert float(layer(maps).detach().flatten(2).std(dim=2).max()) < 1e-6


def test_every_part_of_the_attention_is_trained_from_the_first_step() -> None:
    torch.manual_seed(0)
    network = load_recipe("cnn_attention").build(image_size=64)
    network(torch.randint(0, 255, (8, 64, 64), dtype=torch.uint8)).square().sum().backward()
    assert [name for name, p in network.backbone[-1].named_parameters() if not p.grad.abs().max() > 1e-8] == []


def test_the_add_gate_adds_dense_1_to_dense_2() -> None:
    torch.manual_seed(0)
    head = AddGateHead(6, 4, dropout=0.5).eval()
    features = torch.randn(5, 6)
    weights = {name: value.numpy() for name, value in head.state_dict().items()}
    first = np.maximum(features.numpy() @ weights["dense1.weight"].T + weights["dense1.bias"], 0)
    second = np.maximum(first @ weights["dense2.weight"].T + weights["dense2.bias"], 0)
    expected = (first + second) @ weights["output.weight"].T + weights["output.bias"]
    np.testing.assert_allclose(head(features).detach().numpy(), expected, atol=1e-6)


def test_the_inception_recipes_have_the_same_backbone_and_can_share_features() -> None:
    digests = set()
    for name in ("inception", "inception_add_gate"):
        torch.manual_seed(3)
        digests.add(extractor_digest(load_recipe(name).build(image_size=96)))
    assert len(digests) == 1


# Pinned numbers


@dataclass
class RandomImages:
    """24 random images, brighter where abnormal, without augmentation."""

    size: int = 64
    batch_size: int = 8

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.labels = rng.integers(0, 2, 24)
        pixels = rng.integers(0, 156, (24, self.size, self.size)) + 100 * self.labels[:, None, None]
        self.images = torch.from_numpy(pixels.astype(np.uint8))

    def batches(self, phase: str, epoch: int) -> Generator[Batch]:
        for rows in torch.arange(24).split(self.batch_size):
            yield Batch(self.images[rows], torch.from_numpy(self.labels)[rows].float(), rows)

    def features(self, network: Network) -> Features:
        network.eval()
        with torch.no_grad():
            pooled = network.pooled(self.images).numpy()
        return Features(pooled[None], pooled)


def losses(network: Network, phases: dict[str, Phase], folder: Path, *, amp: bool = False) -> list[float]:
    torch.set_num_threads(1)
    epochs = train(
        network,
        phases,
        RandomImages(),
        settings=TrainerSettings(amp=amp),
        validate=lambda *_: {"val_study_auroc": 0.5},
        folder=folder,
    )
    return [result.train_loss for result in epochs]


def test_the_losses_of_the_cnn_are_pinned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    phases = {"upper": Phase(epochs=1, lr=1e-3), "full": Phase(epochs=2, lr=3e-3)}
    found = losses(load_recipe("cnn").build(image_size=64), phases, tmp_path)
    assert found == pytest.approx([0.710644, 0.624586, 0.423504], abs=1e-4)


def test_the_losses_of_the_cnn_in_bfloat16_are_pinned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    phases = {"upper": Phase(epochs=1, lr=1e-3), "full": Phase(epochs=2, lr=3e-3)}
    found = losses(load_recipe("cnn").build(image_size=64), phases, tmp_path, amp=True)
    assert found == pytest.approx([0.7121, 0.6235, 0.4148], abs=5e-3)  # processors round differently in emulation


def test_the_losses_of_the_add_gate_are_pinned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 16, 5, 4), nn.BatchNorm2d(16), nn.ReLU())
    pool = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    network = Network(backbone=backbone, pool=pool, head=AddGateHead(16, 8, 0.2), channels=1)
    phases = {"upper": Phase(epochs=2, lr=1e-2, trains=HEAD_ONLY), "full": Phase(epochs=1, lr=1e-2)}
    assert losses(network, phases, tmp_path) == pytest.approx([0.683445, 0.629684, 0.662798], abs=1e-4)
