"""Runs grouped by method, their scores as a table, and what may be concluded from it. No torch."""
