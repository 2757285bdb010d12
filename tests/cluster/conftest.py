"""Three Ray nodes that share nothing but a bucket, and the bucket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.nodes import TOKEN, RayNodes
from tests.fixtures.team import object_store
from tests.team.conftest import whole_team  # noqa: F401 - fixture
from tests.tune.conftest import bench  # noqa: F401 - fixture

BUCKET = "lab"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment with which a real S3 server with keys is reached; it has the bucket `lab`."""
    with object_store(tmp_path_factory.mktemp("s3"), BUCKET) as client:
        address = client.pop("MLFLOW_S3_ENDPOINT_URL")
        yield {**client, "AWS_ENDPOINT_URL": address, "AWS_REGION": client["AWS_DEFAULT_REGION"]}


@pytest.fixture(scope="module")
def in_lab(s3: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment of the command's machine: the keys of the bucket and the cluster's token."""
    environment = {**s3, "RAY_AUTH_TOKEN": TOKEN}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        yield environment


@pytest.fixture(scope="module")
def nodes(in_lab: dict[str, str]) -> Iterator[RayNodes]:
    """A head and two more nodes."""
    with RayNodes({key: value for key, value in in_lab.items() if key.startswith("AWS_")}) as nodes:
        for number in (2, 3, 4):
            nodes.start(f"127.0.0.{number}")
        yield nodes
