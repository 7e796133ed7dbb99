"""A command line becomes worker processes. Imports no torch."""
