"""From frames to targets."""
