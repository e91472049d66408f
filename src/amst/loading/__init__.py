"""Shards to batches on a device."""
