"""Moderation, the part that decides: words, detectors. Pure: no clock, no input, no output."""
