"""The shape of a model, checked once."""

import dataclasses

from sage_jax.errors import UserError

SHARINGS = ("mha", "gqa", "mqa", "as_kvhs")
SCOPES = ("all", "own", "mixed")
DTYPES = ("float32", "bfloat16")
FORMS = ("flat", "nested", "pooled", "compound", "delay")
INNERS = ("mlp", "attention", "gru")
ATTENTIONS = ("auto", "blocks", "fused")
RECOMPUTED = ("nothing", "attention", "products", "layers")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer over events of A = len(vocab_sizes) tokens. Raises UserError naming the field.

    vocab_sizes: the size of each attribute's block of the vocabulary.
    form: how the layers meet the tokens. "flat": one after another. The others run the layers once for an event, over its
      pooled embeddings, and foretell the next event from one state: "pooled" all its attributes in parallel, "compound" the
      first one and then the others in parallel, "nested" one after another through a small decoder, "delay" in parallel
      too, but each attribute one event later than the one before it.
    ahead: attributes of the next event, the first of the cycle, that a step of the layers reads beside the rest of the last
      one, in a nested or pooled model: what is foretold after them is then foretold by the layers' attention knowing them.
    pooling: whether the embeddings of an event's tokens are added ("sum") or joined and projected ("concat").
    inner, inner_width: what the decoder of a nested model is made of: a residual "mlp" of this hidden width for each
      attribute, one layer of "attention" over the event's tokens, or a "gru". 0: as wide as the model.
    sharing: "mha" (a key-value head per query head), "gqa" (kv_heads of them), "mqa" (one), or "as_kvhs"
      (heads_per_attribute of them for each attribute, a token being read through the heads of its own attribute).
    scope: which tokens a query head of as_kvhs reads: "all" of them, those of its "own" attribute, or "mixed": half the
      heads all, half their own.
    dtype: what is computed in; parameters are stored in float32.
    attention: how training and validation attend: in "blocks" of `query_block` events, whose memory grows with it, or "fused",
      through jax.nn.dot_product_attention (cuDNN's flash attention on a GPU in bfloat16), where each head hears as many keys as
      there are queries: all but the forms of one token for an event with the scopes all and mixed, which stay in blocks.
      "auto": fused where cuDNN does it, as elsewhere all scores would exist at a time.
    recompute: what is computed again for the gradient instead of being kept. "nothing": fastest where it fits; "attention":
      the scores of blocks, so that only those of one exist at a time; "products": all of a layer but what comes out of its
      kernels; "layers": all but what goes into each layer.
    """

    vocab_sizes: tuple[int, ...]
    form: str = "flat"
    ahead: int = 0
    pooling: str = "sum"
    inner: str = "mlp"
    inner_width: int = 0
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
    attention: str = "auto"
    recompute: str = "attention"

    def __post_init__(self):
        object.__setattr__(self, "vocab_sizes", tuple(int(size) for size in self.vocab_sizes))
        for field in ("width", "layers", "heads", "head_width", "mlp_width", "heads_per_attribute", "query_block"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"model.{field} is {value!r}; give a whole number of at least 1")
        choices = dict(form=FORMS, pooling=("sum", "concat"), inner=INNERS, sharing=SHARINGS, scope=SCOPES, dtype=DTYPES)
        choices |= dict(attention=ATTENTIONS, recompute=RECOMPUTED)
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise UserError(f"model.{field} is {getattr(self, field)!r}; choose one of {', '.join(known)}")
        ahead = self.ahead
        if not isinstance(ahead, int) or isinstance(ahead, bool) or not 0 <= ahead < self.num_attributes:
            raise UserError(f"model.ahead is {ahead!r}; give a whole number from 0 to {self.num_attributes - 1}")
        if ahead and self.form not in ("nested", "pooled"):
            raise UserError(f"model.ahead is {ahead}; only the forms nested and pooled read attributes ahead, not {self.form}")
        if not isinstance(self.inner_width, int) or self.inner_width < 0:
            raise UserError(f"model.inner_width is {self.inner_width!r}; give a whole number, 0 for model.width")
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
        needed = {"all": 1, "own": self.keys_per_event, "mixed": 2 * self.keys_per_event}[self.scope]
        if self.heads % (needed * self.heads_per_attribute):
            raise UserError(
                f"model.heads is {self.heads}; scope {self.scope} with heads_per_attribute = {self.heads_per_attribute} "
                f"needs a multiple of {needed * self.heads_per_attribute}"
            )

    @property
    def num_attributes(self) -> int:
        return len(self.vocab_sizes)

    @property
    def order(self) -> tuple[int, ...]:
        """The attributes in the order in which they are foretold from one step of the layers, if not flat."""
        return tuple((self.ahead + place) % self.num_attributes for place in range(self.num_attributes))

    @property
    def tokens_per_event(self) -> int:
        """The places that an event takes in the layers."""
        return self.num_attributes if self.form == "flat" else 1

    @property
    def keys_per_event(self) -> int:
        """The keys that an event has in each key-value head: one for each token.

        Where an event is one token, as_kvhs gives it one for each attribute all the same, each by the attribute's projection.
        """
        return self.num_attributes if self.sharing == "as_kvhs" else self.tokens_per_event

    @property
    def cached_heads(self) -> int:
        """K: the key-value heads that the cache holds for each key of an event."""
        return {"mha": self.heads, "gqa": self.kv_heads, "mqa": 1, "as_kvhs": self.heads_per_attribute}[self.sharing]

    @property
    def cached_lanes(self) -> tuple[int, int]:
        """(L, Q): the lanes of the cache, and the keys that each event has in one.

        A lane for each key-value head, or, where every query head reads one attribute only, for each head and attribute.
        """
        if self.own_heads == self.heads:
            return self.cached_heads * self.keys_per_event, 1
        return self.cached_heads, self.keys_per_event

    @property
    def own_heads(self) -> int:
        """The query heads that read only the tokens of one attribute."""
        if self.sharing != "as_kvhs" or self.scope == "all":
            return 0
        return self.heads if self.scope == "own" else self.heads // 2

    @property
    def can_fuse(self) -> bool:
        """Whether each head hears as many keys as there are queries, or, alone, those of one attribute."""
        return self.keys_per_event == self.tokens_per_event or self.own_heads == self.heads

    @property
    def own_groups(self) -> int:
        """The groups of query heads that read only the tokens of one attribute: one for each."""
        return self.num_attributes if self.own_heads else 0

    @property
    def head_groups(self) -> int:
        """X: the groups of equal size that query heads come in, those of scope own first, then the others in as many."""
        return self.own_groups * self.heads // self.own_heads if self.own_heads else 1

    @property
    def name(self) -> str:
        """A short name for tables: the sharing with its heads and scope, after the form where it is not flat.

        The form has with it what it reads ahead, and its decoder and its pooling where they are not the default ones.
        """
        sharing = {
            "as_kvhs": f"as_kvhs-{self.scope}-{self.heads_per_attribute}",
            "gqa": f"gqa-{self.kv_heads}",
        }.get(self.sharing, self.sharing)
        if self.form == "flat":
            return sharing
        inner = [self.inner] if self.form == "nested" and self.inner != "mlp" else []
        pooling = [self.pooling] if self.pooling != "sum" else []
        return "-".join([f"{self.form}{self.ahead or ''}", *inner, *pooling, sharing])
