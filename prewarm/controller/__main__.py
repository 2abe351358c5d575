"""`python -m prewarm.controller`: the controller with settings from the environment."""

from prewarm.controller.main import run
from prewarm.controller.settings import Settings

run(Settings())
