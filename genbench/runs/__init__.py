"""What is on disk of a run. Imports no torch."""
