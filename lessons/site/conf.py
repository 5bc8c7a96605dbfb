"""Configuration of the site: the lessons, the pages around them, and the library's reference.

`python lessons/build.py --site` calls Sphinx with it. The pages need no network.
"""

from minires import __version__

project = "minires"
release = version = __version__
project_copyright = "The minires authors"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",
]

nb_execution_mode = "off"  # lessons/build.py has executed them
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings name the types
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = False

html_theme = "furo"
html_title = "minires"
html_static_path = ["_static"]
html_css_files = ["lessons.css"]
html_show_sourcelink = False
html_copy_source = False
