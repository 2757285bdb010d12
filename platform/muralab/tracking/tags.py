"""All tags and key prefixes of runs and model versions.

Values are text, written by the driver only. The names are part of the stored format: they never change.
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
    """On a run of kind `resume`, which earlier versions logged: the run that this command resumed."""

    # What it was trained with
    SYNTHETIC = "muralab.synthetic"
    """true for the demo's generated images."""
    SEED = "muralab.seed"
    PROTOCOL = "muralab.protocol"
    DUPLICATES = "muralab.duplicates"
    SPLIT_FINGERPRINT = "muralab.split_fingerprint"
    NAMES = "muralab.names"
    """Id of the key that the names of its patients, studies and images are coded with; runs without it log names."""
    DATA_FINGERPRINT = "muralab.data_fingerprint"
    CONTENT = "muralab.content"
    """Digest of the bytes of all pictures, with their names."""
    PARTS = "muralab.parts"
    DATA_PATH = "muralab.data_path"
    """Of the MURA tree or the manifest. MLflow stores inputs of one name and digest once, with the first path."""
    DATA_URI = "muralab.data_uri"
    """Of the data set that this path is a copy of; missing where there is none."""
    IMAGE_ROOT = "muralab.image_root"
    """The folder that a manifest's image names start from."""
    MANIFEST = "muralab.manifest"
    """Digest of the manifest that named the images; missing for a MURA tree."""
    COLUMNS = "muralab.columns"
    """The manifest's columns -> their names in it, as JSON."""
    LABEL_CORRECTIONS = "muralab.label_corrections"
    """Digest of the table of corrected labels; missing where labels are the data set's own."""
    LABEL_CORRECTIONS_PATH = "muralab.label_corrections_path"
    CORRECTED_LABELS = "muralab.corrected_labels"
    """How many labels it changed, as a sentence."""
    VALUE_RANGE = "muralab.value_range"
    """Stored values that are black and white in files that do not say so; empty or missing: as their type says."""
    OBJECTIVE = "muralab.objective"
    WEIGHTS = "muralab.weights"
    RECIPE_CODE = "muralab.recipe_code"
    """Digest of the source of the recipe and of what it imports; the source is an artifact in `recipe/`."""
    PLATFORM = "muralab.platform"
    """Version and commit of the platform, with `dirty` where its code differed from the commit."""
    PLATFORM_CODE = "muralab.platform_code"
    """Digest of the platform's source."""
    ACCEPTED_CHANGES = "muralab.accepted_changes"
    """What had changed when the run was resumed with accept_changes=true, as sentences."""

    # Its result
    ENDED = "muralab.ended"
    """finished, pruned, stopped or failed; on a trial's run the last thing that is written."""
    ERROR = "muralab.error"
    MEMORY = "muralab.memory"
    """How a trial whose batches did not fit into the GPU's memory was trained."""
    DESCRIBED = "muralab.described"
    """true once the inputs of a sweep's or trial's run are logged; written after them."""
    KEPT_PHASE = "muralab.kept_phase"
    """upper or full: the phase whose best weights were kept; runs of earlier versions lack it and kept full's."""
    ENSEMBLE = "muralab.ensemble"
    """On a run whose model averages several networks: how many. On the run of one of them: `member_tag`."""
    NODE = "muralab.node"
    """The node of a cluster that the trial ran on last; missing where it ran on the command's machine alone."""
    BEST_OF_RECIPE = "muralab.best_of_recipe"
    EXTENDED = "muralab.extended"
    """On the run of a sweep: how many trials per recipe were added after it had ended."""
    WINNER = "muralab.winner"
    REGISTERED = "muralab.registered"
    """`<name>/<version>` of the model that a sweep or `promote` registered."""
    ALIAS = "muralab.alias"
    COMPARISON = "muralab.comparison"
    """The result of `compare`, as sentences."""
    REPORTS = "muralab.reports"
    """On a run of kind `report`: the ids that it was given."""

    # Evaluation
    EVALUATES = "muralab.evaluates"
    """On a run of kind `evaluate`: the run whose model it evaluated."""
    SET = "muralab.set"
    """On a run of kind `evaluate`: test, validation, train or all."""
    CHANGES = "muralab.changes"
    """What had changed since the evaluated run was trained, as sentences."""
    LEAKED_IMAGES = "muralab.learnt_images"
    """Number of evaluated images of patients that the model was trained or selected on, or `unknown`."""
    TEST_FINGERPRINT = "muralab.test_fingerprint"
    """On a run that was evaluated on a test set; see `find_evaluations`."""
    INTERVALS = "muralab.intervals"
    """On a run that was evaluated on a test set: the method of its intervals; without it, the BCa bootstrap."""
    TEST_EVALUATIONS = "muralab.test_looks"
    """On a model version: number of evaluations on its test set when the gate decided."""
    COUNTED_EVALUATIONS = "muralab.test_looks."
    """+ fingerprint of a test set, on a registered model: the number of evaluations on it; never falls."""
    COUNTED_RUNS = "muralab.test_look_runs."
    """+ fingerprint + number, on a registered model: the runs that are counted, by the start of their ids."""
    CHECKED = "muralab.checked"
    """On a registered model: Unix time when a sweep last found out whether its user may add versions."""
    PROMOTING = "mlflow.muralab.promoting."
    """+ random letters, on a registered model: the claim of a process that changes it, see `registry_lock`."""
    TEST_STUDY_PREFIX = "muralab.test_study_"
    """+ metric, on a model version or a tested run: its value with interval."""

    # A run of kind `predict`
    ANSWERED_BY = "muralab.answered_by"
    MODEL_VERSION = "muralab.model_version"

    # How a model version is served
    ENGINE = "muralab.engine"
    """exact or fast; missing where only the exact one was asked for."""
    ENGINE_CHECK = "muralab.engine_check"
    """The fast engine's figures on the test studies beside the exact one's, or why it is left out."""

    # The gate's decision on a model version
    GATE = "muralab.gate"
    """accepted or refused."""
    GATE_REASONS = "muralab.gate_reasons"
    GATE_AGAINST = "muralab.gate_against"
    GATE_MARGIN = "muralab.gate_margin"
    GATE_DIFFERENCE = "muralab.gate_difference"
    GATE_RULE = "muralab.gate_rule"
    """The rule in short; missing where an earlier version decided: estimate not lower, margin, guards by estimate."""
    AUROC_RANGE = "muralab.test_study_auroc_range"
    """The test AUROC as a range that allows for the selection among all evaluations on the test set."""

    # Which process writes a run
    HOST = "muralab.host"
    PID = "muralab.pid"
    PROCESS_STARTED = "muralab.process_started"
    STARTED_AS = "muralab.started_as"
    """The temporary id that the run writer used before the store created the run."""
    CLOSED_AFTER = "muralab.closed_after"
    NOT_LOGGED = "muralab.not_logged"
    """What the store refused to take of the run, and why."""
    UNDEFINED = "muralab.undefined_metrics"
    """Values that are not finite, as JSON: metric -> step -> nan, inf or -inf; once they were metrics."""

    # MLflow's own
    RUN_NAME = "mlflow.runName"
    NOTE = "mlflow.note.content"
    """The description of a run or an experiment, in Markdown."""
    SHARED_VIEW = "mlflow.sharedViewState."
    """+ key, on an experiment: a saved view of its page, see `experiment_page`."""
    PARENT_RUN_ID = "mlflow.parentRunId"
    USER = "mlflow.user"
    SOURCE_NAME = "mlflow.source.name"
    SOURCE_TYPE = "mlflow.source.type"
    GIT_COMMIT = "mlflow.source.git.commit"
    DATA_CONTEXT = "mlflow.data.context"
    EXPERIMENT_KIND = "mlflow.experimentKind"


RESOLVED = "resolved."
"""+ key, on a param: a value that the run used."""


def resolved_values_of(params: dict[str, str]) -> dict[str, str]:
    """The values that a run used, from its params, without the prefix."""
    return {key.removeprefix(RESOLVED): value for key, value in params.items() if key.startswith(RESOLVED)}


def member_tag(member: tuple[int, int]) -> str:
    """The second of five networks of an ensemble, (2, 5), as `Tag.ENSEMBLE` holds it: 2/5."""
    return f"{member[0]}/{member[1]}"


def member_of(tag: str) -> tuple[int, int] | None:
    """What `member_tag` wrote; None for any other text, such as the number of networks."""
    number, _, count = tag.partition("/")
    return (int(number), int(count)) if count else None
