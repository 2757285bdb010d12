"""One self-contained HTML page for a sweep, its results as a table, and a model's card. Knows no MLflow."""

from __future__ import annotations

from muralab.report.card import model_card
from muralab.report.entries import Context, Entry, Trial, winner_of
from muralab.report.judge import calibrated_studies
from muralab.report.page import write_report
from muralab.report.results import results_table
from muralab.report.sentences import difference_sentences

__all__ = [
    "Context",
    "Entry",
    "Trial",
    "calibrated_studies",
    "difference_sentences",
    "model_card",
    "results_table",
    "winner_of",
    "write_report",
]
