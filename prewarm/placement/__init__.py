"""Where will it land? Replays of the scheduler's filters and scores over all nodes at once."""
