"""The token shards of the tests of data."""

from tests.data.conftest import shards

__all__ = ["shards"]
