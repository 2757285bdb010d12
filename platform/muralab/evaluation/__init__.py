"""Judging: predictions in, figures with intervals out. A sibling of training; neither imports the other."""
