"""ModelConfig: sizes and options of a model, validated on construction."""

import dataclasses

from sage_jax.errors import UserError

KV_SHARINGS = ("mha", "gqa", "mqa", "as_kvhs")
ATTRIBUTE_SCOPES = ("all", "own", "mixed")
DTYPES = ("float32", "bfloat16")
ARCHITECTURES = ("flat", "nested", "pooled", "compound", "delay")
EVENT_DECODERS = ("mlp", "attention", "gru")
POOLINGS = ("sum", "concat")
DECODE_IMPLS = ("auto", "xla", "fused")
ATTENTION_IMPLS = ("auto", "chunked", "flash")
DROPOUTS = ("dropout_embedding", "dropout_attention", "dropout_residual")
REMATS = ("none", "scores", "dots", "full")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer over events of A = len(vocab_sizes) tokens. Raises UserError naming the field.

    vocab_sizes: vocabulary size of each attribute. tracks_per_program, roles: what instrument ids are made of, as in
      `NoteEvents` and `RoleEvents`. All three follow from the tokenizer.
    architecture: "flat" runs the backbone once per token. The others run it once per event on pooled embeddings and predict the
      next event from one hidden state. "pooled": all attributes independently. "compound": the first attribute, then the others
      independently. "nested": one attribute after another with a small event decoder. "delay": independently, with attribute a
      of event n at step n + a.
    lookahead: of nested and pooled models. The backbone's input at step n has the first `lookahead` attributes of event n + 1
      and the remaining attributes of event n. Later attributes are then predicted with attention conditioned on the former.
    pooling: "sum" of the embeddings of an event's tokens, or "concat" with a projection.
    event_decoder, event_decoder_dim: decoder of a nested model and its hidden size, 0 for embed_dim. "mlp": a residual MLP per
      attribute. "attention": one layer over the event's tokens. "gru": a gated recurrent unit.
    embed_dim, num_layers, num_heads, head_dim, mlp_dim: sizes of the backbone.
    kv_sharing: "mha": one KV head per query head. "gqa": num_kv_heads KV heads. "mqa": one. "as_kvhs": kv_heads_per_attribute
      for each attribute; keys and values of a token come from the projection of its own attribute.
    attribute_scope: tokens that a query head of as_kvhs attends to. "all": every attribute. "own": one attribute. "mixed": half
      of the heads each.
    rope_theta: base of the rotary frequencies.
    dtype: of the computation. Parameters are stored in float32.
    query_chunk_size: events per chunk of queries in chunked attention. Memory grows with it.
    attention_impl: of training and validation. "chunked": one chunk of queries after another. "flash":
      jax.nn.dot_product_attention, which is cuDNN's flash attention on a GPU in bfloat16. It needs as many keys as queries;
      event-level models with scope all or mixed fall back to chunked. "auto": flash where cuDNN has a kernel, which
      flash_attention.resolve decides for a device; a model that is built without it takes chunked.
    decode_impl: of event steps. "xla": the model as it is. "fused": one kernel for a whole event on a GPU, see decoding/fused.
      "auto": fused for nested models on GPUs, which decoding/fused/step.py decides for a device.
    dropout_embedding, dropout_attention, dropout_residual: shares that training sets to 0, of what enters the layers, of the
      attention weights, and of what attention and MLP of each layer add. Validation and decoding drop nothing.
    remat: what the backward pass recomputes. "none": nothing; the fastest if memory suffices. "scores": attention scores, one
      chunk at a time. "dots": all but the outputs of dense layers. "full": all but the input of each layer.
    """

    vocab_sizes: tuple[int, ...]
    architecture: str = "flat"
    lookahead: int = 0
    pooling: str = "sum"
    event_decoder: str = "mlp"
    event_decoder_dim: int = 0
    embed_dim: int = 512
    num_layers: int = 12
    num_heads: int = 10
    head_dim: int = 64
    mlp_dim: int = 1536
    kv_sharing: str = "as_kvhs"
    attribute_scope: str = "mixed"
    kv_heads_per_attribute: int = 1
    num_kv_heads: int = 0
    rope_theta: float = 10_000.0
    dtype: str = "float32"
    query_chunk_size: int = 64
    attention_impl: str = "auto"
    decode_impl: str = "auto"
    remat: str = "scores"
    dropout_embedding: float = 0.0
    dropout_attention: float = 0.0
    dropout_residual: float = 0.0
    tracks_per_program: int = 1
    roles: bool = False

    def __post_init__(self):
        object.__setattr__(self, "vocab_sizes", tuple(int(size) for size in self.vocab_sizes))
        sizes = ("embed_dim", "num_layers", "num_heads", "head_dim", "mlp_dim")
        for field in (*sizes, "kv_heads_per_attribute", "query_chunk_size"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"model.{field} is {value!r}; give a whole number of at least 1")
        choices = dict(architecture=ARCHITECTURES, pooling=POOLINGS, event_decoder=EVENT_DECODERS, kv_sharing=KV_SHARINGS)
        choices |= dict(attribute_scope=ATTRIBUTE_SCOPES, dtype=DTYPES, remat=REMATS)
        choices |= dict(attention_impl=ATTENTION_IMPLS, decode_impl=DECODE_IMPLS)
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise UserError(f"model.{field} is {getattr(self, field)!r}; choose one of {', '.join(known)}")
        lookahead = self.lookahead
        if not isinstance(lookahead, int) or isinstance(lookahead, bool) or not 0 <= lookahead < self.num_attributes:
            raise UserError(f"model.lookahead is {lookahead!r}; give a whole number from 0 to {self.num_attributes - 1}")
        if lookahead and self.architecture not in ("nested", "pooled"):
            raise UserError(f"model.lookahead is {lookahead}, but architecture {self.architecture} has none; give 0")
        if not isinstance(self.event_decoder_dim, int) or self.event_decoder_dim < 0:
            raise UserError(f"model.event_decoder_dim is {self.event_decoder_dim!r}; give a whole number, 0 for embed_dim")
        if self.head_dim % 2:
            raise UserError(f"model.head_dim is {self.head_dim}; rotary positions need an even one")
        for field in DROPOUTS:
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"model.{field} is {getattr(self, field)!r}; give a number from 0 to below 1")
        if self.dropout_attention and self.attention_impl == "flash":
            raise UserError(
                f"model.dropout_attention is {self.dropout_attention}, which attention_impl = flash can't do; give "
                "model.attention_impl = chunked, or dropout_residual alone"
            )
        if not self.rope_theta > 1:
            raise UserError(f"model.rope_theta is {self.rope_theta}; give a number above 1")
        if self.kv_sharing == "gqa" and (self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads):
            heads = f"model.num_heads = {self.num_heads}"
            raise UserError(f"model.num_kv_heads is {self.num_kv_heads}; gqa needs a divisor of {heads}")
        if self.kv_sharing == "as_kvhs":
            self._check_groups()

    def _check_groups(self):
        # Every KV group serves the same number of query heads: K groups in scope all, A K in scope own, both in scope mixed.
        A, K, scope = self.keys_per_event, self.kv_heads_per_attribute, self.attribute_scope
        needed = {"all": 1, "own": A, "mixed": 2 * A}[scope] * K
        if self.num_heads % needed:
            raise UserError(
                f"model.num_heads is {self.num_heads}; attribute_scope {scope} with kv_heads_per_attribute = {K} "
                f"needs a multiple of {needed}"
            )

    @property
    def num_attributes(self) -> int:
        """A."""
        return len(self.vocab_sizes)

    @property
    def decode_order(self) -> tuple[int, ...]:
        """The attributes in the order in which an event-level model predicts them from one hidden state."""
        return tuple((self.lookahead + index) % self.num_attributes for index in range(self.num_attributes))

    @property
    def tokens_per_event(self) -> int:
        """Backbone positions per event: A in a flat model, else 1."""
        return self.num_attributes if self.architecture == "flat" else 1

    @property
    def keys_per_event(self) -> int:
        """E: keys of each event in a KV head, one per token.

        With as_kvhs there are always A, even if an event is one token: each attribute's projection gives one.
        """
        return self.num_attributes if self.kv_sharing == "as_kvhs" else self.tokens_per_event

    @property
    def cached_kv_heads(self) -> int:
        """K: KV heads of each key. In as_kvhs every attribute has this number of its own."""
        kv_heads = {"mha": self.num_heads, "gqa": self.num_kv_heads, "mqa": 1, "as_kvhs": self.kv_heads_per_attribute}
        return kv_heads[self.kv_sharing]

    @property
    def kv_groups(self) -> tuple[int, int]:
        """(G, Q): KV groups of the cache, and keys of each event in a group.

        One group per KV head with all E keys. If all query heads have scope own: one per KV head and attribute, with one key.
        """
        if self.num_own_scope_heads == self.num_heads:
            return self.cached_kv_heads * self.keys_per_event, 1
        return self.cached_kv_heads, self.keys_per_event

    @property
    def num_own_scope_heads(self) -> int:
        """Query heads that attend to the tokens of a single attribute."""
        if self.kv_sharing != "as_kvhs" or self.attribute_scope == "all":
            return 0
        return self.num_heads if self.attribute_scope == "own" else self.num_heads // 2

    @property
    def supports_flash_attention(self) -> bool:
        """Whether every head has as many keys as queries, over all tokens or over the events of one attribute."""
        return self.keys_per_event == self.tokens_per_event or self.num_own_scope_heads == self.num_heads

    @property
    def drops(self) -> bool:
        """Whether training drops anything."""
        return any(getattr(self, field) for field in DROPOUTS)

    @property
    def num_own_scope_groups(self) -> int:
        """Groups of own-scope query heads: one per attribute, or none."""
        return self.num_attributes if self.num_own_scope_heads else 0

    @property
    def num_query_groups(self) -> int:
        """X: groups of equally many query heads. Those of scope own come first; with scope mixed as many groups follow."""
        return self.num_own_scope_groups * self.num_heads // self.num_own_scope_heads if self.num_own_scope_heads else 1

    @property
    def name(self) -> str:
        """A short name for tables, such as "mha", "as_kvhs-mixed-1" or "nested2-gru-mqa".

        It has the architecture unless flat, the lookahead unless 0, decoder and pooling unless default, and the KV sharing.
        """
        sharing = {
            "as_kvhs": f"as_kvhs-{self.attribute_scope}-{self.kv_heads_per_attribute}",
            "gqa": f"gqa-{self.num_kv_heads}",
        }.get(self.kv_sharing, self.kv_sharing)
        if self.architecture == "flat":
            return sharing
        decoder = [self.event_decoder] if self.architecture == "nested" and self.event_decoder != "mlp" else []
        pooling = [self.pooling] if self.pooling != "sum" else []
        return "-".join([f"{self.architecture}{self.lookahead or ''}", *decoder, *pooling, sharing])
