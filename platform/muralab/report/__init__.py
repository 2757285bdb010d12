"""Evaluated models as one self-contained HTML page, as a table of results, and as a model card."""
