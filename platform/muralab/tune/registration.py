"""The best add-gate model of a search becomes a version of the registered model, and the gate decides on its alias."""

from __future__ import annotations

import math
import re
import shlex
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from muralab.config.commands import REGISTER_NONE, REGISTER_RECIPE, REGISTER_WINNER
from muralab.errors import MuraLabError
from muralab.evaluation.metrics import main_metrics
from muralab.recipe_loader import load_recipe
from muralab.registry.fast_engine import BATCH_SIZE as ENGINE_BATCH
from muralab.registry.fast_engine import EngineTest
from muralab.registry.promote import Promotion, promote_version, version_of_run
from muralab.registry.register import MAX_FAMILIAR, FamiliarImages, RegisteredModel, register_model
from muralab.report.card import model_card
from muralab.report.context import Context
from muralab.results.final_test import FinalTest
from muralab.results.trained_model import spread_evenly
from muralab.serving.engine import EXACT, FAST
from muralab.tracking import Store
from muralab.tracking.platform_version import platform_version
from muralab.tracking.tags import Tag
from muralab.tune.plan import Sweep

ANSI = re.compile(r"\x1b\[[0-9;]*m")
FOLD_NOT_REGISTERED = (
    "Not registered: folds measure recipes, and each fold's model is tested on other patients. To register a model, "
    "search with one test set (test_fraction), or pass a run through the gate: promote run=<id>."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Registration:
    """A model that was registered, and what the gate decided."""

    test: FinalTest
    model: RegisteredModel
    promotion: Promotion

    @property
    def statements(self) -> list[str]:
        """The gate's decision and its reasons."""
        return [*filter(None, [self.model.engine]), *self.promotion.lines()]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """How the registration of a search ended."""

    statements: Sequence[str]
    """The gate's decision with its reasons, or why no model was registered."""
    registration: Registration | None = None
    error: Exception | None = None
    """What failed; to be raised once the report is written."""


def select_candidate(tests: Sequence[FinalTest], register: str = REGISTER_RECIPE) -> FinalTest | None:
    """The model that a search registers.

    Args:
        tests: the best trial of each recipe.
        register: `recipe`: the best on validation of the recipes that ask for it; `winner`: the best of all.
    """
    asking = [one for one in tests if register == REGISTER_WINNER or load_recipe(one.model.recipe).registers]
    return max(asking, key=lambda one: _comparable(one.model.objective), default=None)


def may_register(recipes: Iterable[str], register: str) -> bool:
    """Whether a search of recipes will register a model, if it beats chance; `register` as for `select_candidate`."""
    if register == REGISTER_NONE:
        return False
    return register == REGISTER_WINNER or any(load_recipe(name).registers for name in recipes)


def _comparable(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def register_candidate(
    sweep: Sweep, tests: Sequence[FinalTest], register: Callable[[FinalTest], Registration]
) -> Outcome:
    """Register the candidate if it beats chance; none of a fold. A failure is part of the outcome: it costs no report.

    Args:
        sweep: whose recipes were trained.
        tests: the best trial of each recipe.
        register: does it.
    """
    if sweep.config.options.test_folds is not None:
        return Outcome(statements=[FOLD_NOT_REGISTERED])
    which = getattr(sweep.config.options, "register", REGISTER_RECIPE)
    if which == REGISTER_NONE:
        return Outcome(statements=[_not_asked(sweep, tests)])
    candidate = select_candidate(tests, which)
    if candidate is None:
        return Outcome(statements=[_no_candidate(sweep)])
    if not candidate.model.beats_chance:
        auroc = candidate.model.intervals()["auroc"]
        recipe = candidate.model.recipe
        return Outcome(
            statements=[
                f"Not registered: {recipe} is not shown to beat chance on the test set (AUROC {auroc}). More epochs, "
                "larger images, pretrained weights or more patients may help."
            ]
        )
    try:
        registration = register(candidate)
    except Exception as error:  # whatever the exporter, the store or the gate raises
        return Outcome(statements=[_describe_failure(sweep, candidate, error)], error=error)
    return Outcome(statements=registration.statements, registration=registration)


def _not_asked(sweep: Sweep, tests: Sequence[FinalTest]) -> str:
    found = select_candidate(tests) or select_candidate(tests, REGISTER_WINNER)
    later = "" if found is None else f" To register {found.model.recipe} later: {_promote_command(sweep, found)}"
    return f"Not registered, as register={REGISTER_NONE} asks.{later}"


def _promote_command(sweep: Sweep, candidate: FinalTest) -> str:
    part = shlex.quote(sweep.part)
    return f".venv/bin/muralab promote --part {part} --run {candidate.model.run_id}"


def _no_candidate(sweep: Sweep) -> str:
    asking = [name for name, recipe in sweep.config.recipes.items() if recipe.registers]
    if asking:
        return f"Not registered: {', '.join(asking)}, which would be, has no result."
    return (
        "Not registered: no recipe that is meant for serving (inception_add_gate) was among those that ran. "
        "register=winner registers the model that validation chose, and `promote` any tested run."
    )


def _describe_failure(sweep: Sweep, candidate: FinalTest, error: Exception) -> str:
    reason = sweep.dataset.hide_names(str(error))
    if not isinstance(error, MuraLabError):  # the exporter prints a page of advice; its traceback follows
        first = reason.strip().partition("\n")[0]
        reason = f"{textwrap.shorten(ANSI.sub('', first), 200)} ({type(error).__name__})"
    return (
        f"Not registered: the model of {candidate.model.recipe} could not be exported, checked, registered or passed "
        f"through the gate. {' '.join(reason.split()).rstrip('.')}. Its weights and figures are kept; once that is "
        f"fixed: {_promote_command(sweep, candidate)}"
    )


def register(candidate: FinalTest, sweep: Sweep, store: Store, context: Context, why: str = "") -> Registration:
    """Export, check and register a model, and pass it through the gate.

    Args:
        candidate: with its network.
        sweep: that trained it.
        store: flushed: the gate reads the champion's stored predictions.
        context: for the model card.
        why: a sentence for the card on why this model is registered.
    """
    name, model = f"mura-{sweep.part}", candidate.model
    known = version_of_run(store, name, model.run_id)  # of a sweep that stopped between here and its end
    if known is not None:
        registered = RegisteredModel(name=name, version=str(known.version), uri=f"models:/{name}/{known.version}")
    else:
        registered = _register(candidate, sweep, store, context, name, why)
    promotion = promote_version(store, name, registered.version, candidate=model, cache=sweep.folders.cache)
    return Registration(test=candidate, model=replace(registered, uri=promotion.uri), promotion=promotion)


def _register(
    candidate: FinalTest, sweep: Sweep, store: Store, context: Context, name: str, why: str
) -> RegisteredModel:
    model = candidate.model
    assert candidate.network is not None
    assert model.calibration is not None
    figures = {f"{Tag.TEST_STUDY_PREFIX}{metric}": str(model.intervals()[metric]) for metric in main_metrics()}
    images = sweep.dataset.caches[candidate.image_size]
    rows = spread_evenly(list(images.rows(sweep.dataset.tables["validation"])))
    familiar = {
        name: np.asarray(images.images[spread_evenly(list(images.rows(sweep.dataset.tables[name])), n)])
        for name, n in MAX_FAMILIAR.items()
    }
    return register_model(
        network=candidate.network,
        image_size=candidate.image_size,
        calibration=model.calibration.to_dict(),
        name=name,
        run_id=model.run_id,
        card=model_card(model, context, why),
        tags={
            **sweep.tags,
            **platform_version().tags,
            Tag.RECIPE: model.recipe,
            Tag.RECIPE_CODE: candidate.spec.recipe_code,
            Tag.KEPT_PHASE: model.training.kept_phase,
            **figures,
        },
        verify_images=np.asarray(images.images[rows]),
        familiar=FamiliarImages(**familiar),
        fast=_engine_test(candidate, sweep) if getattr(sweep.config.options, "engine", EXACT) == FAST else None,
        alias=None,
        store=store,
    )


def _engine_test(candidate: FinalTest, sweep: Sweep) -> EngineTest:
    """The candidate's evaluation with its test images, from the cache of decoded images."""
    images = sweep.dataset.caches[candidate.image_size]
    rows = images.rows(candidate.model.predictions())
    batches = (
        np.asarray(images.images[rows[first : first + ENGINE_BATCH]]) for first in range(0, len(rows), ENGINE_BATCH)
    )
    return EngineTest(model=candidate.model, batches=batches)
