"""What is there? Reflectors turn the API server's objects into ClusterSnapshots; one writer executes intents."""
