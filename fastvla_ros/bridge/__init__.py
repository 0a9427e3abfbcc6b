"""From ROS messages to observations and back: the only place that reads message fields."""
