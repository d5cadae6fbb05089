"""What a fused event step is compiled for: the sizes of the model, of the batch and of the blocks."""

import dataclasses
import functools

from sage_jax.models.config import ModelConfig

SMALLEST_DOT = 16  # rows and columns of the matrices that a tensor core multiplies
FEWEST_OUTPUTS = 4  # of a tile of a matrix product
MOST_ROWS = 32  # rows of a tile of a matrix product
MOST_KEYS = 64  # that a program attends to at once
MOST_SPLITS = 16  # parts of a row's keys that different programs attend to


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of one fused event step. Letters as in models/attention.py.

    rows: B. max_events: S, the capacity of the cache. programs: of the grid.
    """

    config: ModelConfig
    rows: int
    max_events: int
    programs: int

    @property
    def warps(self) -> int:
        """Warps of 32 threads of each program."""
        return 4 if self.row_tile <= 16 else 8

    @property
    def is_vector(self) -> bool:
        """Whether there is one row: its products are sums over the threads of a program. In tensor cores they would be long
        chains."""
        return self.rows == 1

    @property
    def row_tile(self) -> int:
        """Rows of a tile of a matrix product, a power of two."""
        return 1 if self.is_vector else min(power_of_two(self.rows), MOST_ROWS)

    def output_tile(self, outputs: int) -> int:
        """Outputs of a tile of a matrix product, a power of two: for one row so few that all programs have one tile at most."""
        if not self.is_vector:
            return SMALLEST_DOT
        return min(power_of_two(-(-outputs // self.programs), FEWEST_OUTPUTS), SMALLEST_DOT)

    @property
    def row_tiles(self) -> int:
        return -(-self.rows // self.row_tile)

    @property
    def groups(self) -> int:
        """G."""
        return self.config.kv_groups[0]

    @property
    def keys_in_group(self) -> int:
        """Q."""
        return self.config.kv_groups[1]

    @property
    def by_attribute(self) -> bool:
        """Whether each KV group has the tokens of one attribute."""
        return self.config.num_own_scope_heads == self.config.num_heads

    @property
    def heads_in_group(self) -> int:
        """U R: query heads that attend to one KV group."""
        return self.config.num_heads // self.groups

    @property
    def head_tile(self) -> int:
        return power_of_two(self.heads_in_group)

    @property
    def half(self) -> int:
        """Half of head_dim: rotary positions turn the two halves against each other, so that all heads are read by halves."""
        return self.config.head_dim // 2

    @property
    def half_tile(self) -> int:
        return power_of_two(self.half)

    @property
    def query_width(self) -> int:
        return self.config.num_heads * self.config.head_dim

    @property
    def tokens_read(self) -> int:
        """Keys and values that one run of the layers adds to each KV head: E in event-level models, 1 in flat ones."""
        return 1 if self.config.architecture == "flat" else self.config.keys_per_event

    @property
    def new_keys(self) -> int:
        """Keys that one run of the layers adds to each KV group, if it adds any."""
        return 1 if self.config.architecture == "flat" else self.keys_in_group

    @property
    def token_width(self) -> int:
        """Outputs of the key-value projection of one token."""
        return 2 * self.config.cached_kv_heads * self.config.head_dim

    @property
    def max_keys(self) -> int:
        """M: keys that a group of the cache holds."""
        return self.max_events * self.keys_in_group

    @property
    def key_tile(self) -> int:
        return min(power_of_two(self.max_keys), MOST_KEYS if self.is_vector else 2 * MOST_KEYS)

    @functools.cached_property
    def splits(self) -> int:
        """Parts into which each group's keys are split, so that short batches occupy the device as well."""
        spare = self.programs // (self.rows * self.groups)
        return max(1, min(spare, MOST_SPLITS, -(-self.max_keys // self.key_tile)))

    @property
    def split_keys(self) -> int:
        """Keys of one part: whole tiles."""
        return -(-self.max_keys // (self.splits * self.key_tile)) * self.key_tile

    @property
    def own_groups(self) -> int:
        """Groups of query heads, first in a KV group, that attend to one attribute of a KV group over all of them."""
        return 0 if self.by_attribute else self.config.num_own_scope_groups

    @property
    def heads_in_own_group(self) -> int:
        """R."""
        return self.config.num_heads // (self.config.num_query_groups * self.config.cached_kv_heads)


def power_of_two(size: int, least: int = SMALLEST_DOT) -> int:
    """The smallest power of two of at least `size` and `least`."""
    return max(1 << max(size - 1, 0).bit_length(), least)
