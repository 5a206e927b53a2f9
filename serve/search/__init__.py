"""Semantic search: texts cut into passages, their vectors in one file, the nearest to a query."""
