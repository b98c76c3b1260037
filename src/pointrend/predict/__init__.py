"""A trained model on pictures from disk: find, read, predict, write."""

from __future__ import annotations

from pointrend.predict.files import find_pictures, output_names
from pointrend.predict.outcomes import Failure, Prediction, Report
from pointrend.predict.predictor import Predictor

__all__ = ["Failure", "Prediction", "Predictor", "Report", "find_pictures", "output_names"]
