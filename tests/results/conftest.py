"""Models of several recipes and seeds, and their comparison."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.recipe import override
from muralab.recipe_loader import load_recipe
from muralab.results.seed_comparison import compare_models
from muralab.trial import TrialSpec

SHARED = {"image_size": 64, "upper.epochs": 1, "full.epochs": 2}
RECIPES = {name: override(load_recipe(name), SHARED) for name in ("cnn", "cnn_attention")}
BASE = TrialSpec(name="cnn-00", recipe="cnn", table="split.csv", cache_folder="cache", folder="trials/cnn-00")


def simulate(rng: np.random.Generator, skills: list[float], n_patients: int = 150) -> list[EvaluatedModel]:
    """Models on one image per patient; each patient is equally difficult for all of them."""
    label = np.arange(n_patients) % 2
    common = rng.normal(size=n_patients)
    names = [f"p{patient:04d}" for patient in range(n_patients)]
    table = pd.DataFrame({"image": names, "study": names, "patient": names, "part": "wrist", "label": label})
    noise = (0.7 * common + 0.7 * rng.normal(size=n_patients) for _ in skills)
    tests = (table.assign(logit=s * (2 * label - 1) + n) for s, n in zip(skills, noise))
    return [EvaluatedModel(recipe="net", title=f"Net {i}", run_id="r", test=test) for i, test in enumerate(tests)]


def trained(skills: dict[tuple[str, int], float]) -> tuple[dict[str, EvaluatedModel], list[TrialSpec]]:
    """Models by trial, and the trials, from (recipe, seed) -> skill."""
    specs = [replace(BASE, recipe=recipe, seed=seed, name=f"{recipe}-seed{seed}") for recipe, seed in skills]
    models = [simulate(np.random.default_rng(spec.seed), [s], 60)[0] for spec, s in zip(specs, skills.values())]
    return {spec.name: model for spec, model in zip(specs, models)}, specs


@pytest.fixture
def better():
    """`cnn_attention` with three seeds, and `cnn` with one of them missing."""
    skills = {("cnn", 0): 0.3, ("cnn", 1): 0.4, **{("cnn_attention", seed): 1.6 for seed in (0, 1, 2)}}
    return compare_models(*trained(skills), ["cnn", "cnn_attention"])
