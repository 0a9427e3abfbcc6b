"""Where rclpy keeps its logger; the names are in `rclpy.logging`."""
