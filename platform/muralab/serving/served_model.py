"""What MLflow runs to make the served model (models from code): the one file here that works when it is imported."""

from __future__ import annotations

from mlflow.models import set_model

from muralab.serving.classifier import StudyClassifier

set_model(StudyClassifier())
