"""Names and paths of LeRobot's data set format v3.0.

Source: https://huggingface.co/docs/lerobot/lerobot-dataset-v3
"""

from __future__ import annotations

VERSION = "v3.0"
INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

STATE, ACTION = "observation.state", "action"
IMAGES = "observation.images."
FILES_PER_CHUNK = 1000
DATA_MB, VIDEO_MB = 100, 200


def image_key(camera: str) -> str:
    """The feature of a camera."""
    return f"{IMAGES}{camera}"
