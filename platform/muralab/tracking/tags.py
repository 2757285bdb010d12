"""Every tag and key prefix of a run or model version, in one place.

Values are text, written by the driver only. The names are part of the stored format: their meaning never changes.
"""

from __future__ import annotations


class Tag:
    """Names of tags."""

    # What a run is
    KIND = "muralab.kind"
    """tune, trial, train, evaluate, compare, explore, promote, predict, report or resume."""
    PART = "muralab.part"
    RECIPE = "muralab.recipe"
    TRIAL = "muralab.trial"
    """The trial's name within its sweep."""
    PARENT = "muralab.parent"
    RESUMES = "muralab.resumes"
    """On a run of kind `resume`: the run that this command resumed."""

    # What it was trained with
    SYNTHETIC = "muralab.synthetic"
    """true for the demo's generated radiographs."""
    SEED = "muralab.seed"
    PROTOCOL = "muralab.protocol"
    SPLIT_FINGERPRINT = "muralab.split_fingerprint"
    DATA_FINGERPRINT = "muralab.data_fingerprint"
    PARTS = "muralab.parts"
    OBJECTIVE = "muralab.objective"
    WEIGHTS = "muralab.weights"

    # How it ended
    ENDED = "muralab.ended"
    """finished, pruned, stopped or failed."""
    ERROR = "muralab.error"
    BEST_OF_RECIPE = "muralab.best_of_recipe"
    WINNER = "muralab.winner"
    REGISTERED = "muralab.registered"
    """`<name>/<version>` of the model that a sweep or `promote` registered."""
    ALIAS = "muralab.alias"
    COMPARISON = "muralab.comparison"
    """The sentences that `compare` found."""
    REPORTS = "muralab.reports"
    """Of a run of `report`: the ids that were given."""

    # Evaluation
    EVALUATES = "muralab.evaluates"
    """Of a run of `evaluate`: the run whose model it evaluated."""
    SET = "muralab.set"
    """Of a run of `evaluate`: test, validation, train or all."""
    LEAKED_IMAGES = "muralab.learnt_images"
    """How many evaluated images are of patients that the model was trained or selected on."""
    TEST_FINGERPRINT = "muralab.test_fingerprint"
    """Of a run that was evaluated on a test set; counting these counts the evaluations on it."""
    TEST_EVALUATIONS = "muralab.test_looks"
    """Of a model version: how many evaluations its test set had seen when the gate decided."""
    TEST_STUDY_PREFIX = "muralab.test_study_"
    """+ metric: its value with interval, of a model version."""

    # Of a run of `predict`
    ANSWERED_BY = "muralab.answered_by"
    MODEL_VERSION = "muralab.model_version"

    # The gate's decision on a model version
    GATE = "muralab.gate"
    """accepted or refused."""
    GATE_REASONS = "muralab.gate_reasons"
    GATE_AGAINST = "muralab.gate_against"
    GATE_MARGIN = "muralab.gate_margin"
    GATE_DIFFERENCE = "muralab.gate_difference"

    # Which process writes a run
    HOST = "muralab.host"
    PID = "muralab.pid"
    PROCESS_STARTED = "muralab.process_started"
    STARTED_AS = "muralab.started_as"
    """The writer's handle for a run whose id was not known yet."""
    CLOSED_AFTER = "muralab.closed_after"

    # MLflow's own
    RUN_NAME = "mlflow.runName"
    PARENT_RUN_ID = "mlflow.parentRunId"
    USER = "mlflow.user"
    SOURCE_NAME = "mlflow.source.name"
    SOURCE_TYPE = "mlflow.source.type"
    GIT_COMMIT = "mlflow.source.git.commit"
    DATA_CONTEXT = "mlflow.data.context"
    EXPERIMENT_KIND = "mlflow.experimentKind"


RESOLVED = "resolved."
"""+ key of a param: a value that the run was carried out with."""


def resolved_values_of(params: dict[str, str]) -> dict[str, str]:
    """The values that a run was carried out with, from its params, without the prefix."""
    return {key.removeprefix(RESOLVED): value for key, value in params.items() if key.startswith(RESOLVED)}
