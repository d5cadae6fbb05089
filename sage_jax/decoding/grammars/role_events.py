"""The grammar of RoleEvents: that of NoteEvents over own events. Given ones and the header are read and never drawn.

Shapes as in models/attention.py.
"""

import jax
import jax.numpy as jnp

from sage_jax.decoding.constraints import Constraints
from sage_jax.decoding.grammars.note_events import Grammar, GrammarState
from sage_jax.tokenizers import note_events as ev
from sage_jax.tokenizers.role_events import RoleEvents


class RoleGrammar(Grammar):
    """The grammar of RoleEvents, on the device: the state is that of the own events alone."""

    tokenizer: RoleEvents

    def playable(self, constraints: Constraints) -> jax.Array:
        """bool [B, V] instrument ids that may be drawn: no given ones, and not the LEAD event."""
        own = super().playable(constraints)
        return jnp.pad(own, ((0, 0), (0, self.widths[ev.INSTRUMENT] - own.shape[1])))

    def advance(self, state: GrammarState, event: jax.Array) -> GrammarState:
        """The state after `event` [B, A]. Given events, the header, BOS, EOS and PAD do not change it."""
        moved = super().advance(state, event)
        is_other = self.tokenizer.is_header(event) | (event[:, ev.INSTRUMENT] >= self.tokenizer.num_instruments)
        return jax.tree.map(lambda new, old: jnp.where(is_other, old, new), moved, state)
