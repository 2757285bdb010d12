"""MLflow runs this file to create the served model (models from code), so this module alone acts on import."""

from __future__ import annotations

from mlflow.models import set_model

from muralab.serving.classifier import StudyClassifier

set_model(StudyClassifier())
