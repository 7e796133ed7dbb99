"""Modules without losses: the arena that all models share."""
