"""Predicts which container images the next pods need, on which nodes, and has them there first."""

__version__ = "0.1.0"
