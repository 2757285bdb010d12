"""Which labels are suspicious: studies that networks which have not seen them answer confidently against their label.

Confident learning (Northcutt, Jiang and Chuang 2021, doi:10.1613/jair.1.12125): a study is suspicious if its
probability of the other class is at least the mean probability which that class's own studies have of it. Probabilities
must be out of fold: a network that was trained on a study has learnt its label, right or wrong.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from muralab.errors import DataError


def rank_labels(studies: pd.DataFrame) -> pd.DataFrame:
    """Sort studies by how little their label is believed, least first.

    Args:
        studies: one row per study: study, label (0 or 1), probability (out of fold, calibrated), and anything else.

    Returns:
        The same rows with rank (from 1), confidence (probability of the study's own label) and suspicious (bool).

    Raises:
        DataError: a study occurs twice or has no probability, or there are studies of one class only.
    """
    probabilities = studies["probability"].to_numpy(dtype=np.float64)
    labels = studies["label"].to_numpy()
    if studies["study"].duplicated().any() or not np.isfinite(probabilities).all():
        raise DataError("A ranking of labels needs each study once, with an out-of-fold probability.")
    if len(set(labels.tolist())) < 2:
        raise DataError("A ranking of labels needs normal and abnormal studies.")
    abnormal = labels == 1
    other = np.where(abnormal, 1 - probabilities, probabilities)
    usual = {True: (1 - probabilities)[~abnormal].mean(), False: probabilities[abnormal].mean()}
    suspicious = other >= np.where(abnormal, usual[True], usual[False])
    ranked = studies.assign(confidence=1 - other, suspicious=suspicious & (other > 0.5))
    ranked = ranked.sort_values(["confidence", "study"], kind="stable", ignore_index=True)
    return ranked.assign(rank=np.arange(1, len(ranked) + 1))
