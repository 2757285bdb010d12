"""The served model: inputs, answers and error messages."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from muralab import processor
from muralab.data.images.decode import decode, to_square
from muralab.evaluation.predictions import level_rows
from muralab.serving.answer import operating_point, study_probabilities
from muralab.serving.classifier import StudyClassifier, draw_heat
from muralab.serving.config import MAX_ROWS, ServingConfig, write_config
from muralab.serving.engine import open_session
from muralab.serving.request import RequestParams
from muralab.serving.scaling import Scaling, log_odds
from tests.fixtures.payloads import encode_dicom

SIZE = 32
CONFIG = ServingConfig(
    image_size=SIZE, image_temperature=2.0, study_temperature=0.5, threshold=0.6, uncertain_low=0.55, uncertain_high=0.7
)


def png(level: int | None = None, seed: int = 0) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8)
    if level is not None:
        pixels = np.full((64, 64), level, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def sigmoid(logits: object) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(logits, float)))


def logit_of(text: str) -> float:
    return 8 * (to_square(decode(base64.b64decode(text)), SIZE).mean() / 255 - 0.5)


def load(folder, onnx_file, config):
    """A function of rows and parameters that asks a served model."""
    write_config(config, folder / "config.json")
    classifier = StudyClassifier()
    artifacts = {"onnx": str(onnx_file), "config": str(folder / "config.json")}
    classifier.load_context(SimpleNamespace(artifacts=artifacts))

    def answer(rows: list[dict], **params: object) -> pd.DataFrame:
        return classifier.predict(None, pd.DataFrame(rows), params or None)

    answer.classifier = classifier
    return answer


@pytest.fixture(scope="module")
def model(tmp_path_factory, onnx_file):
    return load(tmp_path_factory.mktemp("model"), onnx_file, CONFIG)


def test_an_image_alone_is_its_own_study(model):
    answer = model([{"image": png()}]).iloc[0]
    assert answer["probability"] == pytest.approx(sigmoid(logit_of(png()) / 2), abs=1e-6)
    assert answer["study_probability"] == pytest.approx(sigmoid(logit_of(png()) / 0.5), abs=1e-6)


def wide_png(factor: int) -> str:
    """The picture of `png()` in 16 bits, with its values times a factor."""
    grey = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey.astype(np.uint16) * np.uint16(factor)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_16_bit_picture_is_shown_in_the_range_of_the_models_training_images(tmp_path, onnx_file):
    trained = load(tmp_path, onnx_file, replace(CONFIG, value_range=(0, 4095)))
    plain, fits, bright = trained([{"image": image} for image in (png(), wide_png(16), wide_png(32))]).itertuples()
    assert fits.probability == pytest.approx(plain.probability, abs=2e-3)
    assert not any("range" in warning for warning in fits.warnings)
    assert any("outside the model's range of 0 to 4095" in warning for warning in bright.warnings)


def test_a_model_without_a_range_warns_that_a_16_bit_picture_may_be_too_dark(model):
    answer = model([{"image": wide_png(16)}]).iloc[0]
    assert any("uses 12 of its 16 bits" in warning for warning in answer["warnings"])
    assert answer["probability"] < model([{"image": png()}]).iloc[0]["probability"]


def test_a_study_is_the_mean_of_its_views_at_its_own_temperature(model):
    rows = [{"image": png(200), "study": "a"}, {"image": png(90), "study": "a"}, {"image": png(10), "study": "b"}]
    mean = sigmoid([logit_of(png(200)), logit_of(png(90))]).mean()
    expected = sigmoid(np.log(mean / (1 - mean)) / 0.5)
    np.testing.assert_allclose(model(rows)["study_probability"][:2], expected, atol=1e-6)


@pytest.mark.parametrize("missing", [None, "", float("nan"), pd.NA, pd.NaT])
def test_rows_without_a_study_stand_alone(model, missing):
    answer = model([{"image": png(200), "study": missing}, {"image": png(10), "study": missing}])
    assert answer["study_probability"].nunique() == 2


def test_more_rows_than_a_batch_keep_their_order(model):
    levels = np.linspace(20, 230, 20).astype(int)
    answer = model([{"image": png(int(level))} for level in levels])
    assert answer["probability"].is_monotonic_increasing


def test_the_threshold_is_the_stored_one_unless_given(model):
    row = [{"image": png(130)}]
    assert (model(row)["abnormal"][0], model(row)["threshold"][0]) == (False, 0.6)
    assert (model(row, threshold=0.5)["abnormal"][0], model(row, threshold=0.5)["threshold"][0]) == (True, 0.5)


def test_a_study_at_the_threshold_is_abnormal(model):
    probability = float(model([{"image": png(130)}])["study_probability"][0])
    assert model([{"image": png(130)}], threshold=probability)["abnormal"][0]
    assert not model([{"image": png(130)}], threshold=np.nextafter(probability, 1))["abnormal"][0]


@pytest.mark.parametrize(("level", "uncertain"), [(60, False), (132, True), (200, False)])
def test_inside_the_band_an_answer_is_uncertain(model, level, uncertain):
    assert model([{"image": png(level)}])["uncertain"][0] == uncertain


def test_the_band_follows_the_threshold_of_a_request():
    stored = operating_point(CONFIG, RequestParams())
    assert (stored.uncertain_low, stored.uncertain_high) == (0.55, 0.7)
    own = operating_point(CONFIG, RequestParams(threshold=0.2))
    assert own.uncertain_low < 0.2 < own.uncertain_high
    assert log_odds(own.uncertain_high) - log_odds(0.2) == pytest.approx(log_odds(0.7) - log_odds(0.6))
    assert not own.is_uncertain(0.6)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_at_an_extreme_threshold_the_band_stays_within_0_and_1(threshold):
    own = operating_point(CONFIG, RequestParams(threshold=threshold))
    assert 0 <= own.uncertain_low <= own.uncertain_high <= 1
    assert not own.is_uncertain(0.5)


def test_a_prevalence_shifts_the_answer_and_not_the_call(tmp_path, onnx_file):
    config = replace(CONFIG, method="slope and intercept", prevalence=0.5, study_intercept=0.2)
    model, row = load(tmp_path, onnx_file, config), [{"image": png(132)}]
    stored, rare = model(row).iloc[0], model(row, prevalence=0.1).iloc[0]
    for column in ("probability", "study_probability", "threshold"):
        assert log_odds(rare[column]) - log_odds(stored[column]) == pytest.approx(log_odds(0.1))
    assert (stored["prevalence"], rare["prevalence"]) == (0.5, 0.1)
    assert (rare["abnormal"], rare["uncertain"]) == (stored["abnormal"], stored["uncertain"])


def test_a_requests_own_threshold_is_compared_with_the_shifted_probability(tmp_path, onnx_file):
    model, row = load(tmp_path, onnx_file, replace(CONFIG, prevalence=0.5)), [{"image": png(132)}]
    assert model(row, threshold=0.3)["abnormal"][0]
    assert not model(row, threshold=0.3, prevalence=0.1)["abnormal"][0]


def test_a_model_that_records_no_prevalence_refuses_one(model):
    with pytest.raises(MlflowException, match="does not record for which share of abnormal studies") as caught:
        model([{"image": png()}], prevalence=0.1)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert model([{"image": png()}])["prevalence"][0] is None


def test_warnings_name_blank_images_and_single_views(model):
    blank, single = model([{"image": png(100)}])["warnings"][0], model([{"image": png()}])["warnings"][0]
    assert "blank picture" in blank
    assert single == ["single view"]
    assert model([{"image": png(), "study": "a"}] * 2)["warnings"][0] == []


@pytest.mark.parametrize(
    ("files", "warning"),
    [
        ([("p1", "1.2"), ("p2", "1.3")], "views of 2 patients are answered as one study"),
        ([("p1", "1.2"), ("p2", "1.2"), ("p3", "1.2")], "views of 3 patients are answered as one study"),
        ([("p1", "1.2"), ("p1", "1.3")], "views of 2 examinations are answered as one study"),
        ([("p1", "1.2"), ("p1", "1.2")], None),
        ([("p1", "1.2"), ("", "")], None),
    ],
)
def test_views_that_do_not_belong_together_get_a_warning(model, files, warning):
    grey = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    views = [encode_dicom(grey, PatientID=patient, StudyInstanceUID=uid) for patient, uid in files]
    rows = [{"image": base64.b64encode(view).decode(), "study": "a"} for view in views]
    expected = [] if warning is None else [warning]
    assert list(model(rows)["warnings"]) == [expected] * len(rows)
    alone = [{"image": row["image"], "study": str(number)} for number, row in enumerate(rows)]
    assert list(model(alone)["warnings"]) == [["single view"]] * len(rows)


def test_a_colour_photo_gets_a_warning(model):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (250, 120, 30)).save(buffer, "JPEG")
    assert "colour photo, not a radiograph" in model([{"image": buffer.getvalue()}])["warnings"][0]


def test_explain_adds_a_heat_map(model):
    text = model([{"image": png()}], explain=True)["heatmap"][0]
    assert Image.open(io.BytesIO(base64.b64decode(text))).size == (SIZE, SIZE)
    assert "heatmap" not in model([{"image": png()}])


def test_a_heat_map_of_too_few_cells_is_left_out_and_the_answer_says_so(model, monkeypatch):
    monkeypatch.setattr("muralab.serving.heat.MIN_CELLS", SIZE + 1)
    answer = model([{"image": png()}], explain=True)
    assert answer["heatmap"].tolist() == [None]
    assert f"no heat map: the network sees a view in {SIZE} x {SIZE} cells only" in answer["warnings"][0]


def test_each_row_gets_the_heat_map_of_its_own_image(model):
    rows = [{"image": png(seed=1)}, {"image": png(seed=2)}, {"image": png(seed=3)}]
    alone = [model([row], explain=True)["heatmap"][0] for row in rows]
    assert len(set(alone)) == 3
    assert model(rows, explain=True)["heatmap"].tolist() == alone


def test_a_heat_map_is_warm_where_the_heat_is():
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 5
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(draw_heat(np.zeros((SIZE, SIZE), np.uint8), heat)))))
    assert drawn[2, 2, 0] > 50 > drawn[-1, -1, 0]


@pytest.mark.parametrize(
    "wrap", [lambda text: "data:image/png;base64," + text, lambda text: text[:40] + "\n" + text[40:]]
)
def test_data_urls_and_line_breaks_are_read(model, wrap):
    assert model([{"image": wrap(png())}])["probability"][0] == model([{"image": png()}])["probability"][0]


def test_raw_bytes_are_read(model):
    raw = base64.b64decode(png())
    assert model([{"image": raw}])["probability"][0] == model([{"image": png()}])["probability"][0]


def test_all_bad_rows_are_named_in_one_message(model):
    rows = [{"image": png()}, {"image": "%%%"}, {"image": None}, {"image": base64.b64encode(b"text").decode()}]
    with pytest.raises(MlflowException, match="3 of 4 rows cannot be used") as caught:
        model(rows)
    for reason in ("row 2: not base64 text", "row 3: no image", "row 4: not a PNG, JPEG, TIFF, BMP or DICOM file"):
        assert reason in str(caught.value)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_partial_answers_the_good_rows(model):
    rows = [{"image": png(), "study": "a"}, {"image": "", "study": "a"}, {"image": "", "study": "b"}]
    answer = model(rows, policy="partial")
    assert list(answer["error"]) == [None, "zero bytes", "zero bytes"]
    assert answer["study_probability"][0] == pytest.approx(sigmoid(logit_of(png()) / 0.5), abs=1e-6)
    assert answer["warnings"][0] == ["single view", "1 of the study's 2 views could not be read"]
    assert answer["probability"][1] is None


def test_a_view_without_a_finite_logit_is_an_error_and_never_normal(model, monkeypatch):
    answers = [np.array([1.0, np.nan]), np.zeros((2, SIZE, SIZE))]
    monkeypatch.setattr(model.classifier, "_session", SimpleNamespace(run=lambda wanted, _: answers[: len(wanted)]))
    rows = [{"image": png(), "study": "a"}, {"image": png(), "study": "b"}]
    with pytest.raises(MlflowException, match=r"1 of 2 rows .* row 2: the network gives no finite answer"):
        model(rows)
    answer = model(rows, policy="partial", explain=True)
    assert answer["error"].isna().tolist() == [True, False]
    assert answer.loc[1, ["probability", "study_probability", "abnormal", "heatmap"]].tolist() == [None] * 4


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"threshold": float("nan")}, "threshold must be a number from 0 to 1, not nan"),
        ({"threshold": 1.5}, "threshold must be a number from 0 to 1, not 1.5"),
        ({"threshold": "high"}, "threshold must be a number"),
        ({"threshold": 10**400}, "threshold must be a number from 0 to 1, not 1000"),
        ({"threshold": 10**5000}, "threshold must be a number from 0 to 1, not one of thousands of digits"),
        ({"prevalence": 0.0}, "prevalence must be a number above 0 and below 1, not 0.0"),
        ({"prevalence": 1}, "prevalence must be a number above 0 and below 1, not 1"),
        ({"prevalence": "rare"}, "prevalence must be a number above 0"),
        ({"policy": "maybe"}, "policy must be 'refuse' or 'partial', not 'maybe'"),
        ({"explain": "yes"}, "explain must be true or false"),
    ],
)
def test_invalid_parameters_are_refused(model, params, message):
    with pytest.raises(MlflowException, match=message):
        model([{"image": png()}], **params)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no rows"),
        ([{"picture": "x"}], "column image is missing"),
        ([{"image": pd.NA}, {"image": ["x", "y"]}], r"row 1: no image \(null\); row 2: the image is not base64 text"),
        ([{"image": "x"}] * (MAX_ROWS + 1), f"has {MAX_ROWS + 1} rows; at most {MAX_ROWS}"),
    ],
)
def test_invalid_tables_are_refused(model, rows, message):
    with pytest.raises(MlflowException, match=message):
        model(rows)


def test_waiting_threads_do_not_spin(onnx_file):
    options = open_session(onnx_file).get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_the_network_takes_no_more_threads_than_a_quota_allows(onnx_file, tmp_path, monkeypatch):
    (tmp_path / "own").write_text("0::/")
    (tmp_path / "cpu.max").write_text("300000 100000")
    monkeypatch.setattr(processor, "CGROUPS", tmp_path)
    monkeypatch.setattr(processor, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(processor.os, "sched_getaffinity", lambda _: range(64))
    assert open_session(onnx_file).get_session_options().intra_op_num_threads == 3
    monkeypatch.setattr(processor.os, "sched_getaffinity", lambda _: {5})
    assert open_session(onnx_file).get_session_options().intra_op_num_threads == 1


def test_a_study_without_a_readable_view_has_no_probability():
    assert np.isnan(study_probabilities(["a", "b"], np.array([0.0, np.nan]), Scaling())).tolist() == [False, True]


def test_a_study_is_answered_as_it_was_evaluated_however_confident_its_views():
    logits = np.array([30.0, 45.0, -38.0, -2.0, 1.5])
    names = ["a", "a", "b", "c", "c"]
    table = pd.DataFrame({"image": list("12345"), "study": names, "patient": names, "part": "wrist", "label": 1})
    for scaling in (Scaling(temperature=0.5), Scaling(temperature=5, intercept=-1.2)):
        evaluated = level_rows(table.assign(logit=logits), level="study", scaling=scaling)
        wanted = evaluated.set_index("study")["probability"].loc[names]
        np.testing.assert_allclose(study_probabilities(names, logits, scaling), wanted, atol=1e-9)


@pytest.mark.parametrize("index", [[2, 0, 1], [7, 7, 7], ["b", "a", "b"]])
@pytest.mark.parametrize("params", [{}, {"explain": True}, {"policy": "partial"}])
def test_an_answer_keeps_the_index_of_the_frame(model, index, params):
    images = [png(200), png(90), png(10)]
    answer = model.classifier.predict(None, pd.DataFrame({"image": images}, index=index), params or None)
    assert list(answer.index) == index
    assert list(answer["probability"]) == list(model([{"image": image} for image in images])["probability"])
