"""What do people type? One module a command."""
