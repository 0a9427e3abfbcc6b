"""Types, CDR, DDS entities and discovery: what crosses the wire, without rclpy's notions."""
