"""Small programs against rclpy alone, so that both runtimes run the very same ones."""
