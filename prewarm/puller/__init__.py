"""Pull it, within budgets: ImageCache objects become puller pods, their status, and evidence of presence."""
