"""Tests of `broker.engine`."""
