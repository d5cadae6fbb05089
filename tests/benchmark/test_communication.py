"""Collectives of a program: their bytes, and the mesh axes along which they run."""

import pytest

from sage_jax.benchmark.communication import Collective, collectives, totals
from sage_jax.benchmark.hlo import Program

MESH = {"data": 2, "fsdp": 2, "tensor": 2}


def calls(*instructions: str) -> list[Collective]:
    lines = "\n".join(f"  {each}" for each in instructions)
    return collectives(Program.parse(f"HloModule jit_step\n\nENTRY %main (p: f32[4]) -> f32[4] {{\n{lines}\n}}\n"), MESH)


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", "tensor"),
        ("replica_groups={{0,2},{1,3},{4,6},{5,7}}", "fsdp"),
        ("replica_groups={{0,2,4,6},{1,3,5,7}}", "data+fsdp"),
        ("replica_groups={}", "data+fsdp+tensor"),
        ("replica_groups=[4,2]<=[8]", "tensor"),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", "data"),
        ("replica_groups=[4,2]<=[2,2,2]T(0,2,1)", "fsdp"),
        ("replica_groups=[1,8]<=[8]", "data+fsdp+tensor"),
        ("replica_groups=mesh['a'=4,'b'=2] {'b'}", "tensor"),
        ("replica_groups=mesh['a'=4,'b'=2] {'a'}", "data+fsdp"),
        ("replica_groups=mesh['a'=4,'b'=2] {'a':(1)2}", "data"),
        ("replica_groups=mesh['a'=4,'b'=2] {'a':(2)2,'b'}", "fsdp+tensor"),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}", "tensor"),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=(0,2,4,6,1,3,5,7) {'b'}", "data+fsdp"),
    ],
)
def test_the_axes_of_a_collective_follow_from_its_groups(groups, axes):
    found = calls(f"%a = f32[4,2]{{1,0}} all-gather(%p), channel_id=1, {groups}, dimensions={{0}}, use_global_device_ids=true")
    assert found == [Collective("all-gather", axes, 32)]


def test_a_permute_runs_along_the_axis_of_its_pairs():
    assert calls("%a = bf16[3]{0} collective-permute(%p), channel_id=1, source_target_pairs={{0,2},{2,0}}") == [
        Collective("collective-permute", "fsdp", 6)
    ]


def test_an_asynchronous_start_counts_its_results_once():
    """TPU layouts have parentheses of their own."""
    layout = "{1,0:T(8,128)(2,1)S(1)}"
    start = f"%s = (bf16[2,8]{layout}, bf16[4,8]{layout}) all-gather-start(%p), channel_id=7, replica_groups=[4,2]<=[8]"
    done = f"%d = bf16[4,8]{layout} all-gather-done(%s)"
    assert calls(start, done) == [Collective("all-gather", "tensor", 64)]
    scatter = "%s = ((f32[8]{0}, f32[2]{0}), (f32[4]{0}, f32[1]{0})) reduce-scatter-start(%p, %q)"
    assert calls(f"{scatter}, channel_id=1, replica_groups=[4,2]<=[8]") == [Collective("reduce-scatter", "tensor", 20)]
    permute = "%s = (f32[4]{0}, f32[4]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%p)"
    assert calls(f"{permute}, channel_id=1, source_target_pairs={{{{0,4}}}}") == [Collective("collective-permute", "data", 16)]


def test_a_call_that_is_shown_twice_counts_once():
    shown = "f32[4]{0} all-gather(%p), channel_id=3, replica_groups=[4,2]<=[8]"
    assert len(calls(f"%a = {shown}", f"%b = {shown}")) == 1


def test_sums_that_are_scattered_in_a_fusion_count_each():
    """As the compiler of TPUs writes those that it joins: one channel for all."""
    fusion = """%all-reduce-scatter.{n} (p: f32[8]) -> f32[4] {{
  %p = f32[8]{{0}} parameter(0)
  %all-reduce.{n} = f32[8]{{0}} all-reduce(%p), channel_id=1, replica_groups={{{{0,2}},{{1,3}},{{4,6}},{{5,7}}}}
  ROOT %dynamic-slice.{n} = f32[4]{{0}} dynamic-slice(%all-reduce.{n}, %first), dynamic_slice_sizes={{4}}
}}

"""
    entry = "ENTRY %main (p: f32[8]) -> f32[4] {\n  %p = f32[8]{0} parameter(0)\n}\n"
    program = Program.parse(f"HloModule jit_step\n\n{fusion.format(n=1)}{fusion.format(n=2)}{entry}")
    assert collectives(program, MESH) == [Collective("reduce-scatter", "fsdp", 16)] * 2


def test_totals_are_by_kind_and_axes():
    gathers = [f"%a{n} = f32[4]{{0}} all-gather(%p), channel_id={n}, replica_groups=[4,2]<=[8]" for n in (1, 2)]
    sums = "%r = (f32[64]{0}, s8[4]{0}) all-reduce(%p, %q), channel_id=4, replica_groups={}"
    assert totals(calls(*gathers, sums)) == [
        (Collective("all-reduce", "data+fsdp+tensor", 260), 1),
        (Collective("all-gather", "tensor", 32), 2),
    ]
