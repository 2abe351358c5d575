"""`make demo`: one Deployment rolled out cold, prewarmed and announced, on a real control plane, and the difference."""
