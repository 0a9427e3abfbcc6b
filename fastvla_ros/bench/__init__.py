"""Measurements of the way from a camera to the robot."""
