"""How well is each kind of rollout prewarmed, on which clusters, with which help? Measured on a real control plane."""
