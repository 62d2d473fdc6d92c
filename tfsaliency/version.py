"""The version; setup.cfg reads it here, and a test compares it with CHANGELOG.md."""

__version__ = "0.1.0"
