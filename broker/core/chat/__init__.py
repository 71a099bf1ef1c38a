"""Decisions about danmaku: merging, sampling, fairness, duplicates."""
