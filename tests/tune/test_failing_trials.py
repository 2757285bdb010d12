"""A sweep in which trials fail in every possible way: the others continue, and the report says what happened."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from muralab.cli import TRIALS_FAILED
from muralab.tracking import download_artifact
from tests.cli.conftest import image_codes
from tests.tune.conftest import RECIPE, Bench, Swept, sweep

pytestmark = pytest.mark.slow
IN_A_WORKER = '"default_worker" in sys.argv[0] and torch.is_grad_enabled()'
ENDS = {
    "memory": 'raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")',
    "bug": 'raise ValueError("no such shape")',
    "dying": "os.kill(os.getpid(), 9)",
}


@pytest.fixture(scope="module")
def bad_tree(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The easy tree with a picture that nothing can read."""
    root = tmp_path_factory.mktemp("bad") / "MURA-v1.1"
    shutil.copytree(bench.tree, root)
    (root / "train/XR_WRIST/patient00004/study1_negative/image1.png").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def swept(bench: Bench, bad_tree: Path) -> Swept:
    text = (bench.lab / "tiny_lab" / "small_net.py").read_text()
    for name, end in ENDS.items():
        hard = (
            f"import os\nimport sys\n\nimport torch\n{text}\n\nclass Hard(Network):\n    def forward(self, images):\n"
        )
        hard += f"        if {IN_A_WORKER}:\n            {end}\n        return super().forward(images)\n"
        hard = hard.replace("return Network(", "return Hard(").replace("registers=True", "registers=False")
        (bench.lab / "tiny_lab" / f"{name}_net.py").write_text(hard)
    recipes = ",".join([*(f"tiny_lab.{name}_net" for name in ENDS), RECIPE])
    return sweep(bench, bench.tune(recipes=recipes, trials=1, epochs="0+2", data=bad_tree))


def test_the_trial_that_finishes_is_tested_and_registered(swept: Swept) -> None:
    assert swept.code == TRIALS_FAILED, swept.output
    assert "mura-wrist version 1" in swept.output
    assert swept.parent.tags["muralab.winner"] == f"{RECIPE}-00"


def test_failed_trials_are_marked_and_nothing_is_left_running(swept: Swept) -> None:
    states = {run.tags["muralab.trial"]: run.status for run in swept.trials}
    assert states == {f"{RECIPE}-00": "FINISHED", **{f"tiny_lab.{name}_net-00": "FAILED" for name in ENDS}}
    assert swept.parent.status == "FINISHED"


def test_the_output_says_which_trials_failed_and_how_to_try_them_again(swept: Swept) -> None:
    assert "muralab: 3 of 4 trials failed; the results are those of the others:" in swept.output
    lines = swept.output.strip().splitlines()
    assert lines[-1] == f"  make tune PART=wrist ARGS='-P resume={swept.parent.run_id}'"
    assert (swept.bench.cache / "muralab" / "sweeps" / swept.parent.run_id / "plan.json").exists()


def test_each_failure_keeps_its_reason(swept: Swept) -> None:
    reasons = {run.tags["muralab.trial"]: run.tags.get("muralab.error", "") for run in swept.trials}
    memory = reasons["tiny_lab.memory_net-00"]
    assert all(name in memory for name in ("batch_size", "image_size", "gpus_per_trial"))
    assert "ValueError: no such shape" in reasons["tiny_lab.bug_net-00"]
    assert reasons["tiny_lab.dying_net-00"]


def test_the_report_says_which_trials_failed(swept: Swept, tmp_path: Path) -> None:
    report = download_artifact(swept.bench.store, swept.parent.run_id, "report.html", tmp_path).read_text("utf-8")
    for name in ENDS:
        assert f"The trial tiny_lab.{name}_net-00 failed" in report


def test_the_unreadable_image_is_named_in_the_warning_and_the_report(swept: Swept, tmp_path: Path) -> None:
    report = download_artifact(swept.bench.store, swept.parent.run_id, "report.html", tmp_path).read_text("utf-8")
    code = image_codes(swept.bench.cache.parent)["train/XR_WRIST/patient00004/study1_negative/image1.png"]
    words = f"{code}: not a PNG, JPEG, TIFF, BMP or DICOM file"
    assert words in swept.output
    assert words in report
    shown = [run.predictions["validation"] for run in swept.trials if run.status == "FINISHED"]
    assert shown
    assert not any((table["image"] == code).any() for table in shown)
