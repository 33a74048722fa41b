"""What users run beside the backend: the command line, explanations, and the search for a wrong law."""
