"""Using a trained network: from Python, and outside of this program.

from train.use import load_run

run = load_run("runs/mine")
for found in run.predict(["a.jpg", "b.jpg"], cam=True):
    print(found.answer, found.boxes)
"""

from train.use.prediction import Prediction
from train.use.trained_run import TrainedRun, load_run

__all__ = ["Prediction", "TrainedRun", "load_run"]
