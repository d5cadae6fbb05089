"""The shape of a model, checked once."""

import dataclasses

from sage_jax.errors import UserError

SHARINGS = ("mha", "gqa", "mqa", "as_kvhs")
SCOPES = ("all", "own", "mixed")
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer over events of A = len(vocab_sizes) tokens. Raises UserError naming the field.

    vocab_sizes: the size of each attribute's block of the vocabulary.
    sharing: "mha" (a key-value head per query head), "gqa" (kv_heads of them), "mqa" (one), or "as_kvhs"
      (heads_per_attribute of them for each attribute, a token being read through the heads of its own attribute).
    scope: which tokens a query head of as_kvhs reads: "all" of them, those of its "own" attribute, or "mixed": half the
      heads all, half their own.
    dtype: what is computed in; parameters are stored in float32.
    query_block: events whose queries are attended with at once in training and prefill; memory grows with it.
    recompute_attention: whether blocks compute their scores again for the gradient. With it only one block's scores exist
      at a time; without it all are kept, which is faster where they fit.
    """

    vocab_sizes: tuple[int, ...]
    width: int = 512
    layers: int = 12
    heads: int = 10
    head_width: int = 64
    mlp_width: int = 1536
    sharing: str = "as_kvhs"
    scope: str = "mixed"
    heads_per_attribute: int = 1
    kv_heads: int = 0
    rope_base: float = 10_000.0
    dtype: str = "float32"
    query_block: int = 64
    recompute_attention: bool = True

    def __post_init__(self):
        object.__setattr__(self, "vocab_sizes", tuple(int(size) for size in self.vocab_sizes))
        for field in ("width", "layers", "heads", "head_width", "mlp_width", "heads_per_attribute", "query_block"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"model.{field} is {value!r}; give a whole number of at least 1")
        for field, known in (("sharing", SHARINGS), ("scope", SCOPES), ("dtype", DTYPES)):
            if getattr(self, field) not in known:
                raise UserError(f"model.{field} is {getattr(self, field)!r}; choose one of {', '.join(known)}")
        if self.head_width % 2:
            raise UserError(f"model.head_width is {self.head_width}; rotary positions need an even one")
        if not self.rope_base > 1:
            raise UserError(f"model.rope_base is {self.rope_base}; give a number above 1")
        if self.sharing == "gqa" and (self.kv_heads < 1 or self.heads % self.kv_heads):
            raise UserError(f"model.kv_heads is {self.kv_heads}; gqa needs a divisor of model.heads = {self.heads}")
        if self.sharing == "as_kvhs":
            self._check_groups()

    def _check_groups(self):
        # Each set of keys is read by an equal number of query heads: K sets in scope all, A K in scope own.
        needed = {"all": 1, "own": self.num_attributes, "mixed": 2 * self.num_attributes}[self.scope]
        if self.heads % (needed * self.heads_per_attribute):
            raise UserError(
                f"model.heads is {self.heads}; scope {self.scope} with heads_per_attribute = {self.heads_per_attribute} "
                f"needs a multiple of {needed * self.heads_per_attribute}"
            )

    @property
    def num_attributes(self) -> int:
        return len(self.vocab_sizes)

    @property
    def cached_heads(self) -> int:
        """K: the key-value heads that the cache holds for each token."""
        return {"mha": self.heads, "gqa": self.kv_heads, "mqa": 1, "as_kvhs": self.heads_per_attribute}[self.sharing]

    @property
    def cached_lanes(self) -> tuple[int, int]:
        """(L, Q): the lanes of the cache, and the tokens that each event has in one.

        A lane for each key-value head, or, where every query head reads one attribute only, for each head and attribute.
        """
        if self.own_heads == self.heads:
            return self.cached_heads * self.num_attributes, 1
        return self.cached_heads, self.num_attributes

    @property
    def own_heads(self) -> int:
        """The query heads that read only the tokens of one attribute."""
        if self.sharing != "as_kvhs" or self.scope == "all":
            return 0
        return self.heads if self.scope == "own" else self.heads // 2

    @property
    def name(self) -> str:
        """A short name for tables: the sharing, its heads and its scope."""
        if self.sharing == "as_kvhs":
            return f"as_kvhs-{self.scope}-{self.heads_per_attribute}"
        return f"gqa-{self.kv_heads}" if self.sharing == "gqa" else self.sharing
