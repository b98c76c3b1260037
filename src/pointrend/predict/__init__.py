"""A trained model on images from disk: find, read, predict, write."""

from __future__ import annotations

from pointrend.predict.inputs import find_images, output_names
from pointrend.predict.predictor import Predictor
from pointrend.predict.results import Failure, Prediction, Report
from pointrend.predict.writers import Output

__all__ = ["Failure", "Output", "Prediction", "Predictor", "Report", "find_images", "output_names"]
