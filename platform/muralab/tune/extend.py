"""More trials for a sweep, also for one that has ended: `trials=+8` with `resume=<its run>`.

The added trials continue the sweep's own sequence of draws, or its choices. The plan of a sweep that has ended is read
from its run, as are the figures and weights of its best trials: what was tested once is not tested again.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from muralab.errors import SettingsError, StoreError, StoreUnavailableError
from muralab.tracking import Store, download_artifact
from muralab.tune.folders import Folders
from muralab.tune.plan import Sweep, with_inputs
from muralab.tune.resume import Plan, parse_plan
from muralab.tune.sampler import draw_specs
from muralab.tune.warm_start import choose_earlier


def fetch_plan(store: Store, run_id: str, folders: Folders) -> Plan:
    """The plan of a sweep that has ended, as its run keeps it.

    Raises:
        StoreError: the run keeps none, or the store failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = download_artifact(store, run_id, folders.plan.name, Path(folder))
        except StoreUnavailableError:
            raise
        except StoreError as error:
            raise StoreError(
                f"resume={run_id}: this run keeps no plan of a sweep, so it cannot be extended. Give the run of a "
                "sweep (not of one trial, or of several folds)."
            ) from error
        return parse_plan(path.read_text(encoding="utf-8"), folders, run_id)


def extend(sweep: Sweep, more: int, *, has_ended: bool) -> Sweep:
    """A sweep with more trials of each recipe.

    Args:
        sweep: as it was planned.
        more: how many more.
        has_ended: whether its best trials have been tested already.

    Raises:
        SettingsError: it is one of several folds.
    """
    config = sweep.config
    if config.options.test_folds is not None:
        raise SettingsError(
            f"trials=+{more}: a sweep with test_folds cannot be extended, since its figures are those of all folds."
        )
    before, after = config.trials, config.trials + more
    config = replace(config, trials=after, options=replace(config.options, trials=after))  # type: ignore[call-arg]
    planned = {spec.name for spec in sweep.specs}
    drawn = draw_specs(config, sweep.folders, {spec.recipe: spec.weights for spec in sweep.specs})
    added = with_inputs([spec for spec in drawn if spec.name not in planned], sweep.inputs, sweep.dataset)
    known = ", when the results of its first trials on the test set were known" if has_ended else ""
    extended = replace(sweep, config=config, extended=sweep.extended + more * has_ended, specs=(*sweep.specs, *added))
    return choose_earlier(extended).with_notes([f"Extended from {before} to {after} trials per recipe{known}."])
