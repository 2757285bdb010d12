"""What MLflow's pages say about a search: descriptions of its run and of its experiment, views of its trials."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.report.sentences import headline, number, with_bounds
from muralab.report.verdict import confusion_sentence, find_registered, missed_sentence, registered_sentence, shares
from muralab.tracking.experiment_page import TrialsView, view_key
from muralab.tracking.pages import artifact_page, run_page, version_page, view_page
from muralab.tune.plan import Sweep
from muralab.tune.registration import Outcome
from muralab.tune.trial_names import searched_keys

NOT_A_DEVICE = "Research software, not a medical device."
SYNTHETIC = "**Synthetic images**: the figures say nothing about radiographs."


@dataclass(frozen=True, kw_only=True)
class SweepPages:
    """Where the pages of a search are."""

    experiment_id: str
    run_id: str
    """Of the search."""

    def run(self, run_id: str) -> str:
        """The page of a run of this experiment."""
        return run_page(self.experiment_id, run_id)

    @property
    def view(self) -> str:
        """The table of the search's trials."""
        return view_page(self.experiment_id, view_key(self.run_id))

    def links(self) -> list[str]:
        """Links to what every search has."""
        charts = view_page(self.experiment_id, view_key(self.run_id), charts=True)
        return [
            f"[Its trials as a table]({self.view})",
            f"[as charts, with parallel coordinates]({charts})",
            f"[Report]({artifact_page(self.experiment_id, self.run_id, 'report.html')})",
        ]


def build_views(sweep: Sweep, title: str, run_id: str) -> list[TrialsView]:
    """The view of a search's own trials, and that of all trials of its experiment.

    Args:
        sweep: as planned.
        title: of the search's run.
        run_id: of the search.
    """
    objective = sweep.config.options.objective
    searched = {recipe: searched_keys(sweep.specs, recipe) for recipe in sweep.config.recipes}
    return [
        TrialsView(name="All trials", searched=searched, objective=objective),
        TrialsView(
            name=f"Trials of {title}, {datetime.now():%Y-%m-%d %H:%M}",
            searched=searched,
            objective=objective,
            parent=run_id,
        ),
    ]


def started_note(sweep: Sweep, pages: SweepPages) -> str:
    """The description of a search that has just started."""
    n_trials = len(sweep.specs)
    return "\n\n".join([f"**Running**: {n_trials} trials are planned.", " · ".join(pages.links()[:2])])


def sweep_note(
    sweep: Sweep,
    models: Sequence[EvaluatedModel],
    best: EvaluatedModel | None,
    outcome: Outcome,
    pages: SweepPages,
    missing: Sequence[str] = (),
) -> str:
    """The description of a search that has ended, in Markdown.

    Args:
        sweep: as planned.
        models: the tested models.
        best: the one that validation selected.
        outcome: of the registration.
        pages: where its pages are.
        missing: a sentence for each recipe without a result.
    """
    registered = registered_name(outcome)
    first, *rest = _verdict(sweep, models, best, outcome, registered)
    parts = [
        first,
        _table(sweep, models, registered, pages),
        *rest,
        *missing,
        " · ".join([*pages.links(), *_more_links(best, outcome, pages)]),
        _next(sweep, outcome, pages),
        NOT_A_DEVICE,
    ]
    return "\n\n".join(parts)


def registered_name(outcome: Outcome) -> str | None:
    """The recipe whose model was registered; None for none."""
    return None if outcome.registration is None else outcome.registration.test.model.recipe


def _verdict(
    sweep: Sweep,
    models: Sequence[EvaluatedModel],
    best: EvaluatedModel | None,
    outcome: Outcome,
    registered: str | None,
) -> list[str]:
    """The verdict in a paragraph, which MLflow shows before anything is unfolded, and what explains it."""
    served = find_registered(models, registered)
    lines = [
        f"{short_verdict(models, best, registered)}{f' {SYNTHETIC}' if sweep.dataset.synthetic else ''}",
        "" if best is None else f"Chosen: {headline(best)} {confusion_sentence(best)}",
        "" if served is None or served is best else f"Served: {headline(served)} {confusion_sentence(served)}",
        registered_sentence(models, registered, part=sweep.part),
        "\n".join(f"- {statement}" for statement in outcome.statements),
    ]
    return [line for line in lines if line]


def short_verdict(models: Sequence[EvaluatedModel], best: EvaluatedModel | None, registered: str | None) -> str:
    """The chosen and the registered model with their test AUROC, in one line of Markdown."""
    served = find_registered(models, registered)
    shown = served or best
    missed = "" if shown is None else missed_sentence(shown)
    if best is None:
        return "Validation chose no model."
    if served is None:
        outcome = "nothing was registered."
    elif served is best:
        outcome = "which is also registered."
    else:
        outcome = f"**{_with_auroc(served)}** is registered."
    return f"Validation chose **{_with_auroc(best)}**; {outcome}{f' **{missed}**' if missed else ''}"


def _with_auroc(model: EvaluatedModel) -> str:
    auroc = model.intervals().get("auroc")
    return model.title if auroc is None else f"{model.title}, test AUROC {with_bounds(auroc)}"


def _table(sweep: Sweep, models: Sequence[EvaluatedModel], registered: str | None, pages: SweepPages) -> str:
    head = f"| recipe | {sweep.config.options.objective} | test AUROC, 95% | kappa, 95% | finds | false alarms |"
    rows = [head, "|---|---|---|---|---|---|"]
    for model in models:
        counts, intervals = shares(model), model.intervals()
        name = f"[{model.recipe}]({pages.run(model.run_id)})" + (" (registered)" if model.recipe == registered else "")
        figures = [with_bounds(intervals[key]) if key in intervals else "–" for key in ("auroc", "kappa")]
        found = ["–", "–"] if counts is None else [f"{counts[0]} of {counts[1]}", f"{counts[2]} of {counts[3]}"]
        rows.append(f"| {' | '.join([name, number(model.objective), *figures, *found])} |")
    return "\n".join(rows)


def _more_links(best: EvaluatedModel | None, outcome: Outcome, pages: SweepPages) -> list[str]:
    links = [] if best is None else [f"[Run of the chosen model]({pages.run(best.run_id)})"]
    if outcome.registration is not None:
        model = outcome.registration.model
        links.append(f"[{model.name} version {model.version}]({version_page(model.name, model.version)})")
    return links


def _next(sweep: Sweep, outcome: Outcome, pages: SweepPages) -> str:
    part = shlex.quote(sweep.part)
    served = [] if outcome.registration is None else [f"make serve PART={part}", f"make app PART={part}"]
    report = f".venv/bin/muralab report --runs {pages.run_id} --out report.html"
    return "\n".join(["Next:", "```", *served, report, "```"])


def experiment_note(
    sweep: Sweep, models: Sequence[EvaluatedModel], best: EvaluatedModel | None, outcome: Outcome, pages: SweepPages
) -> str:
    """The description of the experiment after a search."""
    verdict = short_verdict(models, best, registered_name(outcome)).replace("**", "")
    latest, all_trials = pages.run(pages.run_id), view_page(pages.experiment_id, view_key())
    return "\n\n".join(
        [
            # The list of experiments shows the beginning as it is written, so it has no links.
            f"Is a study of radiographs ({sweep.part}) abnormal? Latest search, {datetime.now():%Y-%m-%d %H:%M}: "
            f"{verdict}",
            f"[The latest search]({latest}) · [All trials]({all_trials}), best first",
            *([SYNTHETIC] if sweep.dataset.synthetic else []),
            f"Here is everything that MURA Lab trained, compared and evaluated. {NOT_A_DEVICE}",
            f"**How to read this page.** [All trials]({all_trials}), best first, with what was searched (also under "
            "*Views*). `objective/best` is the validation metric that selects; `muralab.test_study_auroc` is the test "
            "AUROC on studies with its 95% interval, only of the best trial of each recipe: the test set is evaluated "
            "once per recipe. `muralab.ended`: finished, pruned, stopped or failed. Without a view, the table nests "
            "trials under their search.",
        ]
    )


def result_metrics(models: Sequence[EvaluatedModel], best: EvaluatedModel | None) -> dict[str, float]:
    """Metrics of a search's own run: those of the chosen model, and as `recipes/<recipe>/...` those of every one."""
    found: dict[str, float] = {}
    for model in models:
        figures = _figures(model)
        found |= {f"recipes/{model.recipe}/{name}": value for name, value in figures.items()}
        if model is best:
            found |= figures
    return found


def _figures(model: EvaluatedModel) -> Mapping[str, float]:
    intervals = model.intervals()
    shown = {name: intervals[name] for name in ("auroc", "kappa", "sensitivity", "specificity") if name in intervals}
    return {
        "objective": model.objective,
        **{f"test_study_{name}": interval.estimate for name, interval in shown.items()},
        **{f"test_study_{name}_low": interval.low for name, interval in shown.items()},
        **{f"test_study_{name}_high": interval.high for name, interval in shown.items()},
    }
