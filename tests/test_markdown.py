"""Markdown documents whose sections are replaced."""

from sage_jax.markdown import with_part


def test_a_section_replaces_the_one_with_its_heading_or_comes_last():
    both = with_part(with_part("# All\n", "## One\n\n1\n\n### Below\n"), "## Two\n\n2")
    assert both == "# All\n\n## One\n\n1\n\n### Below\n\n## Two\n\n2\n"
    assert with_part(both, "## One\n\nagain") == "# All\n\n## One\n\nagain\n\n## Two\n\n2\n"
