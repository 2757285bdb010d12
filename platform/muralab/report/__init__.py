"""One self-contained HTML page for a set of evaluated models, their results as a table, and a model's card."""

from __future__ import annotations

from muralab.report.card import model_card
from muralab.report.context import Context, SearchTrial
from muralab.report.page import write_report
from muralab.report.results_table import results_table
from muralab.report.sentences import difference_sentences

__all__ = ["Context", "SearchTrial", "difference_sentences", "model_card", "results_table", "write_report"]
