"""The sub-commands of `fastvla` that need ROS."""
