"""Evaluated models: built from trials or MLflow runs, and compared."""
