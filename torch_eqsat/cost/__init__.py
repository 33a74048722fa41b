"""What work costs in milliseconds: measured kernels, the table that keeps them, and prices for the rest."""
