"""Pixels and labels, without models, recipes, MLflow or Ray."""
