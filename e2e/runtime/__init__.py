"""A real container runtime, without Kubernetes: what removing images does to it."""
