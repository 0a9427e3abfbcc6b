"""Checkpoints in LeRobot's layout and openpi's: configs, weights, processor files."""
