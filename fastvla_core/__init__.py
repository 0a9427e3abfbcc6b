"""FastVLA's core: observations in, action chunks out. Imports no ROS, ever."""

__version__ = "0.1.0"
