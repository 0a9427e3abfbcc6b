"""Writing rosbag2 recordings (mcap) without ROS; `training.bags` reads them."""
