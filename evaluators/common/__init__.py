"""Values that all measurements share: intervals, targets, progress."""
