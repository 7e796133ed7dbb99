"""A static site of many machines' runs. Imports no torch."""
