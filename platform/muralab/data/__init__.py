"""Pixels and labels; knows no model, recipe, MLflow or Ray."""
