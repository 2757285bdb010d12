"""The operating point: thresholds by each rule, what a sensitivity needs, and the uncertain band."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

from muralab.errors import DataError, SettingsError
from muralab.evaluation.calibration import fit_scaling
from muralab.evaluation.operating_point import (
    BAND_SHARE,
    check_patients,
    independent_patients,
    label_weight,
    operating_threshold,
    risk_coverage,
    sensitivity_bound,
    uncertain_band,
)
from muralab.serving.scaling import logit


def draw(seed, n=120, digits=2, effect=0.25):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    return labels, np.round(np.clip(rng.normal(0.4 + effect * labels, 0.2), 0.01, 0.99), digits)


def best_threshold(chances, probabilities, score):
    """By trying them all: each study is abnormal with its chance."""
    falling = np.unique(probabilities)[::-1]
    thresholds = (falling + np.append(falling[1:], 0.0)) / 2
    both, weights = np.repeat([1, 0], len(chances)), np.append(chances, 1 - chances)
    scores = [score(both, np.tile(probabilities >= t, 2), sample_weight=weights) for t in thresholds]
    best = thresholds[np.array(scores) >= max(scores) - 1e-9]
    return min(best, key=lambda t: (abs(t - 0.5), t))


@pytest.mark.parametrize(("rule", "score"), [("max-kappa", cohen_kappa_score), ("youden", balanced_accuracy_score)])
@pytest.mark.parametrize("digits", [1, 6])
def test_the_best_for_the_labels_and_the_best_for_the_probabilities_are_averaged(rule, score, digits):
    for seed in range(3):
        labels, probabilities = draw(seed, digits=digits)
        weight = label_weight(labels)
        observed, expected = (best_threshold(c, probabilities, score) for c in (labels, probabilities))
        middle = weight * np.log(observed / (1 - observed)) + (1 - weight) * np.log(expected / (1 - expected))
        found = operating_threshold(labels, probabilities, rule)
        assert np.log(found / (1 - found)) == pytest.approx(middle, abs=1e-6)


def test_patients_of_the_rarer_class_give_the_labels_their_weight():
    assert label_weight([1] * 100 + [0] * 300) == 0.5
    assert label_weight([1] * 100 + [0] * 300, [*np.arange(100) // 2, *range(100, 400)]) == pytest.approx(1 / 3)


def test_on_new_studies_the_threshold_of_a_small_set_beats_the_best_for_its_labels():
    differences = []
    new, fresh = draw(999, n=4000, digits=9)
    fresh = fit_scaling(new, logit(fresh)).probabilities(logit(fresh))
    for seed in range(40):
        rows = np.random.default_rng(seed).choice(4000, 60, replace=False)
        ours, labels_alone = (
            operating_threshold(new[rows], fresh[rows]),
            best_threshold(new[rows].astype(float), fresh[rows], cohen_kappa_score),
        )
        differences.append(cohen_kappa_score(new, fresh >= ours) - cohen_kappa_score(new, fresh >= labels_alone))
    assert np.mean(differences) > 0.01


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9])
def test_the_highest_threshold_whose_bound_reaches_the_sensitivity_is_taken(share):
    labels, probabilities = draw(4)
    threshold = operating_threshold(labels, probabilities, f"sensitivity>={share}")
    assert sensitivity_bound(labels, probabilities, threshold) >= share
    next_higher = probabilities[probabilities >= threshold].min() + 1e-9
    assert sensitivity_bound(labels, probabilities, next_higher) < share


def test_the_bound_is_that_of_clopper_and_pearson():
    labels, probabilities = np.repeat([0, 1], [10, 40]), np.append(np.full(10, 0.1), np.linspace(0.2, 0.9, 40))
    threshold = (probabilities[12] + probabilities[13]) / 2  # misses 3 of 40
    assert sensitivity_bound(labels, probabilities, threshold) == pytest.approx(beta.ppf(0.05, 37, 4))


def test_a_sensitivity_holds_on_new_patients_in_95_of_100_fits():
    rng, held = np.random.default_rng(0), 0
    labels, patients = np.repeat([0, 1], [100, 80]), np.append(np.arange(100), 100 + np.arange(80) // 2)
    for _ in range(400):
        effect = np.repeat(rng.normal(0.6, 0.14, 40), 2)  # of a patient, shared by two studies
        probabilities = np.append(rng.normal(0.4, 0.2, 100), effect + rng.normal(0, 0.14, 80)).clip(0.001, 0.999)
        threshold = operating_threshold(labels, probabilities, "sensitivity>=0.8", patients=patients)
        held += np.mean((rng.normal(0.6, np.hypot(0.14, 0.14), 5000)).clip(0.001, 0.999) >= threshold) >= 0.8
    assert held / 400 >= 0.93


@pytest.mark.parametrize(
    ("labels", "patients", "rule", "message"),
    [
        (
            np.ones(28),
            None,
            "sensitivity>=0.9",
            r"needs at least 29 .* there are 28\. Give sensitivity>=0\.89 or lower",
        ),
        (np.ones(58), np.arange(58) // 2, "sensitivity>=0.95", r"needs at least 59 .* there are 29\."),
        (np.ones(31), [0, 0, 0, *range(1, 29)], "sensitivity>=0.9", r"there are 29, worth 26\.0 with one study each"),
        (np.zeros(5), None, "sensitivity>=0.5", r"there are 0\. Give max-kappa"),
        (np.ones(900), None, "sensitivity>=1", "needs infinitely many"),
    ],
)
def test_too_few_abnormal_patients_for_a_sensitivity_are_refused(labels, patients, rule, message):
    with pytest.raises(SettingsError, match=message):
        check_patients(labels, patients, rule)


def test_enough_abnormal_patients_are_accepted():
    check_patients(np.ones(29), None, "sensitivity>=0.9")
    check_patients(np.ones(1), None, "max-kappa")


def test_studies_of_one_patient_count_once():
    assert independent_patients([1, 1, 1, 1, 0], ["a", "a", "b", "b", "b"]) == 2
    assert independent_patients([1, 1, 0], None) == 2


def test_a_threshold_lies_between_two_probabilities():
    assert operating_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)


def test_probabilities_that_differ_in_the_last_bit_are_separated():
    low, high = 0.3, np.nextafter(0.3, 1)
    threshold = operating_threshold([0, 0, 1], [low, low, high])
    assert low < threshold <= high


def test_no_threshold_from_one_class_or_constant_probabilities():
    with pytest.raises(DataError, match="all 3 validation studies are abnormal"):
        operating_threshold([1, 1, 1], [0.1, 0.2, 0.3])
    with pytest.raises(DataError, match=r"have the same probability, 0\.400"):
        operating_threshold([0, 1], [0.4, 0.4])


def test_risk_and_coverage_start_at_all_studies():
    coverage, risk, distance = risk_coverage([0, 1, 0, 1], [0.1, 0.45, 0.6, 0.9], 0.5)
    assert coverage.tolist() == [1, 0.75, 0.5]  # 0.1 and 0.9 are equally far
    assert risk.tolist() == [0.5, pytest.approx(1 / 3), 0]
    assert (np.diff(distance) > 0).all()


def test_a_fifth_of_the_studies_lies_in_the_band():
    labels, probabilities = draw(5, n=400, digits=6, effect=0.4)
    threshold = operating_threshold(labels, probabilities)
    low, high = uncertain_band(probabilities, threshold)
    assert low < threshold < high
    assert ((probabilities >= low) & (probabilities <= high)).sum() == BAND_SHARE * 400


def test_the_share_in_the_band_holds_on_new_studies():
    shares = []
    for seed in range(100):
        labels, probabilities = draw(seed, n=100, digits=9)
        band = uncertain_band(probabilities, operating_threshold(labels, probabilities))
        _, new = draw(1000 + seed, n=1000, digits=9)
        shares.append(((new >= band[0]) & (new <= band[1])).mean())
    assert np.mean(shares) == pytest.approx(BAND_SHARE, abs=0.02)
    assert np.mean(np.array(shares) > 0.3) <= 0.05


def test_fifty_studies_are_enough_for_a_band():
    probabilities = np.linspace(0.1, 0.9, 50)
    assert uncertain_band(probabilities, 0.5) is not None
    assert uncertain_band(probabilities[:49], 0.5) is None


def test_studies_of_the_same_distance_stay_together():
    probabilities = np.repeat([0.1, 0.3, 0.45, 0.7], [40, 12, 8, 40])
    low, high = uncertain_band(probabilities, 0.5)
    assert 0.3 < low < 0.45  # 0.3 and 0.45 together would be a fifth, 0.3 and 0.7 are equally far
    assert 0.55 < high < 0.7


def test_no_band_of_more_than_a_fifth_that_are_equally_far():
    assert uncertain_band(np.repeat([0.4, 0.9], [30, 70]), 0.5) is None
