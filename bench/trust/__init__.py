"""Whether results stay right: torch's operators, public models, hard inputs, and faults around a search."""
