"""What is there? Reflectors and the snapshot store read the cluster; the one writer executes intents."""
