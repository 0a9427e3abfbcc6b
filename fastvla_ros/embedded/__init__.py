"""A subset of rclpy on CycloneDDS and rosbags, for machines without ROS 2. See README.md."""
