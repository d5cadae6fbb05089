"""Counts in a program of every kind of instruction, and in a small one that jax compiles."""

import jax
import jax.numpy as jnp
import pytest

from sage_jax.benchmark.hlo import Program
from sage_jax.compiling.counts import Counts, copies_of, count
from sage_jax.compiling.traffic import main_memory_bytes

TEXT = """HloModule jit_step, is_scheduled=true

%fused (a: bf16[8,4]) -> bf16[4,8] {
  %a = bf16[8,4]{1,0} parameter(0)
  ROOT %t = bf16[4,8]{1,0} transpose(%a), dimensions={1,0}
}

%sum (a: f32[], b: f32[]) -> f32[] {
  %a.1 = f32[] parameter(0)
  %b.1 = f32[] parameter(1)
  ROOT %add = f32[] add(%a.1, %b.1)
}

%body (carry: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %carry = (s32[], bf16[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%carry), index=0
  %x = bf16[8,4]{1,0} get-tuple-element(%carry), index=1
  %sorted = bf16[8,4]{1,0} sort(%x), dimensions={1}, to_apply=%sum
  %copied = bf16[8,4]{1,0} copy(%sorted)
  %more = s32[] add(%i, %i)
  ROOT %next = (s32[], bf16[8,4]{1,0}) tuple(%i, %copied)
}

%condition (carry.1: (s32[], bf16[8,4])) -> pred[] {
  %carry.1 = (s32[], bf16[8,4]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%carry.1), index=0
  %n = s32[] constant(4)
  ROOT %less = pred[] compare(%j, %n), direction=LT
}

%yes (c: bf16[8,4]) -> bf16[8,4] {
  %c = bf16[8,4]{1,0} parameter(0)
  ROOT %gemm = bf16[8,4]{1,0} custom-call(%c), custom_call_target="__cublas$gemm"
}

%no (d: bf16[8,4]) -> bf16[8,4] {
  ROOT %d = bf16[8,4]{1,0} parameter(0)
}

ENTRY %main (p: bf16[8,4], q: pred[]) -> bf16[8,4] {
  %p = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  %q = pred[] parameter(1)
  %space = bf16[8,4]{1,0:T(8,128)(2,1)S(1)} custom-call(), custom_call_target="AllocateBuffer"
  %begin = (bf16[8,4]{1,0:T(8,128)(2,1)S(1)}, bf16[8,4]{1,0}, u32[]{:S(2)}) copy-start(%p)
  %end = bf16[8,4]{1,0:T(8,128)(2,1)S(1)} copy-done(%begin)
  %turned = bf16[4,8]{1,0} fusion(%end), kind=kLoop, calls=%fused
  %all = bf16[4,8]{1,0} all-reduce(%turned), channel_id=1, replica_groups={{0,1}}, to_apply=%sum
  %zero = s32[] constant(0)
  %start = (s32[], /*index=1*/bf16[8,4]{1,0}) tuple(%zero, %p)
  %loop = (s32[], bf16[8,4]{1,0}) while(%start), condition=%condition, body=%body
  %y = bf16[8,4]{1,0} get-tuple-element(%loop), index=1
  ROOT %either = bf16[8,4]{1,0} conditional(%q, %y, %y), true_computation=%yes, false_computation=%no
}
"""


def test_each_instruction_counts_where_it_runs():
    once, nested = count(Program.parse(TEXT))
    assert once == Counts(fusions=1, transfers=1, collectives=1, conditionals=1, loops=1)
    assert nested == Counts(library=1, single=2, scalar=1)
    assert (once.kernels, nested.kernels) == (1, 3)


@pytest.mark.parametrize(("size", "copies"), [(64, 2), (65, 0)])
def test_copies_are_those_to_the_main_memory(size, copies):
    """A transposition that ends a fusion, and a copy in a loop; not the one into a memory of its own."""
    assert copies_of(Program.parse(TEXT), {size}) == copies


def test_a_text_without_an_entry_is_an_error():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        Program.parse("HloModule nothing\n")


def test_a_program_of_jax_has_the_loop_and_the_branch_it_was_written_with():
    def function(x, n):
        x = jax.lax.fori_loop(0, n, lambda _, x: jnp.sort(jnp.sin(x)) @ jnp.ones((4, 4)), x)
        return jax.lax.cond(n > 2, jnp.cumsum, lambda x: jnp.fft.fft(x).real, x[0])

    text = jax.jit(function).lower(jnp.ones((8, 4)), 3).compile().as_text()
    once, nested = count(Program.parse(text))
    assert (once.loops, once.conditionals) == (1, 1)
    assert nested.kernels >= 3  # the sine, the sort and the product at the least, unless they are one


def test_main_memory_is_what_lies_in_no_other_memory():
    """A transfer out of it counts once, like what the fusion and the all-reduce write and the latter reads."""
    assert main_memory_bytes(Program.parse(TEXT)) == 64 + 64 + 2 * 64


def test_updates_and_slices_count_as_what_they_change_and_return():
    text = """HloModule jit_step

%put (cache: bf16[64,8], row: bf16[1,8], at: s32[]) -> bf16[64,8] {
  %cache = bf16[64,8]{1,0} parameter(0)
  %row = bf16[1,8]{1,0} parameter(1)
  %at = s32[] parameter(2)
  ROOT %put.1 = bf16[64,8]{1,0} dynamic-update-slice(%cache, %row, %at, %at)
}

%look (table: bf16[64,8], at.1: s32[]) -> f32[1,8] {
  %table = bf16[64,8]{1,0} parameter(0)
  %at.1 = s32[] parameter(1)
  %one = bf16[1,8]{1,0} dynamic-slice(%table, %at.1, %at.1), dynamic_slice_sizes={1,8}
  ROOT %wide = f32[1,8]{1,0} convert(%one)
}

ENTRY %main (p: bf16[64,8], q: bf16[1,8], i: s32[]) -> f32[1,8] {
  %p = bf16[64,8]{1,0} parameter(0)
  %q = bf16[1,8]{1,0} parameter(1)
  %i = s32[]{:S(2)} parameter(2)
  %written = bf16[64,8]{1,0} fusion(%p, %q, %i), kind=kLoop, calls=%put
  ROOT %found = f32[1,8]{1,0} fusion(%written, %i), kind=kLoop, calls=%look
}
"""
    written, found = 16 + 2 * 16, 16 + 32  # the row is read, then written over another one; a row is read, a wider one written
    assert main_memory_bytes(Program.parse(text)) == written + found
