"""The page of what runs hold in MLflow: every metric, tag, parameter and artifact.

Tags come from the docstrings of tags.py, the rest from `mlflow_entries.py`. `make generate` writes the page.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow_entries import ARTIFACTS, PARAMETERS, Entry, metrics
from muralab.evaluation.metrics import METRICS
from muralab.tracking import tags
from muralab.tracking.stored_names import stored_tag

INTRODUCTION = """# Every metric, tag, parameter and artifact

This page is generated (`make generate`). What to look at first is in [MLflow](mlflow.md). Names are those in
the store; *logged by* is the kind of the run (its tag `muralab.kind`). The run above the folds or networks of a
`tune` or `train` has the kind of that command. Runs of earlier versions have other names for some metrics and tags,
which every command reads (`platform/muralab/tracking/stored_names.py`)."""
TAGS_TEXT = """Tags are text. Those that begin with `mlflow.` are not shown on MLflow's pages. `<...>` stands for what
the meaning gives after `+`. `mlflow run` and the tracking server set further tags of MLflow's own, such as
`mlflow.project.entryPoint`."""
PARAMETERS_TEXT = """Parameters never change once they are logged. `mlflow run` logs the options as they were typed, in
the run that it makes; the commands themselves log the following."""
ARTIFACTS_TEXT = """A version of a registered model has files of its own: `artifacts/model.onnx` (the network),
`artifacts/config.json` (preprocessing, calibration, threshold), `artifacts/familiarity.npz` (what its training images
are like), `artifacts/fast.onnx` (only with the [fast engine](serving.md#the-fast-engine)), `code/` (what serves it),
and MLflow's own, such as `MLmodel` and `requirements.txt`."""
METRICS_TEXT = """Values that are not finite are in the tag `mlflow.muralab.undefined_metrics`. `<phase>` is upper or
full; `<key>` is a value of the recipe, such as `full.lr`; `<metric>` is one of the metrics of predictions in the second
table, and `<main metric>` one that has bounds there."""


@dataclass(frozen=True)
class StoredTag:
    """A tag as tags.py documents it."""

    heading: str
    name: str
    """In the store; one that ends with a dot or an underscore is the start of several."""
    meaning: str

    def fits(self, name: str) -> bool:
        """Whether it documents a tag of the store."""
        return name.startswith(self.name) if self.name.endswith((".", "_")) else name == self.name


def stored_tags() -> Iterator[StoredTag]:
    """The tags of tags.py, each under the comment above it.

    Raises:
        ValueError: one has no docstring.
    """
    source = Path(tags.__file__).read_text(encoding="utf-8")
    lines = source.splitlines()
    (found,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Tag")
    for node, following in zip(found.body, [*found.body[1:], None]):
        if isinstance(node, ast.Assign):
            name = ast.literal_eval(node.value)
            if not (isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)):
                raise ValueError(f"The tag {name} has no docstring in {tags.__file__}.")
            above = [line.strip() for line in lines[: node.lineno] if line.startswith("    # ")]
            yield StoredTag(
                above[-1].removeprefix("# "), stored_tag(name), " ".join(str(following.value.value).split())
            )


def undocumented(
    kind: str, *, metrics_of: Iterable[str], tags_of: Iterable[str], params: Iterable[str], artifacts: Iterable[str]
) -> list[str]:
    """What a run of a kind holds and this page lacks.

    Args:
        kind: of the run.
        metrics_of: names of its metrics in the store.
        tags_of: names of its tags in the store.
        params: names of its parameters.
        artifacts: paths of its artifacts.
    """
    known = list(stored_tags())
    given = (("metric", metrics_of, metrics()), ("param", params, PARAMETERS), ("artifact", artifacts, ARTIFACTS))
    return [
        *(
            f"{what} {name}"
            for what, names, rows in given
            for name in names
            if not any(row.fits(name, kind) for row in rows)
        ),
        *(f"tag {name}" for name in tags_of if not any(tag.fits(name) for tag in known)),
    ]


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _names(entry: Entry) -> str:
    return ", ".join(f"`{name}`" for name in entry.names.split(", "))


def _tag_sections() -> Iterator[str]:
    known = list(stored_tags())
    for heading in dict.fromkeys(tag.heading for tag in known):
        rows = [
            (f"`{tag.name}{'<...>' if tag.name.endswith(('.', '_')) else ''}`", tag.meaning)
            for tag in known
            if tag.heading == heading
        ]
        yield f"### {heading}\n\n{table(('tag', 'meaning'), rows)}"


def mlflow_page() -> str:
    """The text of docs/mlflow-reference.md."""
    figures = [(f"`{name}`", one.title, "yes" if one.main else "") for name, one in METRICS.items()]
    return (
        "\n\n".join(
            [
                INTRODUCTION,
                "## Metrics",
                METRICS_TEXT,
                table(
                    ("metric", "logged by", "step", "meaning"),
                    [(_names(one), one.kinds, one.step, one.meaning) for one in metrics()],
                ),
                "### Metrics of predictions",
                table(("name", "metric", "bounds in MLflow"), figures),
                "## Parameters",
                PARAMETERS_TEXT,
                table(
                    ("parameter", "logged by", "meaning"), [(_names(one), one.kinds, one.meaning) for one in PARAMETERS]
                ),
                "## Artifacts",
                table(
                    ("artifact", "logged by", "meaning"), [(_names(one), one.kinds, one.meaning) for one in ARTIFACTS]
                ),
                ARTIFACTS_TEXT,
                "## Tags",
                TAGS_TEXT,
                *_tag_sections(),
            ]
        )
        + "\n"
    )
