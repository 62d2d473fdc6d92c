"""The version, which setup.cfg and CHANGELOG.md agree with."""

__version__ = "0.1.0"
