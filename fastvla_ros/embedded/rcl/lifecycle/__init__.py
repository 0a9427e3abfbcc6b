"""Nodes whose life is managed."""
