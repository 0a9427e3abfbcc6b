"""The cache of aligned steps that training reads: make it from bags, open it."""

from training.cache_build import build_cache, find_bags
from training.cache_files import Cache, CacheEntry, CacheManifest, open_cache

__all__ = ["Cache", "CacheEntry", "CacheManifest", "build_cache", "find_bags", "open_cache"]
