"""Optimisation; knows no MLflow, Ray or folder layout, and runs without either installed."""
