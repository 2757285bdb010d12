"""Every command that the docs print, and what becomes of it: run by `test_commands.py`, or not, with the reason."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES_NOT_RUN = {
    "docs/team.md": "servers of other machines; tests/fixtures/team.py starts the same ones on this machine",
    "docs/cluster.md": "several machines; tests/cluster/ starts nodes on this one",
}
"""Page -> why none of its commands is run by the walk."""
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(p.relative_to(ROOT) for p in (ROOT / "docs").glob("*.md")),
)
SERVERS = {"make ui": 5000, "make serve": 5001, "make serve PART=hand": 5001, "make app": 5001}
"""Command -> port on which it answers until it is stopped."""
COLUMNS = "-P columns=image:file,label:fracture"
WALK = (
    "make tune ARGS='-P recipes=cnn,cnn_attention -P trials=3 -P epochs=2+20 -P image_size=64 -P register=winner'",
    "make ui",
    "make serve",
    "make app",
    'export PATH="$PWD/.venv/bin:$PATH"',
    "muralab demo lab-data --layout spreadsheet",
    "muralab explore --data lab-data/radiographs.csv --part hand --columns image:file,label:fracture",
    f"make train RECIPE=cnn PART=hand DATA=lab-data/radiographs.csv ARGS='{COLUMNS} -P epochs=1+8 -P image_size=64'",
    "make setup-dev",
    "muralab new-recipe resnet18 --backbone resnet18",
    "make generate",
    "python -m pytest tests/test_recipes.py -k resnet18",
    f"make tune PART=hand DATA=lab-data/radiographs.csv ARGS='{COLUMNS} -P recipes=cnn_attention,resnet18"
    " -P weights=none -P trials=2 -P epochs=2+12 -P image_size=64 -P test_fraction=0.3 -P register=winner'",
    "make serve PART=hand",
    "muralab predict lab-data/pictures --study file --model models:/mura-hand@champion --out predictions.csv",
)
"""Run in this order in one terminal in a fresh clone, as printed, with what this list exports and no more."""
NOT_RUN = {
    r"make (test|check|format|bench|bench-full|slow|chaos)( .*)?": "the suite itself, or hours of measurement",
    r"make tune PART=wrist( ARGS='-P engine=fast')?": "tests/tune/test_whole_sweep.py; the walk runs a smaller sweep",
    r"make tune ARGS='-P recipes=resnet18'|make train RECIPE=resnet18 .*": "the walk trains resnet18 on less",
    r".*(/data/|<MURA-v1.1>|MURA-v1\.1).*": "needs a data set or weights that are not part of the project",
    r"mlflow run \. -e (evaluate|promote|report) .*": "needs the id of a run; tests/commands/ runs each command",
    r"mlflow run \. -e compare .*": "an hour of training; tests/commands/test_compare.py runs a small one",
    r"muralab .*/tmp/pacs.*": "the walk runs the same commands on fewer pictures",
    r"muralab explore --data (Hände|rows)\.csv .*": "of the files that the page describes",
    r".*python -m bench\..*": "a measurement of hours",
    r"python -c \"import timm.*|rsync .*": "needs a network",
    r"export PATH=.* (MLFLOW_DISABLE_TELEMETRY|PYTHONPATH)=.*": "for commands that the walk leaves out",
    r"make setup": "make tune sets up the same",
    r".*pre-commit install": "changes the checkout's git hooks",
    r"printf .*curl.*": "needs a picture of one's own; tests/app/ and tests/serving/ send such requests",
    r"mlflow artifacts download .*|openssl .*|sudo .*|mkdir deploy/tls|docker .*": "a deployment; tests/test_deploy.py",
}
"""Pattern of whole commands -> why the walk leaves them out."""


def console_commands(text: str) -> list[str]:
    """The commands in the console blocks of a page, on one line each, without trailing comments."""
    commands: list[str] = []
    for block in re.findall(r"^```console\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        joined = re.sub(r"(\\|(?<=\|))\n +", " ", block)
        commands += [
            re.sub(r"\s{2,}#.*$", "", line[2:]).strip() for line in joined.splitlines() if line.startswith("$ ")
        ]
    return [re.sub(r" {2,}", " ", command) for command in commands]


def printed_commands() -> list[tuple[str, str]]:
    """(page, command) of all pages."""
    return [
        (str(page), command)
        for page in PAGES
        if str(page) not in PAGES_NOT_RUN
        for command in console_commands((ROOT / page).read_text(encoding="utf-8"))
    ]


def reason(command: str) -> str:
    """Why a command is not run; empty where no pattern holds it."""
    return next((why for pattern, why in NOT_RUN.items() if re.fullmatch(pattern, command)), "")
