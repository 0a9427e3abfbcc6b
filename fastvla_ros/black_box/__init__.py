"""The black box: the last seconds before a goal's abnormal end, kept on disk."""
