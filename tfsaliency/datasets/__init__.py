"""Data sets: maps of any number of images in a folder of parts, and their verification."""

from .dataset import ExplainedDataset, open_dataset
from .ray_engine import RayEngine
from .run import explain_dataset

__all__ = ["ExplainedDataset", "RayEngine", "explain_dataset", "open_dataset"]
