"""Values shared by all measurements: intervals, targets, progress."""
