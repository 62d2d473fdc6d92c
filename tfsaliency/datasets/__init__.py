"""Data sets: maps of any number of images in a folder of parts, and their verification."""

from .dataset import ExplainedDataset, open_dataset
from .ray_engine import RayEngine
from .run import explain_dataset
from .verification import Verification
from .verify import verify

__all__ = [
    "ExplainedDataset",
    "RayEngine",
    "Verification",
    "explain_dataset",
    "open_dataset",
    "verify",
]
