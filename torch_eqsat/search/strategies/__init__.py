"""The strategies of the search."""
