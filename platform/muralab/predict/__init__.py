"""Predictions for image files, by a registered model in this process or by a server, as one table."""
