"""The fixtures of commands: those of the command line and of files to predict."""

from tests.app.conftest import model_folder  # noqa: F401
from tests.cli.conftest import closed_port, muralab, no_hub, prepared, store, tree  # noqa: F401
from tests.predict.conftest import ask, engine, onnx_file, refusal, store_uri  # noqa: F401
