"""Runs that a team shares: records in a folder or a git repository, content-addressed. Imports no torch."""
