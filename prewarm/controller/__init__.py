"""Who runs it? The kopf shell, the planning loop, the leader lease, HTTP and settings."""
