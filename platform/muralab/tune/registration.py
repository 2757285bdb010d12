"""The end's end: the best add-gate model becomes a version of the registered model, and the gate says which kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from muralab.recipe import load_recipe
from muralab.registry import Promotion, RegisteredModel, promote_version, register_model
from muralab.registry.promote import version_of_run
from muralab.report import model_card
from muralab.results.final_test import Judged, verification_images
from muralab.tracking.tags import Tag
from muralab.trial import recipes_of

if TYPE_CHECKING:
    from muralab.report import Context, Entry
    from muralab.tune.prepare import Sweep
    from muralab.tune.trial_logger import Logbook


@dataclass(frozen=True, kw_only=True, eq=False)
class Registration:
    """A model that was registered, and what the gate made of it."""

    judged: Judged
    model: RegisteredModel
    promotion: Promotion

    @property
    def lines(self) -> list[str]:
        """What happened, in words."""
        return [f"Registered {self.model.name} version {self.model.version} as {self.model.uri}.", *self.gate]

    @property
    def gate(self) -> list[str]:
        """The gate's decision and its reasons."""
        return self.promotion.lines()


def registering(judged: Sequence[Judged], entries: Sequence[Entry]) -> Judged | None:
    """The model that a sweep registers: by validation, the best of the recipes that say so; the first of equals."""
    asked = [(one, entry) for one, entry in zip(judged, entries) if load_recipe(one.spec.recipe).registers]
    best = max(asked, key=lambda pair: -math.inf if math.isnan(pair[1].objective) else pair[1].objective, default=None)
    return None if best is None else best[0]


def register_best(
    sweep: Sweep, book: Logbook, judged: Sequence[Judged], entries: Sequence[Entry], context: Context
) -> Registration | None:
    """Register the best add-gate model and let it through the gate; None where it does not beat chance.

    Args:
        sweep: the sweep.
        book: its logbook, flushed: the gate reads the stored predictions.
        judged: the best trial of each recipe.
        entries: the same as the report takes them.
        context: for the card.
    """
    chosen = registering(judged, entries)
    if chosen is None or not chosen.beats_chance:
        return None
    sweep.console.print("Exporting, checking and registering the add-gate model.")
    name = f"mura-{sweep.settings.request.part}"
    known = version_of_run(sweep.store, name, chosen.run_id)  # of a sweep that stopped between here and its end
    if known is not None:
        model = RegisteredModel(name=name, version=str(known.version), uri=f"models:/{name}/{known.version}")
    else:
        model = _register(sweep, chosen, entries[list(judged).index(chosen)], context, name)
    promotion = promote_version(sweep.store, model.name, model.version, cache=sweep.folders.cache)
    if promotion.reevaluated is not None:
        book.writer.log_table(book.parent, promotion.reevaluated, "judged_again.csv")
        book.writer.set_tags(book.parent, {Tag.TEST_FINGERPRINT: promotion.fingerprint})
    return Registration(judged=chosen, model=replace(model, uri=promotion.uri), promotion=promotion)


def _register(sweep: Sweep, chosen: Judged, entry: Entry, context: Context, name: str) -> RegisteredModel:
    return register_model(
        network=chosen.network,
        image_size=recipes_of(chosen.spec)[1].image_size,
        calibration=chosen.calibration.to_dict(),
        name=name,
        run_id=chosen.run_id,
        card=model_card(entry, context),
        tags=_version_tags(sweep, chosen),
        verify_images=verification_images(chosen, sweep.dataset),
        alias=None,
        tracking_uri=sweep.store.uri,
    )


def _version_tags(sweep: Sweep, chosen: Judged) -> dict[str, str]:
    figures = {f"muralab.test_study_{name}": str(interval) for name, interval in chosen.intervals.items()}
    return {**sweep.facts, Tag.RECIPE: chosen.spec.recipe, **figures}
