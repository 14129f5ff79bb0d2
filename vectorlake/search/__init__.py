"""Queries over a snapshot: exact nearest neighbours today, indexes and ranking later."""
