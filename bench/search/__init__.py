"""How good the search and the extraction are, apart from generated code."""
