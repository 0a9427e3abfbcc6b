"""Offline: bags to caches, caches to fine-tuned policies, policies to success rates. No ROS."""
