"""Plans: what a graph is rewritten by, and how it is kept on disk."""
