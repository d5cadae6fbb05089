"""The grammar of a representation."""

from sage_jax.decoding.grammar import Grammar
from sage_jax.decoding.mmt_grammar import MmtGrammar
from sage_jax.decoding.stream_grammar import StreamGrammar
from sage_jax.music.bpe import RemiBpe
from sage_jax.music.mmt import Mmt
from sage_jax.music.representation import Representation


def make_grammar(representation: Representation) -> Grammar | StreamGrammar | MmtGrammar:
    """What masks the steps of `representation` while they are drawn."""
    if isinstance(representation, RemiBpe):
        return StreamGrammar(representation)
    return MmtGrammar(representation) if isinstance(representation, Mmt) else Grammar(representation)
