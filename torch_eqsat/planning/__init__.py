"""From a graph to a plan and back to a graph."""
