"""The words of the report, for readers who do not work with classifiers."""

from __future__ import annotations

GLOSSARY = {
    "abnormal": (
        "A study whose label says that a radiologist saw something abnormal; the label does not say what or where."
    ),
    "AUROC": (
        "Area under the receiver operating curve: the share of pairs of one abnormal and one normal study in which the "
        "abnormal one has the higher probability. 0.5 is chance, 1 is perfect; it does not depend on the threshold."
    ),
    "calibrated": (
        "Of studies with a probability of 30%, about 30% are abnormal, where abnormal studies are as frequent as in "
        "the validation set."
    ),
    "interval (95%)": (
        "A range that would hold the true value in 95 of 100 repetitions with other patients. Values whose intervals "
        "overlap widely cannot be told apart by this test set."
    ),
    "kappa": "Agreement with the labels beyond what chance gives: 0 is chance, 1 is perfect.",
    "level": "Image: every view on its own. Study: all views of one body part of one patient at one time.",
    "not resolved": "The interval of a difference contains 0: this test set cannot say which model is better.",
    "operating threshold": "The probability from which a study is called abnormal, fitted on validation studies.",
    "recipe": "An architecture with its training schedule, its augmentation and the values that a search tries.",
    "sensitivity, specificity": (
        "The share of abnormal studies that are called abnormal, and of normal ones that are not."
    ),
    "training, validation, test set": (
        "Patients that the weights were fitted on, that models were chosen on, and that nothing was chosen on: only "
        "the last ones show what a model can do."
    ),
    "trial": "One training with one set of values.",
}
"""Term -> meaning."""
