"""Plays the kubelets of emulated nodes against a real API server, as far as images go.

The model is `prewarm.simulation`; here is what creates the nodes, watches pods and writes what the model decides.
"""

from e2e.emulator.catalog import Catalog
from e2e.emulator.driver import Emulator, EmulatorOptions
from e2e.emulator.nodes import NodePlan

__all__ = ["Catalog", "Emulator", "EmulatorOptions", "NodePlan"]
