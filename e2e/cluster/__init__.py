"""A real Kubernetes control plane on one machine, or another cluster that was asked for."""
