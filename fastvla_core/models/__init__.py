"""Policies and the backbones that they are built from."""
