"""Small graphs that are worth (or not worth) rewriting by hand, each next to its rewritten form.

The rows are data: ``table.ROWS`` lists them, ``evaluate`` asks whether the search finds the rewrite or refuses it.
"""
