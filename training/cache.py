"""The cache of aligned steps that training reads: make it from bags, open it."""

from training.cache_build import Conversion, build_cache, find_bags
from training.cache_files import Cache, CacheEntry, CacheManifest, open_cache
from training.cache_shard import Pictures

__all__ = [
    "Cache",
    "CacheEntry",
    "CacheManifest",
    "Conversion",
    "Pictures",
    "build_cache",
    "find_bags",
    "open_cache",
]
