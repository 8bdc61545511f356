"""Sphinx's settings. The source is the whole repository: so links of ``docs`` to files outside of it lead somewhere."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # Sphinx runs this file as no module of a package

project = "notification-scheduler"
html_title = "notification-scheduler"
root_doc = "docs/README"
include_patterns = ["*.md", "docs/**"]
# What Sphinx needn't walk through: everything else, environments and data of demos above all.
exclude_patterns = [entry.name for entry in ROOT.iterdir() if entry.is_dir() and entry.name != "docs"]

extensions = ["myst_parser", "deploy.site.navigation", "deploy.site.reference"]
myst_heading_anchors = 4  # named as code hosts name them
highlight_language = "none"  # an indented block is output or a line to type, no Python
suppress_warnings: list[str] = []

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["copy.js"]
html_extra_path = ["front"]  # index.html, which leads on to the first page
html_favicon = "../../frontend/static/frontend/favicon.svg"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#5b21b6", "color-brand-content": "#5b21b6"},
    "dark_css_variables": {"color-brand-primary": "#c4b5fd", "color-brand-content": "#c4b5fd"},
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
