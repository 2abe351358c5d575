"""What do people and pipelines ask? One module a command; heavy imports wait until a command runs."""

from prewarm.cli.app import main

__all__ = ["main"]
