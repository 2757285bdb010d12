"""Evaluation: from predictions to metrics with intervals. Independent of training; neither imports the other."""
