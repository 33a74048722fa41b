"""What Inductor and its libraries do with a program."""
