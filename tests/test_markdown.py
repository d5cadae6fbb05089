"""Markdown documents whose sections are replaced."""

from sage_jax.markdown import with_part


def test_a_section_replaces_the_one_with_its_heading_or_comes_last():
    both = with_part(with_part("# All\n", "## One\n\n1\n\n### Below\n"), "## Two\n\n2")
    assert both == "# All\n\n## One\n\n1\n\n### Below\n\n## Two\n\n2\n"
    assert with_part(both, "## One\n\nagain") == "# All\n\n## One\n\nagain\n\n## Two\n\n2\n"


def test_a_new_section_comes_before_the_appendices():
    document = with_part("# All\n", "## Appendix, 1\n\n1", before="## Appendix")
    document = with_part(document, "## Appendix, 2\n\n2", before="## Appendix")
    document = with_part(document, "## New\n\n3", before="## Appendix")
    assert document.split("\n\n")[1::2] == ["## New", "## Appendix, 1", "## Appendix, 2"]
