"""What will be needed? From a snapshot to the pods that workloads will create, and their images."""
