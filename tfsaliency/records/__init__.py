"""Records of results: what they were computed from, so that they can be computed again."""

from .digests import ModelDigest, digest_model
from .record import Record, describe_device, describe_versions, name_device

__all__ = [
    "ModelDigest",
    "Record",
    "describe_device",
    "describe_versions",
    "digest_model",
    "name_device",
]
