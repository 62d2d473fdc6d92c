"""From a model to a compiled gradient function; see docs/architecture.md."""
