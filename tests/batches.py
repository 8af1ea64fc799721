"""Batches of images that belong to one class each."""

from functools import partial

from train.data import pipeline
from train.tasks.classification import Classification

train_batches = partial(pipeline.train_batches, task=Classification())
eval_batches = partial(pipeline.eval_batches, task=Classification())
