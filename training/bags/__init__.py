"""rosbag2 in and out, without ROS: the writer, the reader, and episodes aligned for training."""
