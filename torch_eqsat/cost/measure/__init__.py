"""What is timed on this machine."""
