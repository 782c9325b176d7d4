"""How `make docs` builds the site: pages stay where they are, so links work in a checkout too.

The source folder is the repository's root, and this file is given by ``-c docs``.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent / "extension"))

project = "Transformer Projector"
author = "the Transformer Projector developers"
copyright = author
release = version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "public_names",
    "command_help",
    "setting_tables",
    "mathml",
    "home",
]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "projector/bundled/README.md",
    "docs/**.md",
]
source_suffix = {".md": "markdown"}

myst_enable_extensions = ["dollarmath", "colon_fence"]
# Anchors as a checkout's viewer makes them, so that one link works in both.
myst_heading_anchors = 4

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True

# Two hyphens are an option, not a dash.
smartquotes = False

html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    # As an icon: a field would put the menu on two lines in a window of usual width.
    "navbar_persistent": ["search-button"],
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
# Code blocks show commands and their comments; no prompt is copied with them.
copybutton_prompt_text = r"^\$ "
copybutton_prompt_is_regexp = True
# MathML, which browsers draw themselves: the site needs no network.
html_math_renderer = "mathml"
