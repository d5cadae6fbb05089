"""The grammar of a tokenizer."""

from sage_jax.decoding.grammars.mmt import MmtGrammar
from sage_jax.decoding.grammars.note_events import Grammar
from sage_jax.decoding.grammars.remi import RemiGrammar
from sage_jax.decoding.grammars.role_events import RoleGrammar
from sage_jax.tokenizers.base import Tokenizer
from sage_jax.tokenizers.bpe import RemiBpe
from sage_jax.tokenizers.mmt import Mmt
from sage_jax.tokenizers.note_events import NoteEvents
from sage_jax.tokenizers.role_events import RoleEvents


def make_grammar(tokenizer: Tokenizer) -> Grammar | RemiGrammar | MmtGrammar:
    """The grammar that masks the logits of a model of this tokenizer. Raises TypeError for a tokenizer without one."""
    if isinstance(tokenizer, RoleEvents):
        return RoleGrammar(tokenizer)
    if isinstance(tokenizer, NoteEvents):
        return Grammar(tokenizer)
    if isinstance(tokenizer, RemiBpe):
        return RemiGrammar(tokenizer)
    if isinstance(tokenizer, Mmt):
        return MmtGrammar(tokenizer)
    raise TypeError(f"{type(tokenizer).__name__} has no grammar in sage_jax/decoding/grammars")
