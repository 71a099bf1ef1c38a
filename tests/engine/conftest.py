"""A Cluster for all tests of the engine: it takes two seconds until it serves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.redis_cluster import RedisCluster, redis_cluster


@pytest.fixture(scope="package")
def cluster() -> Iterator[RedisCluster]:
    """A Cluster of three masters; a test empties it by `cluster_lab`."""
    with redis_cluster() as running:
        yield running
