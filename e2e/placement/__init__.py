"""Placement beside the real kube-scheduler: clusters from seeds, trials on them, and what to compare with."""
